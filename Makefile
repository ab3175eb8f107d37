# Needs Python 3.11 or later and make, nothing else. PYTHON=python3.12 make demo takes another interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DOCUMENTING := $(VENV)/.documenting

# For make fuzz: how many inputs of each parser, which parsers (names, how they begin, groups), and how many at a time.
INPUTS ?= 10000
PARSER ?=
JOBS ?= 2
# For make faults: points of each command, which part of them, and which command.
POINTS ?= 200
SLICE ?= 1/1
COMMAND ?=

.PHONY: demo test check bench fuzz faults docs clean

demo: $(INSTALLED)  ## train on pictures it draws itself, about 2 minutes on 2 cores
	$(BIN)/captrain demo --overwrite

test: $(INSTALLED)  ## all tests, on all cores
	$(BIN)/python -m pytest -n auto --dist worksteal

check: $(INSTALLED)  ## lint, format, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)  ## seconds a caption against plain transformers, and encoding against its encoder alone
	$(BIN)/python benchmarks/packing.py
	$(BIN)/python benchmarks/encode.py --threads 1 --workers 1 --pictures 1024

fuzz: $(INSTALLED)  ## broken inputs for everything that reads files of strangers; the tests have a bounded run of it
	PYTHONPATH=tests $(BIN)/python -m fuzz --inputs $(INPUTS) --jobs $(JOBS) --parser $(PARSER)

faults: $(INSTALLED)  ## every call that writes fails or is the last, in every command: about an hour (POINTS=20, COMMAND=encode, SLICE=1/4)
	$(BIN)/python tests/faults/harness.py --points $(POINTS) --slice $(SLICE) --command "$(COMMAND)"
	$(BIN)/python tests/faults/harness.py --disk 8 --points 20 --command "$(COMMAND)"

docs: $(DOCUMENTING)  ## the documentation as a site, in docs/_build; every warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --fresh-env --quiet -b html docs docs/_build
	@echo "open docs/_build/index.html"

$(DOCUMENTING): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "captrain needs Python 3.11 or later, this is " + sys.version'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs docs/_build .pytest_cache .mypy_cache .ruff_cache

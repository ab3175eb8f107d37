# Needs Python 3.11 or later and make, nothing else. PYTHON=python3.12 make demo takes another interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
# One stamp for each thing that is installed: captrain alone, what tests and checks need as well, what the documentation needs as well.
ALONE := $(VENV)/.captrain
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

# The oldest transformers that is supported, before the packages of $(VENV).
LOWEST := .venv-lowest
LOWEST_INSTALLED := $(LOWEST)/.installed

.PHONY: help demo test test-lowest check types api-types layers wheel bench quality fuzz faults docs clean
.DEFAULT_GOAL := help

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(ALONE)  ## train on pictures that captrain draws itself, score, write the report; 3 to 8 minutes on 2 cores
	@echo "demo: draws 4,700 pictures, trains a captioner on them, and writes runs/demo/run/report.html; 3 to 8 minutes on 2 cores"
	$(BIN)/captrain demo --overwrite

test: $(INSTALLED)  ## run all tests, on all cores; 20 to 30 minutes on 2 cores
	@echo "test: runs all tests on all cores, without network; 20 to 30 minutes on 2 cores"
	$(BIN)/python -m pytest -n auto --dist worksteal

test-lowest: $(LOWEST_INSTALLED)  ## the quick part of the tests, on the oldest transformers that is supported; about 2 minutes
	@echo "test-lowest: the quick part of the tests, on the oldest transformers that is supported; about 2 minutes"
	$(LOWEST)/bin/python -m pytest -n auto --dist worksteal tests/unit/test_training_adapter.py \
		tests/unit/test_training_gradients.py tests/unit/test_training_batch_size.py tests/unit/test_models_packing.py \
		tests/contract/test_captioners.py tests/integration/test_invariants.py::test_kept_features_equal_live_ones \
		tests/integration/test_invariants.py::test_accumulated_batches_equal_one_batch \
		'tests/integration/test_resume.py::test_continues_as_if_never_stopped[joined-in mid-epoch]' \
		tests/integration/test_resume.py::test_going_back_to_any_checkpoint

check: $(INSTALLED)  ## lint, format, types, import layers; about a minute
	@echo "check: lint, format, types, import layers; about a minute the first time, a few seconds after that"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory --jobs 2 types api-types layers

types: $(INSTALLED)
	$(BIN)/mypy

# With a cache of its own: mypy keeps nothing that was found with other options.
api-types: $(INSTALLED)
	$(BIN)/mypy --strict --cache-dir .mypy_cache/strict tests/types/uses_api.py

layers: $(INSTALLED)
	$(BIN)/lint-imports

wheel: $(INSTALLED)  ## build dist/*.tar.gz and dist/*.whl, check what is in them and use the wheel; less than a minute
	@echo "wheel: builds the source archive and the wheel into dist/, checks what is in them and uses the wheel; less than a minute"
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	CAPTRAIN_DIST=dist $(BIN)/python -m pytest -q tests/integration/test_wheel.py

bench: $(INSTALLED)  ## training and captioning against plain transformers, encoding against its encoder alone, speed beside a busy neighbour
	$(BIN)/python benchmarks/packing.py
	$(BIN)/python benchmarks/encode.py --threads 1 --workers 1 --pictures 1024
	$(BIN)/python benchmarks/caption.py --pictures 16 --single 4 --rounds 1
	$(BIN)/python benchmarks/neighbour.py

quality: $(INSTALLED)  ## does it learn as well as it did? The demo over three seeds and two more trainings; half an hour on 2 cores
	$(BIN)/python benchmarks/quality.py

fuzz: $(INSTALLED)  ## broken inputs for everything that reads files of strangers; the tests have a bounded run of it
	PYTHONPATH=tests $(BIN)/python -m fuzz --inputs $(INPUTS) --jobs $(JOBS) --parser $(PARSER)

faults: $(INSTALLED)  ## every call that writes fails or is the last, in every command: about an hour (POINTS=20, COMMAND=encode, SLICE=1/4)
	$(BIN)/python tests/faults/harness.py --points $(POINTS) --slice $(SLICE) --command "$(COMMAND)"
	$(BIN)/python tests/faults/harness.py --disk 8 --points 20 --command "$(COMMAND)"

docs: $(DOCUMENTING)  ## the documentation as a site, in docs/_build; every warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --fresh-env --quiet --jobs auto -b html docs docs/_build
	@echo "open docs/_build/index.html"

clean:  ## remove the virtual environment and everything that these targets wrote
	rm -rf $(VENV) $(LOWEST) runs dist docs/_build .pytest_cache .mypy_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("captrain needs Python 3.11 or later, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

$(ALONE): pyproject.toml constraints.txt | $(BIN)/python
	@echo "install: captrain and what it needs, into $(VENV); 330 MB to download (with PyTorch for CUDA, Linux's default, some GB more), about 2 minutes"
	$(PIP) .
	@touch $@

# Beside the packages of $(VENV), which come after its own.
$(LOWEST_INSTALLED): $(INSTALLED) constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	packages=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
		echo "import site; site.addsitedir('$$packages')" \
		> $$($(LOWEST)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/after.pth
	$(LOWEST)/bin/python -m pip install --quiet --no-deps --requirement constraints-lowest.txt
	touch $@

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "install: captrain with everything that its tests and checks need, into $(VENV); 600 MB to download, about 3 minutes"
	$(PIP) '.[dev]'
	@touch $(ALONE) $@

# All at once, because pip looks at every package again each time: .ci/run begins with this one.
$(DOCUMENTING): pyproject.toml constraints.txt | $(BIN)/python
	@echo "install: what tests, checks and the documentation need, into $(VENV); less than a minute where make test has been, else about 3"
	$(PIP) '.[dev,docs]'
	@touch $(ALONE) $(INSTALLED) $@

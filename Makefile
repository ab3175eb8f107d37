# Needs Python 3.11 or later and make, nothing else. PYTHON=python3.12 make demo takes another interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

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

.PHONY: demo test test-lowest check bench fuzz faults docs clean

demo: $(INSTALLED)  ## train on pictures it draws itself, about 2 minutes on 2 cores
	$(BIN)/captrain demo --overwrite

test: $(INSTALLED)  ## all tests, on all cores
	$(BIN)/python -m pytest -n auto --dist worksteal

test-lowest: $(LOWEST_INSTALLED)  ## the quick part of the tests, on the oldest transformers that is supported: about 2 minutes
	$(LOWEST)/bin/python -m pytest -n auto --dist worksteal tests/unit/test_training_adapter.py \
		tests/unit/test_training_gradients.py tests/unit/test_training_batch_size.py tests/unit/test_models_packing.py \
		tests/contract/test_captioners.py tests/integration/test_invariants.py::test_kept_features_equal_live_ones \
		tests/integration/test_invariants.py::test_accumulated_batches_equal_one_batch \
		'tests/integration/test_resume.py::test_continues_as_if_never_stopped[joined-in mid-epoch]' \
		tests/integration/test_resume.py::test_going_back_to_any_checkpoint

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

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "captrain needs Python 3.11 or later, this is " + sys.version'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(LOWEST_INSTALLED): $(INSTALLED) constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	packages=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
		echo "import site; site.addsitedir('$$packages')" \
		> $$($(LOWEST)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/after.pth
	$(LOWEST)/bin/python -m pip install --quiet --no-deps --requirement constraints-lowest.txt
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) runs .pytest_cache .mypy_cache .ruff_cache

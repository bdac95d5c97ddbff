# `make demo` and `make test` are complete by themselves on a machine with Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# uv needs a quarter of the time; it does not read pip's settings, so where it finds nothing pip is asked
install = $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(1) || $(PIP) $(1)
# several processes, each with a share of the processors; a file's tests stay together, for they share what they made
PYTEST ?= --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
TESTS := not slow

# the oldest versions of what is named in pyproject.toml, with which other packages may be newer than they expect
FLOORS := .venv-floors
FLOOR_TESTS ?= tests/core tests/engines tests/export tests/train

# options of the long campaign, such as --images 100000
FUZZ ?=

.PHONY: demo test test-all test-floors fuzz audit lint format clean

demo: $(VENV)/demo.done
	$(BIN)/python examples/demo.py

test: lint $(VENV)/test.done
	$(BIN)/python -m pytest $(PYTEST) -m "$(TESTS)"

test-all: TESTS := slow or not slow
test-all: test

test-floors: $(FLOORS)/test.done
	$(FLOORS)/bin/python -m pytest $(PYTEST) -o filterwarnings=default $(FLOOR_TESTS)

fuzz: $(VENV)/test.done
	PYTHONPATH=tests $(BIN)/python -m fault_injection $(FUZZ)

# the list of what is installed, and what is known of it; not every package index answers that
audit: $(VENV)/test.done
	mkdir -p dist
	$(BIN)/uv tool run --from cyclonedx-bom cyclonedx-py environment --output-file dist/sbom.json $(BIN)/python
	$(BIN)/uv tool run pip-audit --progress-spinner off --path $$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')

lint: $(VENV)/lint.done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/lint.done
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(FLOORS) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Headstart needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip uv

$(VENV)/demo.done: pyproject.toml | $(BIN)/python
	$(call install,-e '.[demo]')
	touch $@

$(VENV)/lint.done: pyproject.toml | $(BIN)/python
	$(call install,-e '.[lint]')
	touch $@

$(VENV)/test.done: pyproject.toml | $(BIN)/python
	$(call install,-e '.[test]')
	touch $@ $(VENV)/demo.done $(VENV)/lint.done

$(FLOORS)/test.done: pyproject.toml | $(BIN)/python
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(FLOORS)
	$(BIN)/uv pip install --quiet --python $(FLOORS)/bin/python --resolution lowest-direct -e '.[test]'
	touch $@

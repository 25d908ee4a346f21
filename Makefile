# Two commands do everything: `make demo` and `make test`. Both set up what they need in .venv.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -q -n auto

.PHONY: demo test lint types tests crash docs bench changelog clean

demo: $(VENV)/.ready-demo
	$(BIN)/python -m examples.demo

test: lint types tests docs

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/flake8-async --enable=ASYNC $$(find benchmarks csjd docs examples tests -name '*.py')

types: $(VENV)/.ready-test
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright --verifytypes csjd --ignoreexternal

tests: $(VENV)/.ready-test
	$(PYTEST)

# The store's battery at full size: real kills by the thousand, every crash state we can name.
crash: $(VENV)/.ready-test
	CSJD_CRASH=full $(PYTEST) tests/store

docs: $(VENV)/.ready-test
	$(BIN)/python -m sphinx -W -b html docs docs/_build/html

bench: $(VENV)/.ready-bench
	$(BIN)/python -m benchmarks

changelog: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet 'towncrier>=24.8'
	$(BIN)/towncrier build --yes --version $(VERSION)

clean:
	rm -rf $(VENV) build docs/_build docs/reference/_generated .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.ready-demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.ready-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/.ready-bench: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@

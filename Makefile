# For everyone: `make up` (the main job), `make demo` (see it work anywhere), `make test` (every check).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: up demo test lint unit venv install local docs fix clean
.DEFAULT_GOAL := up

up: install                 ## install into .venv and run the main job
	$(BIN)/llmctl up

demo: local                 ## a tiny model that really sees: no Docker, no GPU, no network
	$(BIN)/llmctl up -C demo
	$(BIN)/llmctl smoke-test -C demo
	$(BIN)/llmctl demo -C demo
	@echo "it runs on; stop it with: $(BIN)/llmctl down -C demo"

test: venv lint             ## ruff, mypy, import-linter and the tests
	$(BIN)/python -m pytest

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

unit: venv                  ## the tests that need no container engine
	$(BIN)/python -m pytest -m "not docker"

docs: venv                  ## docs/reference.md from the code
	$(BIN)/python docs/generate.py

fix: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(VENV)/.installed
local: $(VENV)/.installed-local
venv: $(VENV)/.installed-dev

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "llmctl needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-local: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[local]'
	touch $(VENV)/.installed $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(VENV)/.installed $(VENV)/.installed-local $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

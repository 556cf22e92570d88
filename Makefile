# Everything is set up in .venv, from pyproject.toml within constraints.txt.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	if $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then echo $$p; break; fi; done)
BIN := .venv/bin

.PHONY: demo test lint types format docs clean

demo: .venv/.demo
	$(BIN)/ionbeam demo

test: .venv/.dev lint types
	$(BIN)/python -m pytest -q -n auto --dist worksteal

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.dev
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/.dev
	$(BIN)/python scripts/make_schemas.py docs/schemas.json

clean:
	rm -rf .venv demo-home .mypy_cache .ruff_cache

.venv/.python:
	@if [ -z "$(PYTHON)" ]; then echo "ionbeam needs Python 3.11, 3.12 or 3.13: install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; fi
	$(PYTHON) -m venv .venv
	touch $@

.venv/.demo: .venv/.python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	touch $@

.venv/.dev: .venv/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

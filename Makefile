# `make demo` and `make test` are the two commands. Everything they write stays in this folder: .venv, .cache and out
# (pip's own download cache apart). PYTHON=… picks the interpreter, WORKERS=… the number of test processes.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# the first Python on PATH that really runs, is new enough and can make environments (a pyenv shim may do none of it)
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do "$$p" -c 'import sys, ensurepip, venv; \
  sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && command -v "$$p" && break; done)
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$(( n > 4 ? 4 : n )))
PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check

# Every library here that would leave a cache in the home folder is told to leave it in .cache instead.
export ANYFORM_HOME := $(CURDIR)/.cache/anyform
export HF_HOME := $(CURDIR)/.cache/huggingface
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/.cache/hypothesis
export MPLCONFIGDIR := $(CURDIR)/.cache/matplotlib
export NUMBA_CACHE_DIR := $(CURDIR)/.cache/numba
export TORCHINDUCTOR_CACHE_DIR := $(CURDIR)/.cache/torchinductor
export TRITON_CACHE_DIR := $(CURDIR)/.cache/triton
# pyright: node comes from a wheel, and no look for a newer version over the network
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help demo serve test check docs wheel wheel-test clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

demo: .venv/installed ## install, make one asset from every kind of prompt, and a contact sheet: out/demo.png
	@$(PY) runs/demo.py out

serve: .venv/installed-serve ## install with the server and open its page: http://127.0.0.1:7860
	@$(PY) -m anyform serve --open $(ARGS)

test: check ## install the developer extras, run `make check`, then the whole test suite (fast tests first)
	@mkdir -p .cache
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist worksteal --basetemp .cache/pytest $(ARGS)

check: .venv/installed-dev ## lint, import contract, house rules and type check
	@mkdir -p .cache
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	.venv/bin/lint-imports --no-cache
	$(PY) -m pytest tests/house -q --basetemp .cache/pytest-house
	$(PY) -m pyright --pythonpath $(PY)

docs: .venv/installed-dev ## write the generated pages again: docs/equations.md, docs/cli.md, docs/openapi.json
	$(PY) docs/make_equations.py
	$(PY) docs/make_cli.py
	$(PY) docs/make_openapi.py

wheel: .venv/installed-dev ## build dist/anyform-*.whl
	rm -rf dist
	$(PIP) wheel --quiet --no-deps --wheel-dir dist .

wheel-test: wheel ## install the wheel where there is no compiler, cut the network, make a mesh
	bash .ci/wheel-test

clean: ## delete everything that the other targets made
	rm -rf .venv .cache out dist build .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests runs docs examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(PY):
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer with venv on PATH:" \
	  "apt-get install python3 python3-venv, or name one with PYTHON=…" >&2; exit 3; }
	"$(PYTHON)" -m venv .venv

.venv/installed: pyproject.toml constraints.txt | $(PY)
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/installed-serve: pyproject.toml constraints.txt | $(PY)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[serve,audio]'
	@touch .venv/installed $@

.venv/installed-dev: pyproject.toml constraints.txt | $(PY)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch .venv/installed $@

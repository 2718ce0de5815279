# What people type: `make demo` and `make test`. Both begin with `make install`, which is quick when nothing changed.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first interpreter that is new enough; `make install PYTHON=…` chooses another.
FITS := import sys, venv, ensurepip; raise SystemExit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11 python,$(shell $(name) -c '$(FITS)' 2>/dev/null && echo $(name))))
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --no-input
BUNDLE := dashboards/static/vega-bundle.js
CI_VENV := build/full
PEERS_VENV := build/peers
SMCLARIFY_VENV := build/smclarify
# One more than the cores of a small machine: many tests wait for a process, a browser or a clock.
WORKERS ?= 3
# A file's tests share what they open; the files come in the order of tests/conftest.py, the longest first.
SPREAD := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
AGAIN := -n 0 --last-failed --last-failed-no-failures none
# Compiled modules are kept wherever make runs: without them each service that a test starts compiles everything again.
unexport PYTHONDONTWRITEBYTECODE
test again faults ci: export OMP_NUM_THREADS = 1
test again faults ci: export OPENBLAS_NUM_THREADS = 1

.PHONY: help
help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

.PHONY: install
install: $(VENV)/.installed $(BUNDLE) ## Make .venv with what serving, monitoring and the pages need

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo 'make: Python 3.11, 3.12 or 3.13 with its venv module is needed (on Debian: apt-get install python3-venv)' >&2; exit 1; }
	@echo 'Making $(VENV) with $(PYTHON)'
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.locked: requirements/serve.txt requirements/build.txt | $(VENV)/.made
	@echo 'Installing requirements/serve.txt (about a minute the first time)'
	@$(PIP) install --no-deps --require-hashes -r requirements/serve.txt -r requirements/build.txt
	@touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml hatch_build.py
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@echo 'Compiling the loops over numbers, once'
	@$(BIN)/python -m service.cli.loops
	@touch $@

$(BUNDLE): hatch_build.py $(VENV)/.locked
	@echo 'Making $@'
	@$(BIN)/python -c 'from pathlib import Path; from hatch_build import write_bundle; write_bundle(Path("$@"))'
	@touch $@

$(VENV)/.tested: requirements/test.txt $(VENV)/.installed
	@echo 'Installing requirements/test.txt'
	@$(PIP) install --no-deps --require-hashes -r requirements/test.txt
	@touch $@

.PHONY: demo
demo: install ## Start Plumbline on http://127.0.0.1:8000 with a demonstration model
	@$(BIN)/plumbline demo

.PHONY: check
check: style ## Style, types and import contracts
	@$(BIN)/mypy

.PHONY: style
style: install $(VENV)/.tested
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache

.PHONY: test
test: style ## Style, import contracts, and every test but the long ones
	@$(BIN)/pytest $(SPREAD) -m 'not long'

.PHONY: again
again: style ## What failed in `make test`, once more, one after the other
	@$(BIN)/pytest $(AGAIN) -m 'not long'

.PHONY: faults
faults: TESTED ?= $(BIN)
faults: install $(VENV)/.tested ## The long form of what is killed, frozen, filled and damaged: about ten minutes
	@$(TESTED)/pytest $(SPREAD) -m long tests/faults

.PHONY: full
full: $(CI_VENV)/.installed

$(CI_VENV)/.installed: requirements/full.txt requirements/build.txt pyproject.toml hatch_build.py
	@echo 'Installing requirements/full.txt, every extra included, into an empty environment'
	@rm -rf $(CI_VENV) && $(PYTHON) -m venv $(CI_VENV)
	@$(CI_VENV)/bin/python -m pip --disable-pip-version-check --quiet --no-input install --no-deps --require-hashes -r requirements/full.txt -r requirements/build.txt
	@$(CI_VENV)/bin/python -m pip --disable-pip-version-check --quiet --no-input install --no-deps --no-build-isolation --editable .
	@$(CI_VENV)/bin/python -m pip check
	@touch $@

.PHONY: smclarify
smclarify: $(SMCLARIFY_VENV)/.installed ## The environment of the package that bias metrics are compared with

$(SMCLARIFY_VENV)/.installed: requirements/smclarify.txt
	@echo 'Installing requirements/smclarify.txt: what the bias metrics are compared with'
	@rm -rf $(SMCLARIFY_VENV) && $(PYTHON) -m venv $(SMCLARIFY_VENV)
	@$(SMCLARIFY_VENV)/bin/python -m pip --disable-pip-version-check --quiet --no-input install --no-deps --require-hashes -r requirements/smclarify.txt
	@touch $@

# Processes are killed and clocks waited for beside other work: what failed is done once more, alone, and what fails twice has failed.
once_more = { echo 'Once more, alone: what failed above'; $(CI_VENV)/bin/pytest $(AGAIN) -m long $(1); }

.PHONY: ci
ci: check full smclarify $(BUNDLE) ## Types, the full install in an empty environment, the long suites, one pass of each benchmark
	@$(CI_VENV)/bin/pytest $(SPREAD) -m long --ignore tests/faults || $(call once_more,--ignore tests/faults)
	@$(MAKE) --no-print-directory faults TESTED=$(CI_VENV)/bin WORKERS=2 || $(call once_more,tests/faults)
	@$(MAKE) --no-print-directory bench || echo 'A benchmark fell short of a figure; the tables above say which.'

$(PEERS_VENV)/.installed: requirements/peers.txt requirements/build.txt pyproject.toml hatch_build.py
	@echo 'Installing requirements/peers.txt: what the benchmarks are run beside'
	@rm -rf $(PEERS_VENV) && $(PYTHON) -m venv $(PEERS_VENV)
	@$(PEERS_VENV)/bin/python -m pip --disable-pip-version-check --quiet --no-input install --no-deps --require-hashes -r requirements/peers.txt
	@$(PEERS_VENV)/bin/python -m pip --disable-pip-version-check --quiet --no-input install --no-deps --require-hashes -r requirements/build.txt
	@$(PEERS_VENV)/bin/python -m pip --disable-pip-version-check --quiet --no-input install --no-deps --no-build-isolation --editable .
	@touch $@

BENCHMARKS := $(patsubst benchmarks/%.py,benchmarks.%,$(filter-out benchmarks/__init__.py benchmarks/_%.py,$(wildcard benchmarks/*.py)))

.PHONY: bench
bench: $(PEERS_VENV)/.installed ## One pass of each benchmark, beside its peers; `--full` of each gives the figures that bind
	@short=; for name in $(BENCHMARKS); do echo "== $$name"; timeout 150 $(PEERS_VENV)/bin/python -m $$name || short="$$short $$name"; done; \
	test -z "$$short" || { echo "short of a figure, or of time:$$short" >&2; exit 1; }

.PHONY: lock
lock: ## Resolve the requirements again (needs uv)
	@uv pip compile pyproject.toml --all-extras --group test $(LOCK) --output-file requirements/full.txt
	@uv pip compile pyproject.toml --group test $(LOCK) --constraint requirements/full.txt --output-file requirements/test.txt
	@uv pip compile pyproject.toml $(LOCK) --constraint requirements/full.txt --output-file requirements/serve.txt
	@uv pip compile pyproject.toml --group peers $(LOCK) --output-file requirements/peers.txt
	@uv pip compile requirements/smclarify.in $(LOCK) --output-file requirements/smclarify.txt
	@uv pip compile requirements/build.in $(LOCK) --constraint requirements/full.txt --output-file requirements/build.txt
LOCK := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet --upgrade

.PHONY: docs
docs: install ## Write docs/configuration.md from the settings class
	@$(BIN)/python -m service.cli.configuration > docs/configuration.md

.PHONY: clean
clean: ## Remove what was made: the environment, the bundle, caches
	@rm -rf $(VENV) build dist $(BUNDLE) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache test-results

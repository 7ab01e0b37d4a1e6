# Every target makes the environment it needs. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
export PYTHONPATH :=

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

.venv/.ready: requirements.lock pyproject.toml
	@command -v python3 >/dev/null || { echo "python3 (3.11 or newer) is missing: install it first"; exit 1; }
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; python3 is $$(python3 --version)"; exit 1; }
	@echo "making .venv from requirements.lock"
	@python3 -m venv .venv || { echo "python3 cannot make a virtual environment: install its venv module (Debian: python3-venv)"; exit 1; }
	@.venv/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@.venv/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: env
env: .venv/.ready ## make .venv from the lock file

# Endpunkt. `make help` lists the targets. Everything that a target needs, it sets up itself.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Downloads are kept outside the checkout, so that a second clone needs none.
export ENDPUNKT_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/endpunkt
export UV_CACHE_DIR ?= $(ENDPUNKT_CACHE)/uv
export UV_PYTHON_DOWNLOADS := never
# A machine may switch bytecode off; model servers then start three times slower.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
DISTRIBUTIONS := contracts services/inference-server services/provisioner services/router services/autoscaler \
	services/batch-runner services/metering services/studio cli infra
PROJECTS := $(DISTRIBUTIONS:%=%/pyproject.toml)
SOURCES := $(wildcard contracts/src services/*/src cli/src infra/src)

UV := .tools/uv/bin/uv
BIN := .venv/bin
SYNCED := .venv/.synced
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-header --no-emit-package endpunkt-contracts --no-emit-package endpunkt-inference-server

$(UV): requirements/bootstrap.lock
	@echo "installing uv into .tools/uv"
	$(PYTHON) -c 'import sys; sys.exit("Endpunkt needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": set PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv --clear .tools/uv
	.tools/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
	touch $@

$(SYNCED): requirements/workspace.lock $(PROJECTS) | $(UV)
	@echo "setting up .venv from requirements/workspace.lock"
	[ -x $(BIN)/python ] || $(UV) venv --quiet --python $$(command -v $(PYTHON)) .venv
	$(UV) pip sync --quiet --require-hashes --compile-bytecode requirements/workspace.lock
	$(UV) pip install --quiet --no-deps --no-build-isolation $(DISTRIBUTIONS:%=-e %)
	touch $@

.PHONY: setup
setup: $(SYNCED) ## install everything from the lock files

.PHONY: lock
lock: $(UV) ## renew requirements/*.lock
	$(COMPILE) --upgrade requirements/bootstrap.in -o requirements/bootstrap.lock
	$(COMPILE) --upgrade $(PROJECTS) requirements/workspace.in -o requirements/workspace.lock

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "  make %-14s %s\n", $$1, $$2}'

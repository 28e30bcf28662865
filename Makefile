# Endpunkt. `make help` lists the targets. Everything that a target needs, it sets up itself.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Downloads are kept outside the checkout, so that a second clone needs none.
export ENDPUNKT_CACHE ?= $(or $(XDG_CACHE_HOME),$(if $(HOME),$(HOME)/.cache,$(CURDIR)/var/cache))/endpunkt
export UV_CACHE_DIR ?= $(ENDPUNKT_CACHE)/uv
export UV_PYTHON_DOWNLOADS := never
# A machine may switch bytecode off; model servers then start three times slower.
unexport PYTHONDONTWRITEBYTECODE
# An environment that happens to be active is its owner's.
unexport VIRTUAL_ENV CONDA_PREFIX PYTHONPATH PYTHONHOME

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
	@$(PYTHON) -c 'import sys; sys.exit("Endpunkt needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": set PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv --clear .tools/uv
	@.tools/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
	@touch $@

$(SYNCED): requirements/workspace.lock $(PROJECTS) | $(UV)
	@echo "setting up .venv from requirements/workspace.lock"
	@[ -x $(BIN)/python ] || $(UV) venv --quiet --python $$(command -v $(PYTHON)) .venv
	@$(UV) pip sync --quiet --python $(BIN)/python --require-hashes --compile-bytecode requirements/workspace.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(DISTRIBUTIONS:%=-e %)
	@touch $@

.PHONY: setup
setup: $(SYNCED) kafka-jars ## install everything from the lock files

# Whether they are there is asked each time (0.3 s, no JVM): they lie outside the checkout, under their lock's digest.
.PHONY: kafka-jars
kafka-jars: $(SYNCED)
	@$(BIN)/python -m endpunkt_infra.kafka install

.PHONY: lock
lock: $(UV) ## renew requirements/*.lock
	$(COMPILE) --upgrade requirements/bootstrap.in -o requirements/bootstrap.lock
	$(COMPILE) --upgrade $(PROJECTS) requirements/workspace.in -o requirements/workspace.lock

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# Running it

ENDPUNKT_HOME ?= var/endpunkt
STACK = $(BIN)/python -m endpunkt_infra.stack --home "$(ENDPUNKT_HOME)"

# For what looks at a system that may be running: it never changes what that runs on.
INSTALLED = @[ -x $(BIN)/python ] || { echo "nothing is set up here: run make setup" >&2; exit 1; }

.PHONY: demo
demo: setup ## run the main job as a story, then stop everything
	@$(BIN)/python -m endpunkt_infra.demo --home var/demo

# A cluster of your own needs no jars.
.PHONY: up
up: $(if $(strip $(KAFKA_BOOTSTRAP_SERVERS)),$(SYNCED),setup) ## start Kafka and every service, and keep them running
	@$(STACK) up

.PHONY: down
down: ## stop exactly what `make up` started; state survives
	$(INSTALLED)
	@$(STACK) down

.PHONY: status
status: ## tell whether Endpunkt runs
	$(INSTALLED)
	@$(STACK) status || true

.PHONY: env
env: ## print what a shell needs, to be given to eval
	$(INSTALLED)
	@$(STACK) env

.PHONY: clean-state
clean-state: ## forget topics, keys, artifacts and job outputs
	$(INSTALLED)
	@$(STACK) clean

# Checking it

.PHONY: test
test: setup ## run every test against real brokers that the tests start
	$(BIN)/pytest tests/unit tests/contracts tests/simulation tests/integration

.PHONY: test-fast
test-fast: $(SYNCED) ## run the tests that need no broker
	$(BIN)/pytest tests/unit tests/contracts tests/simulation

.PHONY: lint
lint: $(SYNCED) ## style, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports

.PHONY: format
format: $(SYNCED) ## bring the code into style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: schemas
schemas: $(SYNCED) ## write contracts/schemas and contracts/asyncapi.yaml from the messages
	$(BIN)/python -m contracts.schema

# Measuring it

.PHONY: bench-up
bench-up: setup ## measure start-up, idle memory and idle CPU
	@$(BIN)/python bench/up.py

.PHONY: bench-deploy
bench-deploy: setup ## measure from a command to the first answer, with a warm environment
	@$(BIN)/python bench/deploy.py

.PHONY: bench-control
bench-control: $(SYNCED) ## measure from a published command to the enforced split
	@$(BIN)/python bench/control.py

.PHONY: bench-router
bench-router: setup ## measure the router beside Envoy, and nginx where it is installed
	@$(BIN)/python bench/router.py

.PHONY: bench-runtime
bench-runtime: $(SYNCED) ## measure the inference server beside Azure's and KServe's
	@$(BIN)/python bench/runtime.py

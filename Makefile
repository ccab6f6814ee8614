# Every target describes itself: make help.
PYTHON ?= python3
VENV := .venv/bin
.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## Make or update the development environment (.venv); the other targets do this by themselves
	@$(PYTHON) deploy/local/bootstrap.py

.PHONY: run
run: setup ## Set everything up and run the whole system in the foreground (Ctrl-C stops it)
	@exec $(VENV)/python -m herald_local.run

.PHONY: test
test: setup ## Run all tests against a RabbitMQ node and a PostgreSQL cluster of their own (ARGS go to pytest)
	@$(VENV)/python -m herald_local.testing $(ARGS)

.PHONY: fmt
fmt: setup ## Format the code and mend what can be mended by itself
	@$(VENV)/ruff format .
	@$(VENV)/ruff check --fix .

.PHONY: lint
lint: setup ## Check format and style
	@$(VENV)/ruff format --check .
	@$(VENV)/ruff check .

.PHONY: types
types: setup ## Check types, tests included
	@for member in shared_contracts deploy/local notification_service; do \
	  (cd $$member && $(CURDIR)/$(VENV)/mypy --config-file $(CURDIR)/pyproject.toml src tests) || exit 1; done
	@cd tests_e2e && $(CURDIR)/$(VENV)/mypy --config-file $(CURDIR)/pyproject.toml .
	@cd auth_service && $(CURDIR)/$(VENV)/mypy src tests

.PHONY: lock
lock: setup ## Resolve all dependencies again and pin them with hashes
	@$(VENV)/python deploy/local/lock.py

.PHONY: check
check: lint types test ## Everything CI runs

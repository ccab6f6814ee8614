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

# Each member is checked from its own folder; side by side on every processor.
TYPED := shared_contracts deploy/local notification_service auth_service tests_e2e docs benchmarks
.PHONY: types $(TYPED:%=types-%)
types: setup ## Check types, tests included
	@$(MAKE) --no-print-directory --jobs=$$(nproc 2>/dev/null || echo 2) $(TYPED:%=types-%)
types-shared_contracts types-deploy/local types-notification_service: types-%:
	@cd $* && $(CURDIR)/$(VENV)/mypy --config-file $(CURDIR)/pyproject.toml src tests
types-auth_service:
	@cd auth_service && $(CURDIR)/$(VENV)/mypy src tests
types-tests_e2e:
	@cd tests_e2e && $(CURDIR)/$(VENV)/mypy --config-file $(CURDIR)/pyproject.toml .
types-docs:
	@cd docs && $(CURDIR)/$(VENV)/mypy --config-file $(CURDIR)/pyproject.toml generate.py tables.py
types-benchmarks:
	@$(VENV)/mypy benchmarks deploy/local/coverage_check.py

.PHONY: contracts
contracts: setup ## Check which module imports which (import-linter)
	@$(VENV)/lint-imports --no-logo

.PHONY: docs
docs: setup ## Write the parts of the documentation that are made from the code
	@$(VENV)/python docs/generate.py

.PHONY: docs-check
docs-check: setup ## Check that the documentation says what the code says, and that its links lead somewhere
	@$(VENV)/python docs/generate.py --check

.PHONY: e2e
e2e: setup ## Run the end-to-end tests alone (ARGS go to pytest)
	@$(VENV)/python -m herald_local.testing --only e2e $(ARGS)

.PHONY: ledger
ledger: setup ## Count what faults cost, in full: 1,000 sockets, 20 rounds of each fault (an hour; ARGS="-k gateway-killed" for one)
	@HERALD_THOROUGH=1 $(VENV)/python -m herald_local.testing --only e2e-postgresql -m ledger -s --randomly-dont-reorganize $(ARGS)

.PHONY: soak
soak: setup ## Two hours of messages with a fault in every hundredth step: nothing grows (HERALD_SOAK_SECONDS=600 for less)
	@HERALD_THOROUGH=1 $(VENV)/python -m herald_local.testing --only e2e-postgresql -k test_soak -s $(ARGS)

.PHONY: thorough
thorough: setup ## Kill workers on every channel thirty times (several minutes; not part of check)
	@HERALD_THOROUGH=1 $(VENV)/python -m pytest notification_service/tests/channels/test_kills.py $(ARGS)

.PHONY: coverage
coverage: setup ## Run all tests measuring coverage; fail below the floor, or when a pure module is not covered whole
	@$(VENV)/python deploy/local/coverage_check.py

.PHONY: bench
bench: setup ## Measure throughput, latency and memory (ARGS choose what)
	@$(VENV)/python -m benchmarks $(ARGS)

.PHONY: lock
lock: setup ## Resolve all dependencies again and pin them with hashes
	@$(VENV)/python deploy/local/lock.py

.PHONY: hooks
hooks: setup ## Run the checks below at every commit (pre-commit)
	@$(VENV)/pre-commit install --hook-type pre-commit --hook-type commit-msg

.PHONY: check
check: lint types contracts docs-check test ## Everything CI runs

.PHONY: clean
clean: ## Remove what was made here: environment, run folder, caches, build output
	@rm -rf .venv .run .coverage .coverage.* htmlcov .mypy_cache */.mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} + -o -name '*.egg-info' -type d -prune -exec rm -rf {} +
	@rm -rf shared_contracts/dist auth_service/dist notification_service/dist deploy/local/dist

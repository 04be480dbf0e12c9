# What people and CI call. Needs Python 3.11 or newer, make and git; everything else is set up from here.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# Options for the commands, for example: make up UP_ARGS="--mirrors 3"; make test TESTS=tests/unit
UP_ARGS ?=
TESTS ?= tests
TEST_ARGS ?=
# Most tests wait, for processes to start or for leases to end: TEST_WORKERS=2 runs them side by side.
TEST_WORKERS ?= 0
BENCH_ARGS ?=

# The locked environment first; programs that had to be fetched come after those of the system.
up test bench: export PATH := $(CURDIR)/.venv/bin:$(PATH):$(CURDIR)/.tools/bin
environment = python=$$(tools/find-python) && "$$python" tools/environment.py

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

.PHONY: setup
setup: ## the locked environment in .venv, and HAProxy and ssh where the system has none
	@$(environment) dev
	@.venv/bin/python tools/programs.py --optional

.PHONY: setup-test
setup-test: setup
	@$(environment) hg6
	@.venv/bin/python tools/programs.py
	@.venv/bin/python tools/go_programs.py
	@.venv/bin/python tools/kafka_broker.py
	@.venv/bin/python tools/old_clients.py

.PHONY: up
up: setup ## run a fleet on this machine; options in UP_ARGS
	@exec .venv/bin/hgfleet up $(UP_ARGS)

.PHONY: test
test: setup-test lint ## everything that CI runs; a part with TESTS=tests/unit, options in TEST_ARGS
	@.venv/bin/python -X faulthandler -m pytest -n $(TEST_WORKERS) $(TEST_ARGS) $(TESTS)

.PHONY: lint
lint: setup ## style, format, types, layers
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo

.PHONY: format
format: setup ## rewrite the sources in the one format
	@.venv/bin/ruff check --fix
	@.venv/bin/ruff format

.PHONY: bench
bench: setup-test ## measurements, with plain Mercurial beside it; options in BENCH_ARGS
	@.venv/bin/python -m bench $(BENCH_ARGS)

.PHONY: wheel
wheel: setup ## the wheel in dist/, installed once on trial from the locks alone
	@.venv/bin/python tools/wheel.py

.PHONY: lock
lock: ## newest versions into requirements/*.lock
	@$(environment) lock

.PHONY: clean
clean: ## remove what setup made; a fleet's data stays
	rm -rf .venv .boot .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist

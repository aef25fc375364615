# The commands of paymesh. Each does the set-up that it needs; see CONTRIBUTING.md.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Options for the program behind a target: make demo ARGS='--limit 500'
ARGS ?=
BIN := .venv/bin
export PYTHON

.PHONY: help setup demo chaos up stop test test-long mutations lint bench proto

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

setup: ## Virtual environment, stubs and private servers; starts nothing
	@python=$$(sh deploy/setup/python.sh) && exec "$$python" -m common.embedded.install

demo: setup ## Replay a shop's purchases through the whole platform
	@exec $(BIN)/paymesh demo $(ARGS)

chaos: setup ## The demo with everything going wrong, under several seeds
	@exec $(BIN)/paymesh chaos $(ARGS)

up: setup ## Run all services until interrupted
	@exec $(BIN)/paymesh up $(ARGS)

stop: ## End whatever a run of this checkout left behind
	@python=$$(sh deploy/setup/python.sh) && exec "$$python" -m common.embedded.leftovers

test: setup ## All tests but the long ones
	@exec $(BIN)/python -m pytest -m 'not long' $(ARGS)

test-long: setup ## The long tests
	@exec $(BIN)/python -m pytest -m long $(ARGS)

mutations: setup ## Take each safety away in a copy, and see tests fail
	@exec $(BIN)/python -m tests.mutations $(ARGS)

lint: setup ## Style, types, import rules, contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint build/contracts.binpb --path paymesh
	$(BIN)/buf format -d --exit-code proto

bench: setup ## Measure against the stated baselines
	@exec $(BIN)/python -m tests.bench $(ARGS)

proto: setup ## Generate the stubs from the contracts
	@exec $(BIN)/python proto/build_hook.py

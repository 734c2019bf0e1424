# What people run here; `make help` lists it. The first use of any target makes .venv.
#   PYTHON=python3.12   which Python .venv is made with

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo up traffic damage test check check-stubs protos lock docs bench dist models clean

VENV := .venv
TRAIN := .venv-train
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BUF := 1.75.0

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(READY) ## make .venv with every pinned package; done once

$(READY): constraints.txt pyproject.toml
	@python="$$(PYTHON='$(PYTHON)' tools/find-python)" && \
	  echo "preparing $(VENV) with $$("$$python" --version): about 500 MB to download, a few minutes" && \
	  { $(BIN)/python -c '' 2>/dev/null || "$$python" -m venv --clear $(VENV); }
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## start everything on this machine, ask questions, show what was saved, stop
	@$(BIN)/python -m services.local demo $(ARGS)

up: $(READY) ## start everything on this machine and keep it running until Ctrl-C; ARGS="--any-port"
	@$(BIN)/python -m services.local up $(ARGS)

traffic: $(READY) ## ask what `make up` runs thousands of questions; ARGS="--route support-expert"
	@$(BIN)/python -m services.local traffic $(ARGS)

damage: $(READY) ## copy the small model's weights and make them worse, to see what notices
	@$(BIN)/python -m engines.local.damage $(ARGS)

test: $(READY) ## run every test; ARGS="-m 'not e2e'" leaves out those with the real Triton
	@tools/ensure-redis
	@$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

check: $(READY) ## style, types, imports, protos: all that can be checked without running
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.protos check
	@tools/buf $(BUF)

check-stubs: $(READY) ## import the stubs with the oldest and the newest gRPC and protobuf
	@tools/check-stubs $(BIN)/python

protos: $(READY) ## generate the stubs from protos/
	$(BIN)/python -m tools.protos generate

lock: $(READY) ## pin every package anew in constraints.txt
	@tools/lock $(BIN)/python

docs: $(READY) ## write the tables in docs/operating.md, docs/ledger.md and docs/scaling.md
	$(BIN)/python -m tools.settings
	$(BIN)/python -m tools.metrics
	$(BIN)/python -m tools.ledger_fields
	$(BIN)/python -m tools.scaling_keys

bench: $(READY) ## run the benchmarks; ONLY=name runs one
	@$(BIN)/python -m bench $(ONLY)

dist: $(READY) ## build the package that callers install into dist/
	@$(BIN)/python -m tools.dist

models: $(READY) $(TRAIN)/.ready ## train, export and measure the local models; DATA=folder TIER=small
	$(TRAIN)/bin/python -m engines.local.train $(OF_MODELS)
	$(TRAIN)/bin/python -m engines.local.export $(if $(TIER),--tier $(TIER))
	$(BIN)/python -m engines.local.evaluate $(OF_MODELS)

OF_MODELS = $(if $(DATA),--data $(DATA)) $(if $(TIER),--tier $(TIER))

$(TRAIN)/.ready: engines/requirements-train.txt
	@python="$$(PYTHON='$(PYTHON)' tools/find-python)" && \
	  { $(TRAIN)/bin/python -c '' 2>/dev/null || "$$python" -m venv --clear $(TRAIN); }
	$(TRAIN)/bin/python -m pip install --disable-pip-version-check -r engines/requirements-train.txt
	@touch $@

clean: ## remove what was made here, .venv included
	rm -rf $(VENV) $(TRAIN) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
	  .import_linter_cache .grimp_cache node_modules
	find . -name __pycache__ -prune -exec rm -rf {} +

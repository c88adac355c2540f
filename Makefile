# What a person types here. Every target sets up what it needs, and doing it again is quick.
#
#   make demo     set up heed and run the quickstart: a policy, a reward model, PPO and a report
#   make test     all checks: style, types, import contracts, default tests
#   make slow     the tests that take minutes
#
# PYTHON=python3.12 takes another Python (3.11 or newer). HEED_TORCH_INDEX=URL takes torch from
# another package index, such as the one of CPU-only builds that pytorch.org names.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
SLOW_SECONDS ?= 2700
# Models of tests are small: a process for each of two cores, and one thread in each process.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test lint check-types check-imports unit slow flags docs bench clean

help:
	@sed -n '3,10s/^# \{0,1\}//p' Makefile

setup: $(VENV)/.core

setup-dev: $(VENV)/.dev

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is older than 3.11; give a newer one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Without a GPU torch comes first and alone, so that one build of it is taken and kept whatever the
# other packages ask for.
$(VENV)/.torch: | $(BIN)/python
	@if $(BIN)/python -c 'import torch' 2>/dev/null; then \
		echo "torch is there already"; \
	elif [ -n "$(HEED_TORCH_INDEX)" ]; then \
		$(BIN)/python -m pip install --quiet --index-url "$(HEED_TORCH_INDEX)" $(TORCH); \
	elif ! command -v nvidia-smi >/dev/null 2>&1; then \
		echo "installing $(TORCH)"; $(BIN)/python -m pip install --quiet $(TORCH); \
	fi
	@touch $@

$(VENV)/.core: pyproject.toml $(VENV)/.torch
	@echo "installing heed"
	@$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.torch
	@echo "installing heed with the tools of its developers"
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.core

demo: setup
	$(BIN)/heed quickstart

test: lint check-types check-imports unit

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-types: setup-dev
	$(BIN)/mypy

check-imports: setup-dev
	$(BIN)/lint-imports

unit: setup-dev
	$(PYTEST)

# The time limit ends the run between two tests, so that the summary is still printed.
slow: setup-dev
	$(PYTEST) -m 'slow and not gpu' --durations=10 --timeout=1800 \
		--session-timeout=$(SLOW_SECONDS)

# Accept a changed list of command-line flags: read the difference before committing it.
flags: setup-dev
	HEED_WRITE_GOLDEN=1 $(BIN)/python -m pytest tests/golden/test_flags.py

docs: setup-dev
	$(BIN)/python scripts/reference.py

bench: setup-dev
	benchmarks/setup_env.sh
	$(BIN)/python -m benchmarks.run

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

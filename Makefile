# `make demo` and `make test` need Python 3.11 or newer, make and a package index, nothing else.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name) 2>/dev/null)))
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
OUT ?= sau-scan-demo
GIGABYTES ?= 5

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check format generated wheel-test zoo bench bench-static clean

help: ## Show what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed. Name one: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing sau-scan into $(VENV) (the first time takes a few minutes)"
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.runtime ## Find and repair the embedded backdoored checkpoint
	$(BIN)/sau-scan demo --out $(OUT)

# One process a core, one thread a process.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

test: $(VENV)/.dev ## Run the tests (10 minutes on two cores)
	$(TESTS) --dist loadfile -m 'not slow'

test-all: $(VENV)/.dev ## Run all tests, the slow ones too (three hours on two cores)
	$(TESTS) --dist worksteal

check: $(VENV)/.dev ## Lint, format, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generated: $(VENV)/.dev ## Write the generated files: completions, JSON Schema, golden reports
	$(BIN)/python tools/generate.py

wheel-test: $(VENV)/.dev ## Build the wheel, install it elsewhere and scan with it
	$(BIN)/python -m pytest tests/packaging -m slow

zoo: $(VENV)/.dev ## Train the tiny Stable Diffusion and build all attacked models (hours)
	$(BIN)/python -m zoo train
	$(BIN)/python -m zoo build all

bench: $(VENV)/.dev ## Scan and repair every zoo model; print the tables
	$(BIN)/python -m benchmarks

# modelscan needs other versions than we do, so it has an environment of its own.
$(VENV)/modelscan/.installed: benchmarks/modelscan.txt | $(BIN)/python
	$(BIN)/python -m venv $(VENV)/modelscan
	$(VENV)/modelscan/bin/python -m pip --disable-pip-version-check --quiet install -r benchmarks/modelscan.txt
	@touch $@

bench-static: $(VENV)/.dev $(VENV)/modelscan/.installed ## Check files beside picklescan and modelscan, and against sha256sum for speed
	$(BIN)/python -m benchmarks.static_side_by_side --modelscan $(VENV)/modelscan/bin/python
	$(BIN)/python -m benchmarks.static_speed --gigabytes $(GIGABYTES)

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

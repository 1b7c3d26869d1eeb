# The two commands of the README, and what developers run. Everything installs into .venv from constraints.txt.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
FEDWARD_REAL_DATA ?= ../shared/data
export FEDWARD_REAL_DATA
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: bench test check format perf verify audit mutation-privacy clean

bench: $(VENV)/.install-run
	$(BIN)/bench run --suite quickstart

test: $(VENV)/.install-test
	$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest -n 2

check: $(VENV)/.install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/.install-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

perf: $(VENV)/.install-test
	$(BIN)/python benchmarks/perf/run.py

verify: $(VENV)/.install-test
	$(BIN)/python benchmarks/verify/run.py

audit: $(VENV)/.install-test
	$(BIN)/python benchmarks/audit/run.py

mutation-privacy: $(VENV)/.install-test
	$(BIN)/python benchmarks/mutation/run.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.install-run: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[trees]"
	@touch $@

$(VENV)/.install-test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[trees,test]"
	@touch $@ $(VENV)/.install-run

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

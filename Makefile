# Two commands do everything: `make table1` (set-up and the main job) and `make test` (set-up and all tests).
# Both need nothing but Python 3.11 or newer, git and make.

PYTHON ?= python3
VENV ?= .venv
CORES ?= all
# A file of tests is one worker's, so that what a file shares is made once; the longest come first (tests/conftest.py).
PARALLEL ?= -n 2 --dist loadfile --no-loadscope-reorder
BIN := $(VENV)/bin
SET_UP := $(VENV)/.set-up

.PHONY: table1 all report unlock reference test test-fast lint schema smoke mlflow mlflow-rebuild clean help

help:            ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

$(SET_UP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("fmbench needs Python 3.11 or newer; set PYTHON=python3.12, say") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

table1: $(SET_UP)     ## the main job: results/table1.csv on the embedded data
	$(BIN)/snakemake --cores $(CORES) results/table1.csv

all: $(SET_UP)        ## Table 1 and every figure
	$(BIN)/snakemake --cores $(CORES)

report: all      ## everything in one HTML file: results/report.html
	$(BIN)/snakemake --report results/report.html

unlock: $(SET_UP)     ## after a kill: then give the same command again, and it goes on where it was
	$(BIN)/snakemake --unlock

smoke: $(SET_UP)      ## the same DAG with tiny budgets, into results/smoke
	$(BIN)/snakemake --cores $(CORES) --configfile configs/smoke.yaml

test: $(SET_UP)       ## all tests
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: $(SET_UP)  ## the tests that do not run snakemake
	$(BIN)/python -m pytest $(PARALLEL) -m 'not workflow'

lint: $(SET_UP)       ## lint, format, types, and snakemake's own lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakemake --lint

schema: $(SET_UP)     ## write the config's JSON schema from the config models
	$(BIN)/fmbench schema > workflow/schemas/config.schema.json

mlflow: $(SET_UP)     ## browse the runs at http://localhost:5000
	MLFLOW_DISABLE_TELEMETRY=true $(BIN)/mlflow ui --backend-store-uri sqlite:///results/mlflow/mlflow.db --port 5000

mlflow-rebuild: $(SET_UP)  ## make that store anew from the results' parquet and JSON
	$(BIN)/fmbench mlflow-rebuild --results results

reference: all        ## keep the default run under results/reference/default and show it in the README
	$(BIN)/python tools/reference.py results default

clean:           ## remove results of runs (not results/reference) and caches
	rm -rf .snakemake .pytest_cache .mypy_cache .ruff_cache
	find results -mindepth 1 -maxdepth 1 ! -name reference -exec rm -rf {} +

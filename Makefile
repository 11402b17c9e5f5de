# `make table1` runs the main job and `make test` runs all tests. Both set up the virtual environment first.
# They need only Python 3.11 or newer, git and make.

PYTHON ?= python3
VENV ?= .venv
CORES ?= all
# One worker runs all tests of a file, so that shared fixtures are made once. The longest files come first (tests/conftest.py).
PARALLEL ?= -n 2 --dist loadfile --no-loadscope-reorder
BIN := $(VENV)/bin
SET_UP := $(VENV)/.set-up
TOOLS := $(VENV)/.test
DOCS := $(VENV)/.docs
# `make LOCKED=yes table1` sets the environment up with the exact versions of requirements.lock.
PIP := $(BIN)/python -m pip install --quiet $(if $(LOCKED),--constraint requirements.lock)
# The last line of a run: how many numbers agree with the reference. make says it itself, because the hook of the Snakefile says nothing if
# nothing was to be done.
SNAKEMAKE := FMBENCH_LAST_LINE=off $(BIN)/snakemake --cores $(CORES)
REPRODUCE := $(BIN)/fmbench reproduce --results results --out results/reproduction.csv

.PHONY: table1 table2 all report unlock reference test test-fast lint schema lock docs smoke mlflow mlflow-rebuild clean help

help:                 ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

$(SET_UP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("fmbench needs Python 3.11 or newer; try PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(PIP) --editable .
	touch $@

$(TOOLS): $(SET_UP)
	$(PIP) --editable '.[test]'
	touch $@

table1: $(SET_UP)     ## the main job: results/table1.csv, on data that need no download
	$(SNAKEMAKE) results/table1.csv
	@$(REPRODUCE)

all: $(SET_UP)        ## all tables, claims and figures
	$(SNAKEMAKE)
	@$(REPRODUCE)

table2: $(SET_UP)     ## super-resolution of digits: Table 2 and Fig. 14 and 15, in results/superres_digits
	$(BIN)/snakemake --cores $(CORES) --configfile configs/superres_digits.yaml -- \
	    $(addprefix results/superres_digits/,table2.csv claims.csv figures/fig14.png figures/fig15.png)

report: all           ## everything in one HTML file: results/report.html
	$(BIN)/snakemake --report results/report.html

unlock: $(SET_UP)     ## after a kill: unlock the folder, so that the same command can continue
	$(BIN)/snakemake --unlock

smoke: $(SET_UP)      ## the whole workflow with tiny settings, into results/smoke
	$(BIN)/snakemake --cores $(CORES) --configfile configs/smoke.yaml

test: $(TOOLS)        ## all tests
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: $(TOOLS)   ## the tests that do not run snakemake
	$(BIN)/python -m pytest $(PARALLEL) -m 'not workflow'

lint: $(TOOLS)        ## check lint, format and types of the code and the rules, as .pre-commit-config.yaml does
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow examples
	$(BIN)/snakemake --lint

schema: $(SET_UP)     ## write the JSON schema of the config and config/README.md from the models in fmbench/config
	$(BIN)/fmbench schema > workflow/schemas/config.schema.json
	$(BIN)/fmbench schema --markdown > config/README.md

lock: $(SET_UP)       ## write requirements.lock: the exact versions that are installed here
	$(BIN)/python tools/lock.py

mlflow: $(SET_UP)     ## browse the runs at http://localhost:5000
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui --backend-store-uri sqlite:///results/mlflow/mlflow.db --port 5000

mlflow-rebuild: $(SET_UP)  ## make the MLflow store again from the parquet and JSON files of the results
	$(BIN)/fmbench mlflow-rebuild --results results

$(DOCS): $(SET_UP)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

docs: $(DOCS)         ## the documentation site: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

reference: $(SET_UP)  ## the default benchmark with eight seeds, kept in results/reference/default and shown in the README
	$(BIN)/snakemake --cores $(CORES) --configfile configs/reference.yaml
	$(BIN)/python tools/reference.py results/eight_seeds default

clean:                ## remove the results of runs and the caches, but not results/reference
	rm -rf site .snakemake .pytest_cache .mypy_cache .ruff_cache
	find results -mindepth 1 -maxdepth 1 ! -name reference -exec rm -rf {} +

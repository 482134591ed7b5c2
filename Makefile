# make quickstart       synthetic logs to a served prediction
# make line             the same line on your own logs (see README.md)
# make env              the environment that all others make first, .venv
#
# make check            lint, types and test
# make lint             style, and who may import whom
# make format           mends style
# make types            types
# make test             the tests, some twenty minutes
# make test-slow        those that take minutes each
# make test-real        those on real logs: SITN_REAL_DATA=FOLDER
# make test-engines     those on Prism, Flink and Google's clients, which it brings
# make drills           faults from data set to servable, an hour or more
#
# make bench-pipelines  throughput and memory from logs to data set
# make bench-training   speed beside other packages, on real logs
# make bench-agreement  the same numbers as other packages
# make bench-steps      a training step's cost by the size of its tables
# make bench-serving    latency and throughput of a servable
#
# make lock             requirements.lock anew; UPGRADE=--upgrade takes the newest
# make audit            known vulnerabilities of what is locked
# make clean            removes the quickstart and every environment
# make help             this list

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN := $(BIN)/python -m
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# The tested set of packages; empty for the newest that setup.py allows.
LOCK := requirements.lock
# What makes and audits it, in an environment of its own.
SUPPLY := .supply

export TF_CPP_MIN_LOG_LEVEL ?= 3
export TF_ENABLE_ONEDNN_OPTS ?= 1

# What `make line` reads and writes.
OUT ?= runs/line
SOURCE_LOG ?=
TARGET_LOG ?=
SOURCE_ITEMS ?=
TARGET_ITEMS ?=
BUILD ?=
TRAIN ?=
SITN ?=
DATA := $(OUT)/data
ITEMS = $(if $(SOURCE_ITEMS),--source_items=$(SOURCE_ITEMS)) \
        $(if $(TARGET_ITEMS),--target_items=$(TARGET_ITEMS))
STAGE2 = $(RUN) sitn_tf.train --stage=2 --data_dir=$(DATA) $(TRAIN)
COMPARED = $(patsubst %,--run_dir=$(OUT)/%/stage2,sitn from_scratch no_source mean_pool)

.PHONY: help env quickstart line drills test test-slow test-real test-engines bench-pipelines bench-serving bench-steps bench-training bench-agreement lint format types check lock audit clean

help:
	@sed -n '/^$$/q; s/^# make /make /p; s/^#$$//p' $(firstword $(MAKEFILE_LIST))

env: $(STAMP)

# What is locked is of one version of Python.
HAS_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
    { echo "error: Python 3.11 is needed, and PYTHON=$(PYTHON) is not: give PYTHON=/path/to/python3.11" \
    >&2; exit 2; }

$(STAMP): setup.py $(LOCK)
	@$(HAS_PYTHON)
	$(PYTHON) -m venv $(VENV)
	@echo "installing some 3 GB of packages into $(VENV), which takes minutes"
	$(if $(LOCK),$(INSTALL) --require-hashes --requirement $(LOCK))
	$(INSTALL) $(if $(LOCK),--no-deps --no-build-isolation --editable .,--editable '.[dev]')
	touch $(STAMP)

# Keeps what is locked and still fits setup.py; UPGRADE=--upgrade takes the newest instead.
lock: $(SUPPLY)/.installed
	$(SUPPLY)/bin/uv pip compile --quiet --extra=dev --generate-hashes $(UPGRADE) \
	    --python-version=3.11 --python-platform=x86_64-manylinux_2_31 \
	    --custom-compile-command='make lock' --output-file=requirements.lock setup.py

# Known vulnerabilities of what is locked. Fails too where nobody says: a mirror of the package index
# has no vulnerabilities to tell.
AUDIT ?=
audit: $(SUPPLY)/.installed
	@$(SUPPLY)/bin/pip-audit --strict --require-hashes --disable-pip --requirement=requirements.lock \
	    $(AUDIT) || { echo "error: what has vulnerabilities is listed above; 'not found on PyPI' says" \
	    "that none could be asked for: run this where pypi.org itself answers, or ask osv.dev by" \
	    "make audit AUDIT=--vulnerability-service=osv" >&2; exit 1; }

$(SUPPLY)/.installed:
	@$(HAS_PYTHON)
	$(PYTHON) -m venv $(SUPPLY)
	$(SUPPLY)/bin/python -m pip install --quiet --disable-pip-version-check \
	    'uv>=0.9,<1' 'pip-audit>=2.9,<3'
	touch $@

quickstart: $(STAMP)
	rm -rf quickstart
	$(RUN) pipelines.synthetic --output=quickstart/logs --users=$(USERS)
	$(MAKE) --no-print-directory line OUT=quickstart \
	    SOURCE_LOG=quickstart/logs/source.jsonl.gz \
	    TARGET_LOG=quickstart/logs/target.jsonl.gz \
	    SOURCE_ITEMS=quickstart/logs/source_items.jsonl.gz \
	    TARGET_ITEMS=quickstart/logs/target_items.jsonl.gz \
	    BUILD='--label_field=click --request_field=request_id --score_field=score'
	@echo "to run the commands yourself: source $(VENV)/bin/activate"

USERS ?= 4000

INPUTS = $(SOURCE_LOG) $(TARGET_LOG) $(SOURCE_ITEMS) $(TARGET_ITEMS) $(BUILD)

line: | $(STAMP)
	@mkdir -p $(OUT)
	@test ! -f $(DATA)/manifest.json || echo "$(INPUTS)" | cmp -s - $(OUT)/inputs || \
	    { echo "error: OUT=$(OUT) holds a line on other inputs: name another OUT" >&2; exit 2; }
	test -f $(DATA)/manifest.json || { echo "$(INPUTS)" > $(OUT)/inputs && \
	    $(RUN) pipelines.build_dataset --source_log=$(SOURCE_LOG) \
	    --target_log=$(TARGET_LOG) $(ITEMS) --output=$(DATA) $(BUILD); }
	$(RUN) sitn_tf.train --stage=1 --data_dir=$(DATA) --workdir=$(OUT)/sitn $(TRAIN) $(SITN)
	$(STAGE2) --workdir=$(OUT)/sitn $(SITN)
	$(STAGE2) --workdir=$(OUT)/from_scratch --init=none $(SITN)
	$(STAGE2) --workdir=$(OUT)/no_source --init=none --set model.use_source=false $(SITN)
	$(STAGE2) --workdir=$(OUT)/mean_pool --init=none --set model.name=mean_pool \
	    --set mlp.products=false
	$(RUN) sitn_tf.evaluate --keep_predictions $(COMPARED)
	$(RUN) export.export_model --run_dir=$(OUT)/sitn/stage2 --output=$(OUT)/servable
	$(RUN) export.verify --servable=$(OUT)/servable
	$(RUN) sitn_tf.report --brief --output=$(OUT)/report $(COMPARED)

# Two processes, a file of tests in one of them: most tests keep one core busy. Files come in the
# order of tests/conftest.py, the longest first.
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# SITN_REAL_DATA names a folder of real logs.
test-real: $(STAMP)
	$(BIN)/python -m pytest -m real

# Faults, load and hostile input from data set to servable: an hour or more.
drills: $(STAMP)
	$(RUN) tests.drills

# Brings what is missing of Prism, Flink and apache-beam[gcp] into .engines (1.5 GB). A job server
# of Beam's for Flink that is here already, a jar or a folder of jars: FLINK_JOB_SERVER=PATH
test-engines: $(STAMP)
	$(RUN) tests.pipelines.engines.programs .engines
	SITN_ENGINES=$(CURDIR)/.engines .engines/environment/bin/python -m pytest \
	    -m 'engines or not engines' -rs tests/pipelines/engines tests/pipelines/job/test_dataflow.py

bench-pipelines: $(STAMP)
	$(INSTALL) --editable '.[benchmarks]'
	$(RUN) tests.benchmarks.pipelines same
	$(RUN) tests.benchmarks.pipelines throughput
	$(RUN) tests.benchmarks.pipelines cores --lines=2000000
	$(RUN) tests.benchmarks.pipelines memory
	$(RUN) tests.benchmarks.pipelines_flink --engines=.engines

bench-serving: $(STAMP)
	$(RUN) tests.benchmarks.serving

bench-steps: $(STAMP)
	$(RUN) tests.benchmarks.step_cost
	$(RUN) tests.benchmarks.step_cost --replicas=2
	$(RUN) tests.benchmarks.step_cost --optimizer=adagrad
	$(RUN) tests.benchmarks.step_cost --optimizer=adagrad --replicas=2
	$(RUN) tests.benchmarks.step_cost --optimizer=ftrl
	$(RUN) tests.benchmarks.step_cost --optimizer=ftrl --replicas=2

# Needs SITN_REAL_DATA; makes the competitors' environments in .competitors (8.5 GB).
bench-training: $(STAMP)
	$(RUN) tests.benchmarks.training --environments=.competitors --own

# Makes the same environments; needs no data.
bench-agreement: $(STAMP)
	$(RUN) tests.benchmarks.agreement --environments=.competitors

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf quickstart $(VENV) $(SUPPLY) .engines .competitors

# The commands of the README. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := runs/lits/demo
TRAIN := --config_file bundles/lits/train.json

.PHONY: help install demo test test-slow lint format bench mlflow clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

# The stamp is as new as the last installation, so a changed setup.cfg or constraints.txt refreshes it.
$(VENV)/installed: setup.cfg constraints.txt pyproject.toml
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/installed  ## create .venv and install everything that the project needs

demo: install  ## phantom, training, evaluation and segmentation in under 5 minutes
	@bash .ci/demo

test: install  ## the whole test suite
	$(RUN) -m pytest -m 'not slow'

test-slow: install  ## the studies of minutes that `make test` leaves out
	$(RUN) -m pytest -m slow

lint: install  ## ruff: formatting and checks
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

format: install  ## let ruff format and mend what it can
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

bench: install  ## speed and memory of reading, training and preparing, side by side
	$(RUN) -m pipelines.bench

mlflow: install  ## open the runs in MLflow's browser interface
	$(VENV)/bin/mlflow ui --backend-store-uri sqlite:///mlruns.db

clean:  ## remove .venv (data/ and runs/ stay)
	rm -rf $(VENV)

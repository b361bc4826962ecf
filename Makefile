# The commands of the README. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: help install demo test test-slow lint format bench bench-networks table mlflow clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

# The stamp is as new as the last installation, so a changed setup.cfg or constraints.txt refreshes it.
$(VENV)/installed: setup.cfg constraints.txt pyproject.toml
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/installed  ## create .venv and install everything that the project needs

# Small slices and few epochs, so that two cores do it in minutes; the command is the README's.
demo: BUNDLE := $(RUN) -m monai.bundle run
demo: SMALL := --image_size "[96,96]" --batch_size 8
demo: NAME := demo-$(shell date +%Y%m%d-%H%M%S)
demo: install  ## phantom, training, evaluation and segmentation in under 5 minutes
	$(VENV)/bin/featherseg phantom lits --out data/lits --cases 16
	$(BUNDLE) training --config_file bundles/lits/train.json $(SMALL) \
	    --max_epochs 8 --learning_rate 0.003 --learning_rate_power 0.9 --run_name $(NAME)
	$(BUNDLE) evaluating --config_file "['bundles/lits/train.json','bundles/common/evaluate.json']" $(SMALL) \
	    --run_name $(NAME)
	$(BUNDLE) inferring --config_file bundles/lits/inference.json $(SMALL) \
	    --dataset_dir "data/lits/Training Batch 1/volume-2.nii" --output_dir runs/lits/$(NAME)/masks
	$(VENV)/bin/featherseg baseline runs/lits/$(NAME)
	@echo
	@echo "overlay of a held-out volume: runs/lits/$(NAME)/evaluation/pictures/median.png"
	@echo "its mask:                     runs/lits/$(NAME)/masks/volume-2_mask.nii.gz"
	@echo "the run in MLflow:            make mlflow, then open http://127.0.0.1:5000"

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

bench-networks: OUT := bench
bench-networks: install  ## latency of every network in several runtimes, beside MONAI's; hours
	$(RUN) -m pipelines.bench_networks --out $(OUT)

table: install  ## write the README's table of networks from docs/networks.json
	$(RUN) -m pipelines.table

mlflow: install  ## open the runs in MLflow's browser interface
	$(VENV)/bin/mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlruns.db}"

clean:  ## remove .venv (data/ and runs/ stay)
	rm -rf $(VENV)

# The commands of the README. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: help install install-label demo demo-us demo-label ladder calipers ablation laird active busi test test-slow package-checks lint format bench bench-networks bench-highres table mlflow clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

# The stamp is as new as the last installation, so a changed setup.cfg or constraints.txt refreshes it.
$(VENV)/installed: setup.cfg constraints.txt pyproject.toml
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/installed  ## create .venv and install everything that the project needs

install-label: install  ## create .venv-label, in which MONAI Label runs, and print its time and size
	$(RUN) -m pipelines.label.environment

# Small slices and few epochs, so that two cores do it in minutes; the command is the README's.
demo: BUNDLE := $(RUN) -m monai.bundle run
demo: SMALL := --image_size "[96,96]" --batch_size 8
demo: NAME := demo-$(shell date +%Y%m%d-%H%M%S)
demo: install  ## phantom, training, evaluation and segmentation, in minutes
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

demo-us: RUN_IT := $(RUN) -m monai.bundle run
demo-us: DCE_US := --image_size "[96,96]" --network_def\#group_size 16
demo-us: CEUS := --image_size "[64,64]" --batch_size 8
demo-us: NAME := demo-$(shell date +%Y%m%d-%H%M%S)
demo-us: install  ## the same for both ultrasound bundles
	$(VENV)/bin/featherseg phantom dce_us --out data/dce_us --cases 24 --size 160
	$(RUN_IT) training --config_file bundles/dce_us/train.json $(DCE_US) \
	    --max_epochs 20 --learning_rate 0.001 --run_name $(NAME)
	$(RUN_IT) evaluating --config_file "['bundles/dce_us/train.json','bundles/common/evaluate.json']" \
	    $(DCE_US) --run_name $(NAME)
	$(RUN_IT) inferring --config_file bundles/dce_us/inference.json $(DCE_US) \
	    --dataset_dir data/dce_us/images/Patient001_img1.png --output_dir runs/dce_us/$(NAME)/masks
	$(VENV)/bin/featherseg baseline runs/dce_us/$(NAME)
	$(VENV)/bin/featherseg phantom ceus --out data/ceus --cases 24 --size 96
	$(RUN_IT) training --config_file bundles/ceus/train.json $(CEUS) \
	    --max_epochs 20 --run_name $(NAME)
	$(RUN_IT) evaluating --config_file "['bundles/ceus/train.json','bundles/common/evaluate.json']" \
	    $(CEUS) --run_name $(NAME)
	$(RUN_IT) inferring --config_file bundles/ceus/inference.json $(CEUS) \
	    --dataset_dir data/ceus/P001 --output_dir runs/ceus/$(NAME)/masks
	$(VENV)/bin/featherseg baseline runs/ceus/$(NAME)
	@echo
	@echo "overlays of held-out images: runs/dce_us/$(NAME)/evaluation/pictures/median.png"
	@echo "                             runs/ceus/$(NAME)/evaluation/pictures/median.png"

demo-label: install-label  ## MONAI Label at work on a phantom: labels, training, the next study; pictures
	$(RUN) -m pipelines.label.demo

# Small images and few epochs on phantoms; the bundles' own settings take a GPU, or days.
ladder calipers: SETTING := --dataset_dir data/ladder --image_size "[64,64]" --network_def\#group_size 16 \
    --max_epochs 60 --early_stop_patience None --num_workers 0
ladder: install  ## the seven rungs of the dce_us bundle's tuning ladder, on its phantom
	$(VENV)/bin/featherseg phantom dce_us --out data/ladder --cases 40 --size 160
	$(VENV)/bin/featherseg sweep bundles/dce_us/sweeps/ladder.yaml $(SETTING)
	$(VENV)/bin/featherseg compare dce_us-ladder --grid

calipers: install  ## the dce_us bundle with and without burned-in calipers, on its phantom
	$(VENV)/bin/featherseg phantom dce_us --out data/ladder --cases 40 --size 160
	$(VENV)/bin/featherseg calipers
	$(VENV)/bin/featherseg sweep bundles/dce_us/sweeps/calipers.yaml $(SETTING)
	$(VENV)/bin/featherseg compare dce_us-calipers --grid

ablation: SETTING := --image_size "[48,48]" --batch_size 8 --max_epochs 20 --num_workers 0
ablation: install  ## what each part of the ceus bundle's network adds, on its phantom
	$(VENV)/bin/featherseg phantom ceus --out data/ablation --cases 36 --size 96
	$(VENV)/bin/featherseg sweep bundles/ceus/sweeps/ablation.yaml --dataset_dir data/ablation $(SETTING)
	$(VENV)/bin/featherseg compare ceus-ablation --grid

laird: SETTING := --dataset_dir data/laird --num_folds 4 --image_size "[40,40]" --batch_size 8 --max_epochs 10 \
    --learning_rate 0.001 --num_workers 0
laird: install  ## the brain_tumour bundle's architectures and losses, on its phantom
	$(VENV)/bin/featherseg phantom brain_tumour --out data/laird --cases 16 --size 64
	for table in architectures losses; do \
	    $(VENV)/bin/featherseg sweep bundles/brain_tumour/sweeps/$$table.yaml --jobs 2 $(SETTING); \
	    $(VENV)/bin/featherseg compare brain_tumour-$$table --grid; \
	done

active: OUT := runs/lits-active
active: install  ## labels for the studies that a model doubts, or for any: Dice by their number; over an hour
	$(RUN) -m pipelines.active_study --out $(OUT)

busi: DATA := data/dce_us
busi: SWEEP := $(VENV)/bin/featherseg sweep
busi: install  ## the README's networks on BUSI (DATA=...), and one with and without calipers; hours
	$(SWEEP) bundles/dce_us/sweeps/busi_cpu.yaml --jobs 2 --dataset_dir $(DATA)
	$(VENV)/bin/featherseg compare dce_us-busi-cpu --grid \
	    --falling "Lighter C=128" --falling "Lighter C=16" --falling "Lighter C=1"
	$(SWEEP) bundles/dce_us/sweeps/busi_cpu_calipers.yaml --jobs 2 --dataset_dir $(DATA)
	$(VENV)/bin/featherseg compare dce_us-busi-calipers --grid

# A process for each of up to four cores; what shares a bundle's runs, or a file's fixtures, stays in one.
test: install  ## the whole test suite
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(RUN) -m pytest -m 'not slow' -n logical --maxprocesses 4 --dist loadgroup

test-slow: install  ## the studies of minutes that `make test` leaves out
	$(RUN) -m pytest -m slow

# The checks of https://github.com/Project-MONAI/model-zoo, and environments of a bundle's requirements alone.
# Without a way to the internet, FEATHERSEG_SCHEMA names the schema of metadata.json.
package-checks: ZOO := dist/.model-zoo
package-checks: install  ## packaged bundles by the model zoo's own checks (ZOO=...), and in fresh environments
	@test -d $(ZOO)/ci || git clone --quiet --depth 1 https://github.com/Project-MONAI/model-zoo $(ZOO)
	FEATHERSEG_ZOO=$(ZOO) $(RUN) -m pytest -m slow tests/bundles/test_package_checks.py \
	    tests/bundles/test_packaged_bundles.py

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

bench-highres: OUT := bench
bench-highres: install  ## memory and time of a training step on whole mammograms; an hour
	$(RUN) -m pipelines.bench_highres --out $(OUT)

table: install  ## write the README's table of networks from docs/networks.json
	$(RUN) -m pipelines.table

mlflow: install  ## open the runs in MLflow's browser interface
	MLFLOW_DISABLE_TELEMETRY=true $(VENV)/bin/mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlruns.db}"

clean:  ## remove .venv and .venv-label (data/ and runs/ stay)
	rm -rf $(VENV) .venv-label .venv-label.lock

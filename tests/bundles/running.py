"""Running bundles as a user does, small enough for a test."""

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import torch

from tests.conftest import ROOT

BUNDLES = ("lits", "brain_tumour", "inbreast", "dce_us", "ceus")
EVALUATING = "bundles/common/evaluate.json"


def train(bundle: str) -> str:
    """The file of a bundle's experiment, from a workspace."""
    return f"bundles/{bundle}/train.json"


def small(bundle: str) -> dict[str, str]:
    """Options that leave the real experiment with a network of a few thousand parameters on small slices."""
    channels = {"lits": 1, "brain_tumour": 4, "inbreast": 1, "dce_us": 3, "ceus": 2}[bundle]
    return {
        "network_def": f"{{'_target_': 'BasicUNet', 'spatial_dims': 2, 'in_channels': {channels},"
        " 'out_channels': 1, 'features': [4, 4, 8, 8, 8, 4], 'dropout': 0.1}",
        "image_size": "[32, 32]",
        "batch_size": "8",
        "num_workers": "0",
        "num_folds": "3",
    }


def for_inference(bundle: str) -> dict[str, str]:
    """Of these options the ones that inference knows."""
    return {key: small(bundle)[key] for key in ("network_def", "image_size", "batch_size")}


SMALL = {key: value for key, value in small("lits").items() if key != "num_folds"}
TRAIN = train("lits")
EVALUATE = f"['{TRAIN}','{EVALUATING}']"


def make_workspace(folder: Path) -> Path:
    """A folder from which bundles run as from the repo's root."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bundles").symlink_to(ROOT / "bundles")
    return folder


def command(run_id, config_file, launcher=("-m",), **options):
    """`python -m monai.bundle run ...` as a list of words."""
    words = [sys.executable, *launcher, "monai.bundle", "run", run_id, "--config_file", config_file]
    for key, value in options.items():
        words += [f"--{key}", str(value)]
    return words


def environment(**extra):
    """The environment of a run: our packages on the path, one thread, no other tracking server."""
    kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **extra}


def run(folder, run_id, config_file, expect=0, env=None, **options):
    """Run a bundle in `folder`; returns what it printed."""
    words = command(run_id, config_file, **options)
    done = subprocess.run(
        words,
        cwd=folder,
        env=environment(**(env or {})),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == expect, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def run_in_two(folder, run_id, config_file, **options):
    """Run a bundle in two processes, as `torchrun` does; returns what they printed."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m")
    words = command(run_id, config_file, launcher=launcher, **options)
    done = subprocess.run(
        words, cwd=folder, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def noisy_weights(folder, bundle):
    """Of the run "a", changed so that they segment a good part of anything and masks can be compared."""
    state = torch.load(folder / "runs" / bundle / "a/model.pt", weights_only=True)
    state["final_conv.weight"] *= 50
    state["final_conv.bias"] *= 0
    torch.save(state, folder / "noisy.pt")
    return folder / "noisy.pt"


def runs_of(folder, bundle):
    """MLflow's client and the runs of a bundle, by their names."""
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlruns.db'}")
    found = client.search_runs([client.get_experiment_by_name(bundle).experiment_id])
    return client, {run.info.run_name: run for run in found}

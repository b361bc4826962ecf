"""A workspace for each bundle, with a phantom and a run of two epochs, made once for all tests."""

import shutil

import pytest
import torch

from pipelines import datasets
from pipelines.package import package
from tests.bundles.running import EVALUATING, make_workspace, run, small, train, type_in
from tests.conftest import ROOT

SIZES = {
    "lits": 64,
    "brain_tumour": 48,
    "inbreast": 96,
    "dce_us": 96,
    "ceus": 64,
}  # about the least that each phantom can be drawn in


@pytest.fixture(scope="session")
def workspaces(tmp_path_factory):
    """Gives a bundle's workspace and what its training printed."""
    made = {}

    def workspace(bundle):
        if bundle not in made:
            folder = make_workspace(tmp_path_factory.mktemp(bundle) / "workspace")
            datasets.get(bundle).phantom(folder / "data" / bundle, cases=6, seed=0, size=SIZES[bundle])
            before = {path: path.stat().st_mtime_ns for path in (ROOT / "bundles").rglob("*")}
            out = type_in(folder, "training", train(bundle), run_name="a", max_epochs=2, **small(bundle))
            assert {path: path.stat().st_mtime_ns for path in (ROOT / "bundles").rglob("*")} == before
            made[bundle] = folder, out
        return made[bundle]

    return workspace


@pytest.fixture(scope="session")
def evaluations(workspaces):
    """Gives a bundle's workspace and what the evaluation of its run printed."""
    made = {}

    def evaluation(bundle):
        if bundle not in made:
            folder, _ = workspaces(bundle)
            configs = f"['{train(bundle)}','{EVALUATING}']"
            made[bundle] = folder, run(folder, "evaluating", configs, run_name="a", **small(bundle))
        return made[bundle]

    return evaluation


@pytest.fixture(scope="session")
def packages(workspaces, tmp_path_factory):
    """Gives the folder of a packaged bundle, with weights that segment a part of anything."""
    made = {}

    def packaged(bundle):
        if bundle not in made:
            workspace, _ = workspaces(bundle)
            place = tmp_path_factory.mktemp(f"packaged-{bundle}")
            shutil.copytree(workspace / "runs" / bundle / "a", place / "noisy")
            state = torch.load(place / "noisy/model.pt", weights_only=True)
            state["final_conv.weight"] *= 50
            state["final_conv.bias"] *= 0
            torch.save(state, place / "noisy/model.pt")
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(workspace)
                made[bundle] = package(bundle, checkpoint=str(place / "noisy/model.pt"), out=place / "dist")
        return made[bundle].folder

    return packaged

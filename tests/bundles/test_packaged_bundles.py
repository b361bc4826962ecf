"""Packaged bundles at work: from another folder, without the project, with their required packages alone."""

import json
import sys
import types

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import onnx_export, run
from PIL import Image

from pipelines import datasets
from pipelines.files import read_json
from tests.bundles import isolated
from tests.bundles.running import BUNDLES, EVALUATING
from tests.pipelines.tracked_runs import client_of

# The one that asks for most, since its preparation is fitted in training; the others take minutes more.
QUICK = ("brain_tumour",)
every_bundle = pytest.mark.parametrize(
    "bundle", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in BUNDLES]
)


@pytest.fixture(scope="session")
def outcomes(packages, workspaces, tmp_path_factory):
    """Gives the folder where a packaged bundle was used, and what each of MONAI's commands printed."""
    made = {}

    def outcome(bundle):
        if bundle not in made:
            folder, (workspace, _) = packages(bundle), workspaces(bundle)
            away = tmp_path_factory.mktemp(f"away-{bundle}")
            python = isolated.environment(away / "python", folder / "requirements.txt")
            client_of(away, "another")  # a store, which takes MLflow a while to make
            schema = away / "schema.json"  # so that none is downloaded
            schema.write_text(json.dumps({"type": "object", "required": ["schema", "network_data_format"]}))
            train, inference, meta = (
                str(folder / f"configs/{name}.json") for name in ("train", "inference", "metadata")
            )
            data = {"dataset_dir": str(workspace / "data" / bundle)}
            evaluating = [train, str(folder / "configs/evaluate.json")]
            small = {"max_epochs": 1, "num_workers": 0, "batch_size": 8}
            net = {"net_id": "network_def", "config_file": inference, "meta_file": meta}
            commands = [
                ("run", {"run_id": "training", "config_file": train, "run_name": "new", **data, **small}),
                ("run", {"run_id": "evaluating", "config_file": evaluating, **data}),
                ("run", {"run_id": "evaluating", "config_file": evaluating, **data, "run_name": "new"}),
                ("run", {"run_id": "inferring", "config_file": inference, **data, "output_dir": "masks"}),
                ("verify_metadata", {"meta_file": meta, "filepath": str(schema)}),
                ("verify_net_in_out", {**net, "device": "cpu"}),
                (
                    "ckpt_export",
                    {**net, "ckpt_file": str(folder / "models/model.pt"), "filepath": "model.ts"},
                ),
            ]
            made[bundle] = away, isolated.carry_out(python, away, commands)
        return made[bundle]

    return outcome


@every_bundle
def test_it_trains_evaluates_and_segments_away_from_the_project(outcomes, packages, bundle):
    away, (training, own, new, inferring, *_) = outcomes(bundle)
    assert f"run {bundle}/new: runs/{bundle}/new" in training
    assert "epoch 1/1" in training
    made = away / "runs" / bundle
    assert read_json(made / "new/run.json")["status"] == "finished"
    assert read_json(made / "new/config.json")["network_def"]["_target_"] == "BasicUNet"
    assert {path.name for path in away.iterdir()} >= {"mlruns.db", "masks", "model.ts", "runs"}
    # The weights of the bundle by default, of a run where it is named, each on the cases that it held out.
    weights = packages(bundle) / "models/model.pt"
    assert f"weights: {weights}" in own
    assert f"weights: {weights}" in inferring
    assert f"weights: runs/{bundle}/new/model.pt" in new
    for place in ("packaged", "new"):
        assert (made / place / "evaluation/cases.csv").is_file()
    # It was made of this code, wherever it lies.
    version = (packages(bundle) / f"featherseg_{bundle}/__init__.py").read_text().split('"')[-2]
    assert read_json(made / "new/run.json")["code_version"] == version


@every_bundle
def test_cases_and_figures_are_those_of_the_project(
    outcomes, packages, workspaces, workspace, monkeypatch, bundle
):
    away, _ = outcomes(bundle)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody is there
    run_folder = packages(bundle).parents[1] / "noisy"
    run(
        "evaluating",
        config_file=[f"bundles/{bundle}/train.json", EVALUATING],
        checkpoint=str(run_folder / "model.pt"),
        dataset_dir=str(workspaces(bundle)[0] / "data" / bundle),
    )
    for name in ("cases.csv", "cases_on_grid.csv"):
        own, packaged = (
            (folder / "evaluation" / name).read_text()
            for folder in (run_folder, away / f"runs/{bundle}/packaged")
        )
        assert own == packaged
        assert len(own.splitlines()) > 1


@every_bundle
def test_monais_commands_find_nothing_missing(outcomes, bundle):
    _, (training, _, _, inferring, metadata, network, exported) = outcomes(bundle)
    assert "MISSING []" in training
    assert "MISSING []" in inferring
    assert metadata.startswith("verify_metadata")
    assert network.startswith("verify_net_in_out")
    assert exported.startswith("ckpt_export")


@every_bundle
def test_masks_are_those_of_the_project_to_the_voxel(outcomes, workspaces, packages, monkeypatch, bundle):
    away, _ = outcomes(bundle)
    workspace, _ = workspaces(bundle)
    monkeypatch.chdir(workspace)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    run(
        "inferring",
        config_file=f"bundles/{bundle}/inference.json",
        checkpoint=str(packages(bundle).parents[1] / "noisy/model.pt"),
        dataset_dir=f"data/{bundle}",
        output_dir=str(away / "own"),
    )
    names = sorted(path.name for path in (away / "own").glob("*_mask.*"))
    assert names == sorted(path.name for path in (away / "masks").glob("*_mask.*")) != []
    found = 0
    for name in names:
        own, packaged = (_mask(away / folder / name) for folder in ("own", "masks"))
        np.testing.assert_array_equal(own, packaged)
        found += int(own.any() and not own.all())
    assert found > 0  # masks of something, so that they could differ


def _mask(path):
    if path.suffix == ".png":
        with Image.open(path) as picture:
            return np.asarray(picture)
    image = nib.load(path)
    return np.asarray(image.dataobj)


@every_bundle
def test_the_network_is_exported_as_onnx(packages, tmp_path, monkeypatch, bundle):
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = packages(bundle)
    monkeypatch.chdir(tmp_path)
    config, meta = (str(folder / f"configs/{name}.json") for name in ("inference", "metadata"))
    files = {"ckpt_file": str(folder / "models/model.pt"), "filepath": str(tmp_path / "model.onnx")}
    onnx_export("network_def", config_file=config, meta_file=meta, **files)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    told = read_json(meta)["network_data_format"]["inputs"]["image"]
    image = np.zeros((1, told["num_channels"], *told["spatial_shape"]), np.float32)
    (logits,) = session.run(None, {session.get_inputs()[0].name: image})
    assert logits.shape == (1, 1, *told["spatial_shape"])


@every_bundle
def test_data_of_others_are_evaluated_as_a_whole_on_request(packages, tmp_path, monkeypatch, capsys, bundle):
    """In the project's own process, where both are: the packaged bundle has its own modules."""
    folder = packages(bundle)
    size = {"lits": 64, "brain_tumour": 48, "inbreast": 96, "dce_us": 96, "ceus": 64}[bundle]
    datasets.get(bundle).phantom(tmp_path / "data", cases=2, seed=7, size=size)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "path", list(sys.path))
    configs = [str(folder / f"configs/{name}.json") for name in ("train", "evaluate")]
    with pytest.raises(RuntimeError) as told:
        run("evaluating", config_file=configs, dataset_dir="data")
    error = sys.modules[f"featherseg_{bundle}.pipelines.errors"]
    assert "expected the data that" in error.user_message(told.value)
    run("evaluating", config_file=configs, dataset_dir="data", unseen=True)
    cases = (tmp_path / f"runs/{bundle}/packaged/evaluation/cases.csv").read_text().splitlines()[1:]
    assert len(cases) == len(datasets.get(bundle).index(str(tmp_path / "data"), **_options(bundle)))
    assert isinstance(sys.modules[f"featherseg_{bundle}.pipelines.runs"], types.ModuleType)
    assert sys.modules[f"featherseg_{bundle}.pipelines.runs"] is not sys.modules["pipelines.runs"]


def _options(bundle):
    return {
        "ceus": {"count": 2, "frames_dir": "frames", "candidates": 40, "seed": 0},
        "dce_us": {"normal": False},
        "inbreast": {"normal": True},
        "brain_tumour": {"label_coding": "msd"},
    }.get(bundle, {})

"""Inference and evaluation that know their network: weights that ship with a bundle, and registered ones."""

import ast
import json
import shutil

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image
from safetensors import safe_open

from pipelines import datasets, registry, runs, weights
from pipelines.checkpoints import trained_with
from pipelines.errors import DataError
from pipelines.scoring import read_cases
from tests.bundles.running import BUNDLES, EVALUATING, run, runs_of, small, train
from tests.conftest import ROOT

REAL = ROOT / "bundles/dce_us/models/model.safetensors"
INFERENCE = "bundles/dce_us/inference.json"


@pytest.fixture(scope="module")
def clone(workspaces, tmp_path_factory):
    """A folder as a fresh clone is: bundles, one of them with weights, and no run."""
    trained, _ = workspaces("dce_us")
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "bundles", folder / "bundles", ignore=shutil.ignore_patterns("models"))
    weights.shrink(trained / "runs/dce_us/a/model.pt", folder / "bundles/dce_us/models/model.safetensors")
    datasets.get("dce_us").phantom(folder / "data/dce_us", cases=1, seed=3, size=96)
    return folder


def configured(*files, **options):
    parser = ConfigParser()
    parser.read_config(list(files))
    parser.update({"device": "cpu", **options})
    return parser


def test_a_fresh_clone_segments_without_an_option(clone):
    out = run(clone, "inferring", INFERENCE, dataset_dir="data/dce_us/images", output_dir="out")
    assert "weights: shipped with the bundle, bundles/dce_us/models/model.safetensors" in out
    images = sorted((clone / "data/dce_us/images").glob("*.png"))
    assert len(images) == 2
    for image in images:
        with Image.open(image) as picture, Image.open(clone / f"out/{image.stem}_mask.png") as mask:
            assert mask.size == picture.size


@pytest.mark.parametrize("bundle", BUNDLES)
def test_inference_takes_network_and_preparation_from_the_checkpoint(workspaces, monkeypatch, bundle):
    folder, _ = workspaces(bundle)
    monkeypatch.chdir(folder)
    options = {key: ast.literal_eval(value) for key, value in small(bundle).items()}
    parser = configured(f"bundles/{bundle}/inference.json", run_name="a")
    network = parser.get_parsed_content("network_def")
    assert type(network).__name__ == "BasicUNet"
    assert parser.get_parsed_content("model_settings")["image_size"] == options["image_size"] == [32, 32]
    network.load_state_dict(torch.load(f"runs/{bundle}/a/model.pt", weights_only=True))
    # A deep option is one more argument of the recorded network, a whole one replaces it.
    parser = configured(f"bundles/{bundle}/inference.json", **{"run_name": "a", "network_def#act": "relu"})
    assert "ReLU(" in str(parser.get_parsed_content("network_def"))
    whole = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": 1}
    parser = configured(f"bundles/{bundle}/inference.json", run_name="a", network_def=whole)
    assert type(parser.get_parsed_content("network_def")) is torch.nn.Conv2d
    # As in training: another class, with the channels of the bundle.
    other = {"run_name": "a", "network_def#_target_": "networks.LighterUNet", "network_def#group_size": 16}
    network = configured(f"bundles/{bundle}/inference.json", **other).get_parsed_content("network_def")
    assert type(network).__name__ == "LighterUNet"
    channels = configured(train(bundle)).get("network_def#in_channels")
    assert next(network.parameters()).shape[1] == channels


@pytest.mark.parametrize("bundle", BUNDLES)
def test_weights_without_a_record_go_with_the_bundles_own_network(workspaces, monkeypatch, bundle):
    folder, _ = workspaces(bundle)
    monkeypatch.chdir(folder)
    given = {"whitening": None} if bundle == "brain_tumour" else {}  # known to the training alone
    parser = configured(f"bundles/{bundle}/inference.json", checkpoint="bare.pt", **given)
    own = configured(train(bundle), **given)
    network = parser.get_parsed_content("network_def")
    expected = own.get_parsed_content("network_def")
    assert type(network) is type(expected)
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in expected.parameters())
    settings = own.get_parsed_content("model_settings")
    assert parser.get_parsed_content("model_settings").items() <= settings.items()


@pytest.mark.parametrize("bundle", BUNDLES)
def test_evaluation_takes_every_setting_of_the_model_from_the_checkpoint(workspaces, monkeypatch, bundle):
    folder, _ = workspaces(bundle)
    monkeypatch.chdir(folder)
    parser = configured(train(bundle), EVALUATING, run_name="a")
    recorded = json.loads((folder / f"runs/{bundle}/a/run.json").read_text())["model_settings"]
    assert all(parser.get(key) == f"$@trained_with['{key}']" for key in recorded)
    assert parser.get_parsed_content("model_settings") == recorded
    assert type(parser.get_parsed_content("network_def")).__name__ == "BasicUNet"


def test_an_option_that_contradicts_the_record_is_refused(workspaces, monkeypatch):
    folder, _ = workspaces("dce_us")
    monkeypatch.chdir(folder)
    for option, message in (
        ({"image_size": [64, 64]}, r"expected image_size=\[32, 32\], .*leave --image_size out"),
        ({"remove_calipers": True}, "expected remove_calipers=False, .*leave --remove_calipers out"),
        (
            {"network_def#_target_": "networks.LighterUNet"},
            "trained with, BasicUNet, found LighterUNet; leave",
        ),
        ({"network_def#features": [4, 4, 8, 8, 8, 8]}, "expected weights of BasicUNet as configured"),
    ):
        parser = configured(INFERENCE, run_name="a", **option)
        with pytest.raises(RuntimeError) as told:
            parser.get_parsed_content("initialize")
        assert isinstance(told.value.__cause__, DataError)
        assert told.match("Failed to evaluate")
        with pytest.raises(DataError, match=message):
            raise told.value.__cause__


def test_a_finished_run_goes_before_the_shipped_weights(clone, workspaces, monkeypatch):
    trained, _ = workspaces("dce_us")
    monkeypatch.chdir(trained)
    shipping = str(clone / "bundles/dce_us")
    assert runs.model("dce_us", "a", shipping) == "runs/dce_us/a/model.pt"
    assert runs.model("dce_us", None, shipping).startswith("runs/dce_us/")
    monkeypatch.chdir(clone)
    assert runs.model("dce_us", None, "bundles/dce_us") == "bundles/dce_us/models/model.safetensors"
    with pytest.raises(DataError, match=r"expected the weights runs/dce_us/a/model\.pt"):
        runs.model("dce_us", "a", "bundles/dce_us")
    with pytest.raises(
        DataError, match="expected a finished run of lits in runs/lits, found none; train one"
    ):
        runs.model("lits", None, "bundles/lits")


def test_a_promoted_run_is_evaluated_by_its_alias_as_it_was(evaluations, monkeypatch):
    folder, _ = evaluations("dce_us")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlruns.db'}")
    assert registry.promote("runs/dce_us/a") == registry.Promotion("dce_us", "1", "champion", made=True)
    client, found = runs_of(folder, "dce_us")
    figures = found["a"].data.metrics
    out = run(
        folder,
        "evaluating",
        f"['{train('dce_us')}','{EVALUATING}']",
        checkpoint="models:/dce_us@champion",
    )
    assert "weights: runs/dce_us/registry/1/model.safetensors" in out
    again, before = (
        read_cases(folder / f"runs/dce_us/{name}/evaluation/cases.csv") for name in ("registry/1", "a")
    )
    assert again == before
    assert float(client.get_model_version("dce_us", "1").tags["test_dice"]) == pytest.approx(
        figures["test_dice"], rel=1e-3, abs=1e-9
    )
    # The figures are those of the run, in which the evaluation is recorded.
    assert runs_of(folder, "dce_us")[1]["a"].data.metrics == pytest.approx(figures)


@pytest.mark.skipif(not REAL.is_file(), reason="the bundle dce_us ships no weights yet")
def test_the_weights_that_ship_segment_an_image_of_any_size(tmp_path, monkeypatch):
    assert REAL.stat().st_size <= 6e6
    with safe_open(REAL, "pt") as file:  # which knows no pickle
        assert set(file.metadata()) == {weights.ENTRY}
    network = trained_with(REAL, {})["network"]()
    assert sum(parameter.numel() for parameter in network.parameters()) <= 3_000_000
    assert weights.record_of(REAL)["trained_on"]["dataset_fingerprint"]
    datasets.get("dce_us").phantom(tmp_path / "data", cases=1, seed=3, size=200)
    image = sorted((tmp_path / "data/images").glob("*.png"))[0]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundles").symlink_to(ROOT / "bundles")
    parser = configured(INFERENCE, dataset_dir=str(image), output_dir="out")
    parser.get_parsed_content("initialize")
    parser.get_parsed_content("run")
    with Image.open(image) as picture, Image.open(f"out/{image.stem}_mask.png") as mask:
        assert mask.size == picture.size
        assert set(np.unique(mask)) <= {0, 255}

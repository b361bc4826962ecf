import json
from pathlib import Path

import monai
import numpy as np
import pytest
import torch

from pipelines import package_configs, weights
from pipelines.package_metadata import metadata, requirements_file
from pipelines.package_weights import Weights
from tests.bundles.running import BUNDLES
from tests.conftest import ROOT
from tests.pipelines.package_runs import network

RECORD = {"trained_on": {"dataset_fingerprint": "0123", "fold": 2}}


def made(bundle, found=None, network_def=None, settings=None, **more):
    """The metadata of a package of a bundle, of these weights and this network."""
    own = json.loads((ROOT / f"bundles/{bundle}/metadata.json").read_text())
    train = package_configs.flat(f"bundles/{bundle}/train.json")
    settings = settings or {}
    model = package_configs.Model(
        network_def or network(1), settings, more.pop("shape", [1, 32, 48]), settings
    )
    built = weights.build(model.network_def)
    found = found or Weights(Path("m.pt"), RECORD, name="run mine", figures={"test_dice": 0.5})
    return own, metadata(own, found, model, train, built, {"nibabel": "5.0"})


@pytest.mark.parametrize("bundle", BUNDLES)
def test_it_is_that_of_this_network_and_these_weights(workspace, bundle):
    own, told = made(bundle)
    count = sum(parameter.numel() for parameter in weights.build(network(1)).parameters())
    assert f"BasicUNet features=[4, 4, 8, 8, 8, 4], {count:,} parameters" in told["description"]
    assert "for images of 32x48 pixels in 1 channel." in told["description"]
    data = told["network_data_format"]
    for tensor in (data["inputs"]["image"], data["outputs"]["pred"]):
        assert (tensor["num_channels"], tensor["spatial_shape"]) == (1, [32, 48])
    assert told["eval_metrics"] == {"test_dice": 0.5}
    assert told["trained_on"] == RECORD["trained_on"]
    assert told["version"] in told["changelog"]
    assert told["changelog"][told["version"]].endswith("; weights: run mine")
    # All else is the bundle's own, which is left as it was.
    kept = ("task", "name", "references", "intended_use", "label_classes", "schema")
    assert all(told[key] == own[key] for key in kept)
    assert own == json.loads((ROOT / f"bundles/{bundle}/metadata.json").read_text())


@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_bundles_changes_leave_it_to_the_package_to_speak_of_weights(bundle):
    own = json.loads((ROOT / f"bundles/{bundle}/metadata.json").read_text())
    assert own["version"] in own["changelog"]
    assert not any("weights" in text for text in own["changelog"].values())


def test_versions_are_those_that_are_installed(workspace):
    _, told = made("lits")
    assert told["monai_version"] == monai.__version__
    assert told["pytorch_version"] == torch.__version__.split("+")[0]
    assert told["numpy_version"] == np.__version__
    assert requirements_file(told) == (
        f"monai=={told['monai_version']}\ntorch=={told['pytorch_version']}\nnumpy=={np.__version__}\n"
        "nibabel==5.0\n"
    )


def test_figures_of_the_bundle_are_those_of_the_weights_that_ship(workspace):
    own, told = made("dce_us", Weights(Path("m"), {}, shipped=True))
    assert told["eval_metrics"] == own["eval_metrics"] != {}
    assert made("dce_us", Weights(Path("m"), {}))[1]["eval_metrics"] == {}


def test_settings_that_change_what_goes_in_and_out_are_named(workspace):
    _, told = made("lits", settings={"target_labels": [1, 2], "window": [0, 9]})
    assert told["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "liver and tumour"}
    assert told["description"].endswith("own settings: target_labels [1, 2], window [0, 9].")
    _, told = made("ceus", settings={"inputs": ["us"]})
    assert told["network_data_format"]["inputs"]["image"]["channel_def"] == {"0": "B-mode"}


def test_our_networks_are_told_with_their_paper(workspace):
    ours = {"_target_": "networks.LighterUNet", "in_channels": 1, "out_channels": 1, "group_size": 16}
    assert (
        "LighterUNet group_size=16 (Li et al., ISBI 2021), 2," in made("lits", None, ours)[1]["description"]
    )

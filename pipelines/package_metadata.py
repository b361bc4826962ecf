"""What a packaged bundle says of itself: metadata.json and the packages that it requires."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Any

import torch

import networks
from pipelines import runs
from pipelines.package_configs import Model
from pipelines.package_weights import Weights

BASE = {"monai": "monai", "torch": "pytorch", "numpy": "numpy"}  # package -> what metadata call it


def about(network: torch.nn.Module, model: Model) -> str:
    """The network in a sentence: its name, paper, parameters and the images that it takes."""
    paper = getattr(network, "paper", "")
    channels, size = model.input_shape[0], "x".join(map(str, model.input_shape[1:]))
    return (
        f"{runs.network_label({'network_def': model.network_def})}{f' ({paper})' if paper else ''}, "
        f"{networks.count_parameters(network):,} parameters, for images of {size} pixels in {channels} "
        f"channel{'s' * (channels > 1)}"
    )


def metadata(
    own: dict[str, Any],
    found: Weights,
    model: Model,
    train: dict[str, Any],
    network: torch.nn.Module,
    requirements: dict[str, str],
) -> dict[str, Any]:
    """The bundle's metadata with what is true of this package: versions, network, weights, figures.

    Args:
        own: the bundle's metadata.json.
        found: the weights.
        model: what they belong to.
        train: the bundle's configuration, flat.
        network: with the weights.
        requirements: package -> version.
    """
    description = f"{own['task']}. The network: {about(network, model)}."
    if model.differing:
        words = ", ".join(f"{key} {value}" for key, value in sorted(model.differing.items()))
        description += f" What differs from the bundle's own settings: {words}."
    changes = {
        **own["changelog"],
        own["version"]: f"{own['changelog'][own['version']]}; weights: {found.name}",
    }
    figures = own["eval_metrics"] if found.shipped else found.figures
    return {
        **own,
        "changelog": changes,
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": requirements,
        "description": description,
        "eval_metrics": figures,
        "trained_on": found.record.get("trained_on", {}),
        "network_data_format": _data_format(own, model, train),
    }


def _data_format(own: dict[str, Any], model: Model, train: dict[str, Any]) -> dict[str, Any]:
    """Sizes and channels of the network, where the bundle's metadata have those of its own settings."""
    told = own["network_data_format"]
    image, pred = dict(told["inputs"]["image"]), dict(told["outputs"]["pred"])
    size = list(model.input_shape[1:])
    for tensor in (image, pred):
        if all(isinstance(side, int) for side in tensor["spatial_shape"]):
            tensor["spatial_shape"] = size
    image["num_channels"] = model.input_shape[0]
    pred["num_channels"] = model.network_def.get("out_channels", pred["num_channels"])
    if "inputs" in model.differing:
        names = dict(zip(train["inputs"], image["channel_def"].values(), strict=True))
        image["channel_def"] = {str(place): names[one] for place, one in enumerate(model.settings["inputs"])}
    if "target_labels" in model.differing:
        names = dict(re.findall(r"(\d+) ([^,;]+)", own["label_classes"]))
        wanted = (names.get(str(label), f"label {label}") for label in model.settings["target_labels"])
        pred["channel_def"] = {"0": " and ".join(wanted)}
    return {"inputs": {"image": image}, "outputs": {"pred": pred}}


def requirements_file(metadata: dict[str, Any]) -> str:
    """What `pip install -r` takes: all that the bundle needs, in the versions that it was made with."""
    base = {key: metadata[f"{name}_version"] for key, name in BASE.items()}
    every = {**base, **metadata["required_packages_version"]}
    return "".join(f"{name}=={number}\n" for name, number in every.items())

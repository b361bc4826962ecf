"""Settings of an experiment as they arrive from a command line: checked before anything is done with them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from pipelines.errors import DataError


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


RULES = {
    "batch_size": ("a whole number from 1 on", _whole),
    "accumulate": ("a whole number from 1 on", _whole),
    "max_epochs": ("a whole number from 1 on", _whole),
    "val_interval": ("a whole number from 1 on", _whole),
    "learning_rate": ("a number above 0", lambda value: _number(value) and value > 0),
    "plateau_epochs": ("a whole number from 1 on", _whole),
    "early_stop_patience": (
        "null, since the last epoch is the one that is kept",
        lambda value: value is None,
    ),
    "frames_per_clip": ("a whole number from 1 on", _whole),
    "candidate_frames": ("a whole number from 1 on", _whole),
    "inputs": (
        'of "ceus" and "us" one or both, in this order',
        lambda value: value in (["ceus"], ["us"], ["ceus", "us"]),
    ),
    "image_size": (
        "two whole numbers such as [256,256]",
        lambda value: isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_whole, value)),
    ),
    "field_of_view": (
        "two numbers of mm above 0 such as [144,144]",
        lambda value: (
            isinstance(value, (list, tuple)) and len(value) == 2 and all(_number(v) and v > 0 for v in value)
        ),
    ),
    "intensity_offset": ("a number", _number),
    "label_coding": ("one of msd, brats, brats2023", lambda value: value in ("msd", "brats", "brats2023")),
    "window": (
        "two rising numbers such as [-100,200]",
        lambda value: (
            isinstance(value, (list, tuple))
            and len(value) == 2
            and all(map(_number, value))
            and value[0] < value[1]
        ),
    ),
}


def check(known_labels: Sequence[int], target_labels: Any, **given: Any) -> None:
    """Refuse settings that would end in an error deep inside, or in a model of nothing.

    Args:
        known_labels: that the dataset has, the background first.
        target_labels: that the network is to find.
        given: values under the names of `RULES`.

    Raises:
        DataError: names the setting, what it has to be and what it is.
    """
    for name, value in given.items():
        wanted, holds = RULES[name]
        if not holds(value):
            raise DataError(f"expected --{name} to be {wanted}, found {value!r}")
    lesions = list(known_labels)[1:]
    if not isinstance(target_labels, (list, tuple)) or not target_labels or set(target_labels) - set(lesions):
        raise DataError(f"expected --target_labels to be a list out of {lesions}, found {target_labels!r}")


def check_network(network: torch.nn.Module, image_shape: Sequence[int]) -> None:
    """Refuse images that a network of ours would refuse in its first step.

    Args:
        network: whose `least_size` and `image_channels`, where it has them, the images have to meet.
        image_shape: (C, H, W).

    Raises:
        DataError: names what the network takes and what it would be given.
    """
    name = type(network).__name__
    channels, *size = image_shape
    least, wanted = getattr(network, "least_size", 1), getattr(network, "image_channels", channels)
    if min(size) < least:
        raise DataError(f"expected --image_size of at least [{least},{least}] for {name}, found {size}")
    if channels != wanted:
        raise DataError(
            f"expected a network for images of {channels} channel{'s' * (channels > 1)}, found {name} for "
            f"{wanted}; set --network_def#in_channels, or choose another network"
        )


def check_batch(network: torch.nn.Module, image_shape: Sequence[int], batch_size: int) -> None:
    """Refuse batches too small for a network's norms, which need two values a channel to train on.

    Args:
        network: is left as it is.
        image_shape: (C, H, W).
        batch_size: of images; one is too few where a level of the network has a single pixel.

    Raises:
        DataError: names the batch and the image's size.
    """
    trial = copy.deepcopy(network).to("meta").train()  # of shapes, not of values
    try:
        trial(torch.empty(batch_size, *image_shape, device="meta"))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise DataError(
            f"expected two values a channel in each norm of {type(network).__name__} to train it, found one, "
            f"with --batch_size {batch_size} and --image_size {list(image_shape[1:])}; take a larger one of "
            "both"
        ) from error

"""The registry: each network of this package by its name, with what its paper says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from monai.utils import ComponentStore
from torch import nn

Network = TypeVar("Network", bound=type[nn.Module])

NETWORKS = ComponentStore("networks", "2D segmentation networks: name -> class, logits out")


@dataclass(frozen=True)
class Published:
    """One network of a paper: how it is built here, and what the paper says of it.

    Args:
        title: what tables call it, the class's name first, such as `"LighterUNet, C = 16"`; no two networks
            share one.
        arguments: of the class; what is left out has the class's default.
        image_size: (C, H, W) of the images in the paper, C over all modalities.
        parameters: the count as the paper or its authors' code prints it, such as `"9.28 M"`; `""` where
            neither does.
    """

    title: str
    image_size: tuple[int, int, int]
    parameters: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def register(paper: str, published: Sequence[Published]) -> Callable[[Network], Network]:
    """Class decorator: a network joins `NETWORKS` under its own name.

    The class gets `paper` and `published` as attributes. It takes `in_channels` and `out_channels` by name,
    has a default for each argument, and its instances have `least_size`, the shortest side of an image in
    pixels, and `image_channels`, the channels of an image over all modalities.

    Args:
        paper: authors, venue and year, such as `"Li et al., ISBI 2021"`.
        published: the paper's networks that the class builds, in the order of tables.
    """

    def join(network: Network) -> Network:
        network.paper = paper
        network.published = tuple(published)
        NETWORKS.add(network.__name__, paper, network)
        return network

    return join

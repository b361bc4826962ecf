"""What a network costs: parameters and multiply-accumulates."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from networks.registry import NETWORKS


def count_parameters(network: nn.Module) -> int:
    """Number of the network's parameters; the statistics of a BatchNorm are not among them."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_gmacs(network: nn.Module, image_size: Sequence[int]) -> float:
    """Multiply-accumulates of the convolutions for one image, in 10^9 (half the floating-point operations).

    Nothing is computed, so a large image takes no time, and the network is left as it is.

    Args:
        network: a network that takes (B, C, H, W).
        image_size: (C, H, W) of the image.
    """
    # Tensors on the meta device have a shape only.
    network = copy.deepcopy(network).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, *image_size, device="meta"))
    return counter.get_flop_counts()["Global"][torch.ops.aten.convolution] / 2 / 1e9


@dataclass(frozen=True)
class Summary:
    """A network of a paper and its cost.

    Args:
        title: what tables call it.
        network: name in `NETWORKS`.
        arguments: with which that class builds it.
        paper: authors, venue and year.
        image_size: (C, H, W) of the images in the paper.
        published: number of parameters as the paper prints it, or `""`.
        parameters: number of parameters here.
        gmacs: multiply-accumulates of the convolutions for one such image, in 10^9.
    """

    title: str
    network: str
    arguments: Mapping[str, Any]
    paper: str
    image_size: tuple[int, int, int]
    published: str
    parameters: int
    gmacs: float


def summarize() -> list[Summary]:
    """Every published network in `NETWORKS`, paper by paper, each built without memory for its weights."""
    summaries = []
    for name in NETWORKS.names:
        for published in NETWORKS[name].published:
            with torch.device("meta"):
                network = NETWORKS[name](**published.arguments)
            summaries.append(
                Summary(
                    title=published.title,
                    network=name,
                    arguments=dict(published.arguments),
                    paper=NETWORKS[name].paper,
                    image_size=published.image_size,
                    published=published.parameters,
                    parameters=count_parameters(network),
                    gmacs=count_gmacs(network, published.image_size),
                )
            )
    return sorted(summaries, key=lambda summary: summary.paper)

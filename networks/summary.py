"""What a network costs: parameters and multiply-accumulates."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


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

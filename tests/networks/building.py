"""The networks as tests build them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from networks import NETWORKS

Variant = Callable[..., nn.Module]


def variants() -> list:
    """Every network as it is by default, and its published variants but for those that differ by a number.

    A number is a width or a group size: these run the same code.
    """
    found = []
    for name in NETWORKS.names:
        network = NETWORKS[name]
        found.append(pytest.param(partial(network), id=name))
        for published in network.published:
            if published.arguments and not any(type(value) is int for value in published.arguments.values()):
                found.append(pytest.param(partial(network, **published.arguments), id=published.title))
    return found


def build(variant: Variant, in_channels: int = 1, out_channels: int = 1, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return variant(in_channels=in_channels, out_channels=out_channels)


def fit_norms(network: nn.Module, channels: int, least_size: int) -> nn.Module:
    """Give the norms the statistics of their features, as a training does; in eval mode after that.

    The images are not too small, and differ in brightness and contrast: a norm would else divide by next to
    nothing behind the mean over an image, or where a ReLU is silent on all of them.
    """
    side = max(2 * least_size, 64)
    noise = torch.randn(8, channels, side, side)
    update_bn([noise * torch.rand(8, 1, 1, 1) + torch.randn(8, 1, 1, 1)], network)
    return network.eval()


def settled(variant: Variant) -> nn.Module:
    """A network of one channel and one class as after training, in eval mode."""
    network = build(variant)
    return fit_norms(network, network.image_channels, network.least_size)


def images(network: nn.Module, height: int = 0, width: int = 0, batch: int = 2) -> torch.Tensor:
    """Random images, the same at every call.

    Without a size their two sides are odd, so that every pooling and every skip meets odd ones.
    """
    least = network.least_size
    size = (height or 2 * least + 1, width or 3 * least - 1)
    return torch.randn(batch, network.image_channels, *size, generator=torch.Generator().manual_seed(1))


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)

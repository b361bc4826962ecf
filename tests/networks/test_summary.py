from __future__ import annotations

import pytest
import torch
from torch import nn

from networks import PlainUNet, count_gmacs, count_parameters


def test_parameters_leave_out_the_statistics_of_a_norm():
    assert count_parameters(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))) == (8 * 3 * 9 + 8) + 16


@pytest.mark.parametrize(
    ("layer", "image_size", "macs"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (3, 10, 12), 10 * 12 * 8 * 3 * 9),
        (nn.Conv2d(6, 6, 2, groups=6), (6, 5, 5), 4 * 4 * 6 * 4),
        (nn.Conv2d(4, 8, 1, groups=2), (4, 5, 5), 5 * 5 * 8 * 2),
        (nn.ConvTranspose2d(4, 2, 2, stride=2), (4, 5, 5), 5 * 5 * 4 * 2 * 4),
    ],
    ids=["dense", "depthwise", "group", "transposed"],
)
def test_multiply_accumulates_of_a_convolution(layer, image_size, macs):
    assert count_gmacs(layer, image_size) == macs / 1e9


def test_counting_leaves_the_network_as_it_is():
    network = PlainUNet(1).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    count_gmacs(network, (1, 1536, 1536))
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())

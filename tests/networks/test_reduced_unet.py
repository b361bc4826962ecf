from __future__ import annotations

import pytest
import torch
from torch import nn

from networks import ReducedUNet, count_parameters
from networks.blocks import Residual


@pytest.mark.parametrize(("preset", "count"), [("published_count", 2_035_559), ("literal_text", 5_257_479)])
def test_number_of_parameters(preset, count):
    assert count_parameters(ReducedUNet(preset=preset)) == count


def test_default_is_the_published_count():
    assert count_parameters(ReducedUNet()) == 2_035_559


def test_parameters_of_further_channels_and_classes():
    # A channel of the image: BatchNorm 2, 2x2 depthwise 4, pointwise and shortcut 64 each.
    # A class: 64 and a bias.
    assert count_parameters(ReducedUNet(in_channels=4, out_channels=3)) == 2_035_559 + 3 * 134 + 2 * 65


@pytest.mark.parametrize(
    ("preset", "down", "up", "below"),
    [
        ("published_count", [64, 128, 256, 512, 512], [256, 128, 64, 64], [512, 256, 128, 16]),
        ("literal_text", [64, 128, 256, 512, 1024], [512, 256, 128, 64], [1024, 512, 256, 32]),
    ],
)
def test_widths_of_each_level(preset, down, up, below):
    network = ReducedUNet(preset=preset).eval()
    with torch.no_grad():
        features = network.encoder(torch.zeros(1, 1, 32, 32))
        assert [f.shape[1] for f in features] == down
        h = features[-1]
        for i, step in enumerate(network.decoder.steps):
            assert step.up(h).shape == (1, below[i], 4 * 2**i, 4 * 2**i)
            h = step(h, features[-2 - i])
            assert h.shape[1] == up[i]


def test_ways_up_have_no_parameters():
    assert [count_parameters(step.up) for step in ReducedUNet().decoder.steps] == [0, 0, 0, 0]


def test_block_is_the_formula_of_the_paper():
    torch.manual_seed(0)
    block = ReducedUNet().encoder.levels[0].eval()
    norm, (first, second), shortcut = block[0], (block[1].body[0], block[1].body[2]), block[1].shortcut
    x = torch.randn(1, 1, 9, 9)
    h = norm(x)
    torch.testing.assert_close(block(x), torch.relu(second(torch.relu(first(h))) + shortcut(h)))


def test_shortcut_has_a_convolution_only_where_the_width_changes():
    shortcuts = [type(m.shortcut) for m in ReducedUNet().modules() if isinstance(m, Residual)]
    # The bottom takes 512 channels and gives 512.
    assert shortcuts == [nn.Conv2d] * 4 + [nn.Identity] + [nn.Conv2d] * 4


def test_dropout_is_on_the_long_way_of_each_block():
    rates = [m.body[-1].p for m in ReducedUNet(dropout=0.2).modules() if isinstance(m, Residual)]
    assert rates == [0.2] * 9
    assert all(m.body[-1].p == 0.05 for m in ReducedUNet().modules() if isinstance(m, Residual))


def test_unknown_preset_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match="published_count, literal_text, got 'tiny'"):
        ReducedUNet(preset="tiny")

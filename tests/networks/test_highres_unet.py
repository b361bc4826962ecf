from __future__ import annotations

import pytest
import torch
from torch import nn

from networks import count_parameters
from networks.blocks import Residual, SeparableConv, SeparableUp, TransposedUp
from networks.highres_unet import HighResUNet


def without_memory(**arguments) -> HighResUNet:
    """A network whose tensors have a shape only; that of width 64 would take 2.4 GB."""
    with torch.device("meta"):
        return HighResUNet(**arguments).eval()


@pytest.mark.parametrize(
    ("width", "separable", "residual", "count"),
    [
        (64, False, False, 598_379_969),
        (16, False, False, 37_417_841),
        (16, True, False, 4_649_098),
        (16, True, True, 5_350_026),
    ],
)
def test_number_of_parameters(width, separable, residual, count):
    network = without_memory(width=width, separable=separable, residual=residual)
    assert count_parameters(network) == count


def test_default_is_the_network_of_the_paper():
    assert count_parameters(without_memory()) == 5_350_026


@pytest.mark.parametrize("published", HighResUNet.published, ids=lambda published: published.title)
def test_published_networks_have_the_counts_of_the_paper(published):
    millions = float(published.parameters.removesuffix(" M"))
    assert count_parameters(without_memory(**published.arguments)) / 1e6 == pytest.approx(millions, rel=0.02)


def test_parameters_of_further_channels_and_classes():
    # A channel of the image: 3x3 depthwise 9, pointwise and shortcut 16 each. A class: 16 and a bias.
    more = without_memory(in_channels=4, out_channels=3)
    assert count_parameters(more) == 5_350_026 + 3 * 41 + 2 * 17


def test_mammogram_has_24_x_24_pixels_at_the_bottom():
    network = without_memory()
    assert network.least_size == 64
    mammogram = torch.empty(1, 1, 1536, 1536, device="meta")
    features = network.encoder(mammogram)
    assert [f.shape[1] for f in features] == [16, 32, 64, 128, 256, 512, 1024]
    assert [f.shape[2] for f in features] == [1536, 768, 384, 192, 96, 48, 24]
    assert network(mammogram).shape == mammogram.shape


@pytest.mark.parametrize(
    ("separable", "conv", "up"), [(True, SeparableConv, SeparableUp), (False, nn.Conv2d, TransposedUp)]
)
def test_three_convolutions_a_level_and_two_at_the_bottom(separable, conv, up):
    network = without_memory(separable=separable, residual=False)
    # A level below the first is its pooling and its block.
    blocks = [level[-1] if i else level for i, level in enumerate(network.encoder.levels)]
    for block, count in zip(blocks, [3, 3, 3, 3, 3, 3, 2], strict=True):
        assert [type(layer) for layer in block] == [conv, nn.BatchNorm2d, nn.ReLU] * count
    for step in network.decoder.steps:
        assert [type(layer) for layer in step.block] == [conv, nn.BatchNorm2d, nn.ReLU] * 3
        assert type(step.up) is up


def test_ways_up_halve_the_width_beside_the_skip():
    network = without_memory()
    assert [step.up.out_channels for step in network.decoder.steps] == [512, 256, 128, 64, 32, 16]
    assert [step.skip.out_channels for step in network.decoder.steps] == [1024, 512, 256, 128, 64, 32]
    assert [step.block[-2].num_features for step in network.decoder.steps] == [512, 256, 128, 64, 32, 16]


def test_residual_is_around_each_block_of_the_encoder_only():
    network = without_memory()
    assert [sum(isinstance(m, Residual) for m in level.modules()) for level in network.encoder.levels] == [
        1
    ] * 7
    assert not any(isinstance(m, Residual) for m in network.decoder.modules())
    assert not any(isinstance(m, Residual) for m in without_memory(residual=False).modules())


def test_level_is_the_sum_of_its_convolutions_and_of_a_1x1_convolution():
    torch.manual_seed(0)
    level = HighResUNet(width=2).encoder.levels[1].eval()
    pool, block = level
    h = pool(torch.randn(1, 2, 12, 12))
    assert h.shape == (1, 2, 6, 6)
    kernel, bias = block.shortcut.weight[:, :, 0, 0], block.shortcut.bias
    shortcut = torch.einsum("oc,bchw->bohw", kernel, h) + bias[:, None, None]
    torch.testing.assert_close(block(h), block.body(h) + shortcut)
    # The sum is not rectified.
    assert block(h).min() < 0


def test_separable_convolutions_have_a_bias_on_the_pointwise_part_only():
    parts = [m for m in without_memory().modules() if isinstance(m, SeparableConv)]
    # 20 in the encoder, 18 in the decoder, 6 ways up.
    assert len(parts) == 44
    assert all(m.depthwise.bias is None and m.pointwise.bias is not None for m in parts)

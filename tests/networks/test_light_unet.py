from __future__ import annotations

import pytest
import torch
from torch import nn

from networks import PlainUNet, count_gmacs, count_parameters


@pytest.mark.parametrize(("in_channels", "published"), [(1, 17_266_241), (3, 17_267_393), (4, 17_267_969)])
def test_plain_unet_has_the_published_number_of_parameters(in_channels, published):
    assert count_parameters(PlainUNet(in_channels)) == published


def test_plain_unet_has_the_published_multiply_accumulates():
    assert round(count_gmacs(PlainUNet(), (3, 256, 256)), 2) == 39.98


def test_plain_unet_has_the_widths_of_the_code_not_of_the_figure():
    network = PlainUNet(1).eval()
    with torch.no_grad():
        features = network.encoder(torch.zeros(1, 1, 16, 16))
    assert [f.shape[1] for f in features] == [64, 128, 256, 512, 512]
    widths = [
        [m.out_channels for m in step.block if isinstance(m, nn.Conv2d)] for step in network.decoder.steps
    ]
    assert widths == [[512, 256], [256, 128], [128, 64], [64, 64]]


def test_plain_unet_drops_features_of_the_bottom_only():
    torch.manual_seed(0)
    network = PlainUNet(1, dropout=0.5).train()
    zeros = [(f == 0).float().mean().item() for f in network.encoder(torch.randn(2, 1, 32, 32))]
    # ReLU after BatchNorm leaves half of the features; dropout half of those.
    assert zeros == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.75], abs=0.05)


def test_plain_unet_with_dropout_loads_the_weights_of_one_without():
    PlainUNet(1, dropout=0.5).load_state_dict(PlainUNet(1).state_dict())

from __future__ import annotations

import pytest
import torch
from torch import nn

from networks import count_gmacs, count_parameters
from networks.blocks import GroupConv
from networks.light_unet import LighterUNet, LightUNet, PlainUNet


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


@pytest.mark.parametrize(("in_channels", "count"), [(1, 10_999_105), (3, 11_000_257), (4, 11_000_833)])
def test_light_unet_has_the_published_number_of_parameters(in_channels, count):
    assert count_parameters(LightUNet(in_channels)) == count


def test_light_unet_has_the_published_multiply_accumulates():
    assert round(count_gmacs(LightUNet(), (3, 256, 256)), 2) == 25.63


LIGHTER = [
    # C, parameters on RGB images, GMAC at 256x256
    (128, 7_944_661, 37.67),
    (64, 4_995_541, 23.78),
    (32, 3_465_685, 14.11),
    (16, 2_700_757, 9.28),
    (8, 2_318_293, 6.87),
    (4, 2_127_061, 5.66),
    (2, 2_031_445, 5.06),
    (1, 1_983_583, 4.75),
]


@pytest.mark.parametrize(("group_size", "parameters", "gmacs"), LIGHTER)
def test_lighter_unet_has_the_published_costs(group_size, parameters, gmacs):
    network = LighterUNet(group_size=group_size)
    assert count_parameters(network) == parameters
    assert round(count_gmacs(network, (3, 256, 256)), 2) == gmacs


@pytest.mark.parametrize(
    ("in_channels", "group_size", "parameters"),
    [
        (1, 128, 7_944_459),
        (1, 2, 2_031_243),
        (1, 1, 1_983_435),
        (4, 128, 7_944_789),
        (4, 2, 2_031_501),
        (4, 1, 1_983_657),
    ],
)
def test_lighter_unet_on_other_images(in_channels, group_size, parameters):
    assert count_parameters(LighterUNet(in_channels, group_size=group_size)) == parameters


def test_lighter_unet_has_128_channels_a_group_by_default():
    assert count_parameters(LighterUNet()) == count_parameters(LighterUNet(group_size=128)) == 7_944_661


def test_each_published_group_size_is_listed_once():
    listed = [published.arguments["group_size"] for published in LighterUNet.published]
    assert listed == [group_size for group_size, _, _ in LIGHTER]


@pytest.mark.parametrize(
    ("in_channels", "group_size", "in_a_group"),
    [(3, 128, 3), (3, 2, 3), (3, 1, 1), (4, 4, 4), (4, 2, 2), (4, 1, 1), (4, 16, 4), (1, 2, 1), (6, 4, 6)],
)
def test_image_is_one_group_where_the_group_size_does_not_divide_it(in_channels, group_size, in_a_group):
    first = next(m for m in LighterUNet(in_channels, group_size=group_size).modules() if type(m) is GroupConv)
    assert first.grouped.in_channels // first.grouped.groups == in_a_group


@pytest.mark.parametrize("group_size", [128, 16, 1])
def test_lighter_unet_has_the_same_group_size_in_each_layer_behind_the_first(group_size):
    sets = [m for m in LighterUNet(group_size=group_size).modules() if isinstance(m, GroupConv)]
    widths = [64, 64, 128, 128, 256, 256, 512, 512, 512, 1024, 512, 512, 256, 256, 128, 128, 64]
    assert [m.grouped.in_channels for m in sets[1:]] == widths
    sizes = [m.grouped.in_channels // m.grouped.groups for m in sets[1:]]
    assert sizes == [min(width, group_size) for width in widths]


@pytest.mark.parametrize(
    ("group_size", "layer", "channels"),
    [
        (0, "encoder level 1, second convolution set", 64),
        (3, "encoder level 1, second convolution set", 64),
        (48, "encoder level 1, second convolution set", 64),
        (100, "encoder level 2, second convolution set", 128),
        (384, "encoder level 4, second convolution set", 512),
        (768, "decoder level 4, first convolution set", 1024),
    ],
)
def test_group_size_that_does_not_fit_is_an_error_that_names_the_layer(group_size, layer, channels):
    message = f"^{layer}: expected a group size that divides its {channels} channels, got {group_size}:"
    with pytest.raises(ValueError, match=message):
        LighterUNet(group_size=group_size)


def conv_sets(network: nn.Module) -> list[nn.Module]:
    """The convolution sets of the blocks, dense or grouped, in the order of their use."""
    blocks = [m for m in network.modules() if type(m) is nn.Sequential]
    return [layer for block in blocks for layer in block if isinstance(layer, nn.Conv2d | GroupConv)]


def as_dense(conv_set: nn.Module) -> dict[str, torch.Tensor]:
    """Weights of the one 3x3 convolution that a convolution set amounts to."""
    if not isinstance(conv_set, GroupConv):
        return conv_set.state_dict()
    grouped, pointwise = conv_set.grouped, conv_set.pointwise.weight[:, :, 0, 0]
    size = grouped.weight.shape[1]
    spread = torch.zeros(grouped.in_channels, grouped.in_channels, 3, 3)
    for channel, kernel in enumerate(grouped.weight):
        start = channel // size * size
        spread[channel, start : start + size] = kernel
    return {
        "weight": torch.einsum("om,mikl->oikl", pointwise, spread),
        "bias": pointwise @ grouped.bias + conv_set.pointwise.bias,
    }


@pytest.mark.parametrize("network_class", [LightUNet, LighterUNet])
def test_network_is_a_plain_unet_with_other_convolution_sets(network_class):
    """A group set is linear, so that a dense convolution with weights made of it has to give the same."""
    torch.manual_seed(0)
    network, plain = network_class().eval(), PlainUNet().eval()
    x = torch.randn(1, 3, 35, 48)
    with torch.no_grad():
        pairs = list(zip(conv_sets(plain), conv_sets(network), strict=True))
        for dense, conv_set in pairs:
            dense.load_state_dict(as_dense(conv_set))
        plain.head.load_state_dict(network.head.state_dict())
        torch.testing.assert_close(network(x), plain(x), atol=1e-5, rtol=1e-4)
        # The features reach the logits.
        assert plain(x).std() > 1e-3
    assert len(pairs) == 18


def test_light_unet_has_a_dense_and_a_depthwise_set_in_each_block():
    sets = conv_sets(LightUNet())
    assert [type(m) for m in sets] == [nn.Conv2d, GroupConv] * 9
    assert all(m.grouped.groups == m.grouped.in_channels for m in sets[1::2])


@pytest.mark.parametrize("network_class", [LightUNet, LighterUNet])
def test_lightweight_unets_drop_features_of_the_bottom_only(network_class):
    rates = [
        m.p for m in network_class(dropout=0.5).encoder.levels[-1].modules() if isinstance(m, nn.Dropout)
    ]
    assert rates == [0.5]
    assert [m.p for m in network_class().modules() if isinstance(m, nn.Dropout)] == [0.0]

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.optim.swa_utils import update_bn

from networks.blocks import Concat
from networks.cells import AttentionGate, NormalCell, ReductionCell
from networks.modular_unet import ModularUNet
from networks.summary import count_parameters

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

ATTENTION = {"skip": "attention"}
NAS = {"conv_block": "nas"}
REDUCTION = {"conv_block": "nas", "down": "nas_reduction"}
EFFICIENT = {"conv_block": "mbconv"}

COMBINATIONS = list(
    itertools.product(("conv", "nas", "mbconv"), ("concat", "attention"), ("maxpool", "nas_reduction"))
)


def tiny(conv_block: str, skip: str, down: str) -> ModularUNet:
    torch.manual_seed(0)
    return ModularUNet(2, 1, conv_block, skip, down, widths=(4, 6, 8))


def count(network: nn.Module, part: type[nn.Module]) -> int:
    return sum(isinstance(m, part) for m in network.modules())


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({}, 8_505_601),
        (ATTENTION, 8_493_389),
        (NAS, 8_534_593),
        (REDUCTION, 8_470_759),
        (EFFICIENT, 8_489_391),
    ],
)
def test_number_of_parameters(arguments, parameters):
    assert count_parameters(ModularUNet(**arguments)) == parameters
    assert parameters == pytest.approx(8.5e6, rel=0.01)


def test_published_are_the_five_networks_of_the_paper():
    assert [p.arguments for p in ModularUNet.published] == [{}, ATTENTION, NAS, REDUCTION, EFFICIENT]


@pytest.mark.parametrize(
    ("arguments", "channel", "of_class"),
    [
        # A channel of the image: 34 3x3 kernels.
        ({}, 9 * 34, 34 + 1),
        (ATTENTION, 9 * 34, 34 + 1),
        # Two squeezes to 16 filters; a cell gives 96 channels.
        (NAS, 2 * 16, 96 + 1),
        # And, since the image is a skip too, two more in the decoder.
        (REDUCTION, 4 * 16, 96 + 1),
    ],
)
def test_parameters_of_further_channels_and_classes(arguments, channel, of_class):
    usual = count_parameters(ModularUNet(**arguments))
    other = count_parameters(ModularUNet(in_channels=7, out_channels=3, **arguments))
    assert other == usual + 3 * channel + 2 * of_class


@pytest.mark.parametrize(
    ("arguments", "down", "up"),
    [
        ({}, [34, 66, 134, 268, 536], [268, 134, 66, 34]),
        (ATTENTION, [34, 66, 134, 266, 532], [266, 134, 66, 34]),
        (NAS, [96, 192, 384, 768, 1536], [768, 384, 192, 96]),
        # The image, three times four filters, the bottom's six.
        (REDUCTION, [4, 64, 128, 260, 1560], [780, 390, 192, 96]),
        (EFFICIENT, [36, 72, 142, 286, 572], [286, 142, 72, 36]),
    ],
)
def test_widths_of_each_level(arguments, down, up):
    network = ModularUNet(**arguments).eval()
    with torch.no_grad():
        features = network.encoder(torch.zeros(1, 4, 16, 16))
        assert [f.shape[1] for f in features] == down
        h = features[-1]
        for i, step in enumerate(network.decoder.steps):
            # A block has the width that comes up to it.
            assert step.up(h).shape == (1, up[i], 2 * 2**i, 2 * 2**i)
            h = step(h, features[-2 - i])
            assert h.shape[1] == up[i]


def test_reduction_cells_take_the_place_of_block_and_pooling():
    network = tiny("nas", "concat", "nas_reduction").eval()
    # Two steps down; two blocks up and the bottom.
    assert count(network, ReductionCell) == 2
    assert count(network, NormalCell) == 3
    assert count(network, nn.Conv2d) == 2 * (2 + 5 * 4) + 3 * (2 + 5 * 4) + 1
    x = torch.randn(1, 2, 8, 8)
    features = network.encoder(x)
    assert features[0] is x
    # The skip is what enters the cell, so one cell gives it.
    assert torch.equal(features[1], network.encoder.levels[1][0](x))


@pytest.mark.parametrize(("skip", "part"), [("concat", Concat), ("attention", AttentionGate)])
def test_each_step_up_has_the_skip(skip, part):
    assert all(type(step.skip) is part for step in tiny("conv", skip, "maxpool").decoder.steps)


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_every_combination_segments_odd_sizes_and_scripts(combination):
    network = tiny(*combination).eval()
    assert network.least_size == 4
    scripted = torch.jit.script(network)
    with torch.no_grad():
        for size in ((4, 5), (15, 10)):
            x = torch.randn(2, 2, *size)
            logits = network(x)
            assert logits.shape == (2, 1, *size)
            torch.testing.assert_close(scripted(x), logits)


@pytest.mark.parametrize("combination", COMBINATIONS)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_every_weight_of_every_combination_receives_a_gradient(combination, training):
    network = tiny(*combination)
    x = torch.rand(4, 2, 15, 13)
    update_bn([x], network)
    network.train(training)(x).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name
        # In training a norm takes away what a bias before it adds.
        if parameter.ndim > 1 or not training:
            assert parameter.grad.any(), name


@pytest.mark.parametrize(
    "combination", [("nas", "attention", "nas_reduction"), ("mbconv", "concat", "maxpool")]
)
def test_parts_beyond_the_default_export_at_any_size(combination):
    network = tiny(*combination).eval()
    sizes = {0: Dim("batch", min=1), 2: Dim("height", min=8), 3: Dim("width", min=8)}
    exported = torch.export.export(network, (torch.randn(2, 2, 9, 11),), dynamic_shapes=(sizes,)).module()
    with torch.no_grad():
        for size in ((2, 2, 9, 11), (1, 2, 8, 15)):
            x = torch.randn(size)
            torch.testing.assert_close(exported(x), network(x))


@pytest.mark.parametrize("option", ["conv_block", "skip", "down"])
def test_unknown_option_is_an_error_that_names_the_known_ones(option):
    known = {
        "conv_block": "conv, nas, mbconv",
        "skip": "concat, attention",
        "down": "maxpool, nas_reduction",
    }
    with pytest.raises(ValueError, match=f"expected a {option} out of {known[option]}, got 'other'"):
        ModularUNet(**{option: "other"})


def test_a_combination_that_is_not_of_the_paper_needs_widths():
    message = r"conv/concat/maxpool, .*mbconv/concat/maxpool\), got nas/attention/maxpool: give its widths"
    with pytest.raises(ValueError, match=message):
        ModularUNet(conv_block="nas", skip="attention")


def test_fewer_than_two_widths_are_an_error():
    with pytest.raises(ValueError, match="expected two or more widths, one for each level, got 1"):
        ModularUNet(widths=[32])

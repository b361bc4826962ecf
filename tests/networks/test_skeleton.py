from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from networks.blocks import Concat, bilinear_up, max_pool
from networks.skeleton import UNetSkeleton, check_size


def conv(channels: int, width: int) -> nn.Module:
    return nn.Conv2d(channels, width, kernel_size=1)


def halving_up(channels: int) -> nn.Module:
    return nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2)


def unchanged(channels: int, width: int) -> nn.Module:
    return nn.Identity()


def recipe(**changes) -> UNetSkeleton:
    """A U-Net of two poolings, of the smallest parts that there are."""
    parts = {
        "encoder": (4, 6, 8),
        "decoder": (5, 3),
        "encoder_block": conv,
        "decoder_block": conv,
        "down": max_pool,
        "up": bilinear_up,
        "skip": Concat,
    }
    torch.manual_seed(0)
    return UNetSkeleton(2, 1, **(parts | changes))


def test_forward_is_the_formula_of_a_unet():
    network = recipe(up=lambda channels: nn.Upsample(scale_factor=2))
    assert network.least_size == 4
    x = torch.randn(2, 2, 8, 12)

    # Six 1x1 convolutions in the order of their use, written out.
    level0, level1, bottom, up1, up0, head = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    h0 = level0(x)
    h1 = level1(F.max_pool2d(h0, 2))
    h2 = bottom(F.max_pool2d(h1, 2))
    g1 = up1(torch.cat([h1, h2.repeat_interleave(2, 2).repeat_interleave(2, 3)], dim=1))
    g0 = up0(torch.cat([h0, g1.repeat_interleave(2, 2).repeat_interleave(2, 3)], dim=1))
    torch.testing.assert_close(network(x), head(g0))


def test_features_have_the_widths_of_the_encoder_and_halve_in_size():
    features = recipe().encoder(torch.zeros(1, 2, 9, 16))
    assert [tuple(f.shape[1:]) for f in features] == [(4, 9, 16), (6, 4, 8), (8, 2, 4)]


def test_a_part_may_change_the_number_of_channels():
    network = recipe(up=halving_up)
    # 8 come up from the bottom as 4, beside 6; then 5 as 2, beside 4.
    assert [step.block.in_channels for step in network.decoder.steps] == [4 + 6, 2 + 4]
    assert network(torch.zeros(1, 2, 7, 5)).shape == (1, 1, 7, 5)


def test_each_level_may_have_a_part_of_its_own():
    network = recipe(up=(halving_up, bilinear_up), encoder_block=(conv, unchanged, conv), encoder=(4, 4, 8))
    assert [type(step.up) for step in network.decoder.steps] == [nn.ConvTranspose2d, nn.Upsample]
    assert network(torch.zeros(1, 2, 4, 4)).shape == (1, 1, 4, 4)


def test_the_image_itself_may_be_a_skip_and_the_way_down_do_the_work():
    """So it is where reduction cells take the place of blocks and poolings."""
    network = recipe(
        encoder=(2, 10, 7),
        encoder_block=(unchanged, unchanged, conv),
        down=(lambda c: nn.Conv2d(c, 10, 2, stride=2), lambda c: nn.Conv2d(c, 20, 2, stride=2)),
    )
    x = torch.randn(1, 2, 8, 8)
    assert network.encoder(x)[0] is x
    assert network(x).shape == (1, 1, 8, 8)


def test_widths_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="expected 2 decoder widths, one less than the encoder's, got 3"):
        recipe(decoder=(5, 4, 3))


@pytest.mark.parametrize(("part", "count"), [("encoder_block", 3), ("down", 2), ("up", 2), ("skip", 2)])
def test_too_few_factories_are_an_error(part, count):
    with pytest.raises(ValueError, match=f"expected one factory, or {count} of them, .* got 1"):
        recipe(**{part: (conv,)})


def test_check_size():
    check_size(torch.empty(1, 1, 16, 16), 16)
    with pytest.raises(ValueError, match=r"at least 16 x 16 pixels, got 20 x 15: pad or resize it"):
        check_size(torch.empty(1, 1, 20, 15), 16)

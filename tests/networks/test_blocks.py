from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d
from torch import nn

from networks.blocks import (
    Concat,
    GroupConv,
    Residual,
    SeparableConv,
    SeparableUp,
    SubPixelUp,
    TransposedUp,
    bilinear_up,
    conv3x3,
    conv_stack,
    max_pool,
)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_conv3x3_keeps_the_size_and_has_a_bias():
    conv = conv3x3(3, 5)
    assert conv(torch.zeros(1, 3, 7, 4)).shape == (1, 5, 7, 4)
    assert parameters(conv) == 5 * 3 * 9 + 5


@pytest.mark.parametrize(("kernel_size", "before", "after"), [(2, 0, 1), (3, 1, 1), (4, 1, 2)])
def test_separable_conv_equals_scipy(kernel_size, before, after):
    torch.manual_seed(0)
    conv = SeparableConv(2, 3, kernel_size).double()
    x = torch.randn(1, 2, 6, 5, dtype=torch.float64)

    depthwise = conv.depthwise.weight.detach().numpy()
    pointwise = conv.pointwise.weight.detach().numpy()[:, :, 0, 0]
    padded = np.pad(x[0].numpy(), ((0, 0), (before, after), (before, after)))
    each = np.stack([correlate2d(padded[c], depthwise[c, 0], mode="valid") for c in range(2)])
    expected = np.einsum("oc,chw->ohw", pointwise, each) + conv.pointwise.bias.detach().numpy()[:, None, None]

    np.testing.assert_allclose(conv(x)[0].detach().numpy(), expected, atol=1e-12)


def test_separable_conv_has_a_bias_on_the_pointwise_part_only():
    assert parameters(SeparableConv(8, 16, kernel_size=2)) == 8 * 4 + 8 * 16 + 16


def same_size_correlation(x: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Sum over channels: (C, H, W) with one 3x3 kernel a channel, (C, 3, 3), to (H, W)."""
    return sum(correlate2d(channel, kernel, mode="same") for channel, kernel in zip(x, kernels, strict=True))


@pytest.mark.parametrize("group_size", [1, 2, 4])
def test_group_conv_equals_scipy(group_size):
    torch.manual_seed(0)
    conv = GroupConv(4, 3, group_size).double()
    x = torch.randn(1, 4, 6, 5, dtype=torch.float64)

    kernels, bias = (p.detach().numpy() for p in conv.grouped.parameters())
    pointwise, pointwise_bias = (p.detach().numpy() for p in conv.pointwise.parameters())
    groups = [slice(c // group_size * group_size, (c // group_size + 1) * group_size) for c in range(4)]
    each = np.stack([same_size_correlation(x[0].numpy()[groups[c]], kernels[c]) + bias[c] for c in range(4)])
    expected = np.einsum("oc,chw->ohw", pointwise[:, :, 0, 0], each) + pointwise_bias[:, None, None]

    np.testing.assert_allclose(conv(x)[0].detach().numpy(), expected, atol=1e-12)


def test_group_conv_has_a_bias_on_both_parts():
    assert parameters(GroupConv(8, 16, group_size=2)) == (8 * 2 * 9 + 8) + (8 * 16 + 16)


def test_fewer_channels_than_a_group_are_one_group():
    assert GroupConv(8, 16, group_size=32).grouped.groups == 1


@pytest.mark.parametrize(("channels", "group_size"), [(8, 3), (9, 8), (8, 0), (8, -2)])
def test_group_size_that_does_not_divide_the_channels_is_an_error(channels, group_size):
    message = f"stem: expected a group size that divides its {channels} channels, got {group_size}: choose"
    with pytest.raises(ValueError, match=message):
        GroupConv(channels, 4, group_size, layer="stem")


def test_conv_stack_is_convolution_norm_relu_for_each_width():
    torch.manual_seed(0)
    stack = conv_stack((3, 5, 4), conv3x3)
    assert [type(layer) for layer in stack] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2
    assert parameters(stack) == (5 * 3 * 9 + 5 + 10) + (4 * 5 * 9 + 4 + 8)

    first = stack[:3](10 + torch.randn(8, 3, 9, 9))
    # What BatchNorm and ReLU make of anything: half of a standard normal distribution.
    assert first.min() == 0
    assert first.square().mean().item() == pytest.approx(0.5, abs=0.05)


def test_residual_adds_both_ways():
    x = torch.tensor([[1.0, -2.0]])
    assert torch.equal(Residual(nn.ReLU(), nn.Identity())(x), torch.tensor([[2.0, -2.0]]))


def test_max_pool_leaves_out_an_odd_last_row_and_column():
    x = torch.arange(25.0).reshape(1, 1, 5, 5)
    assert max_pool(1)(x).tolist() == [[[[6, 8], [16, 18]]]]


def test_bilinear_up_keeps_the_corners():
    x = torch.tensor([[[[0.0, 3.0], [6.0, 9.0]]]])
    rows = [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8, 9]]
    torch.testing.assert_close(bilinear_up(1)(x), torch.tensor([[rows]]).float())


def test_transposed_up_turns_each_pixel_into_its_kernel():
    torch.manual_seed(0)
    up = TransposedUp(4).double()
    assert up.out_channels == 2
    x = torch.randn(1, 4, 3, 5, dtype=torch.float64)
    weight, bias = (p.detach().numpy() for p in up.parameters())
    expected = [sum(np.kron(x[0, i].numpy(), weight[i, o]) for i in range(4)) + bias[o] for o in range(2)]
    np.testing.assert_allclose(up(x)[0].detach().numpy(), expected, atol=1e-12)


def test_separable_up_repeats_pixels_then_convolves():
    torch.manual_seed(0)
    up = SeparableUp(6)
    assert up.out_channels == 3
    x = torch.randn(2, 6, 3, 4)
    repeated = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(up(x), up.conv(repeated))
    assert up(x).shape == (2, 3, 6, 8)
    # 2x2 depthwise without a bias, pointwise with one.
    assert parameters(up) == 6 * 4 + (6 * 3 + 3)


@pytest.mark.parametrize("up", [TransposedUp, SeparableUp])
def test_ways_up_that_halve_need_an_even_number_of_channels(up):
    with pytest.raises(ValueError, match="needs an even number of them, got 5: change the width"):
        up(5)


def test_sub_pixel_up_lays_four_channels_side_by_side():
    up = SubPixelUp(8)
    assert up.out_channels == 2
    x = torch.arange(8.0).reshape(1, 8, 1, 1)
    assert up(x).tolist() == [[[[0, 1], [2, 3]], [[4, 5], [6, 7]]]]


def test_sub_pixel_up_needs_a_multiple_of_four():
    with pytest.raises(ValueError, match="multiple of 4 channels, got 6"):
        SubPixelUp(6)


def test_concat_puts_the_encoder_first_and_zeros_at_the_bottom_right():
    concat = Concat(up_channels=2, skip_channels=1)
    assert concat.out_channels == 3
    joined = concat(torch.full((1, 2, 2, 2), 2.0), torch.ones(1, 1, 3, 4))
    up = [[2, 2, 0, 0], [2, 2, 0, 0], [0, 0, 0, 0]]
    assert joined.tolist() == [[[[1] * 4] * 3, up, up]]

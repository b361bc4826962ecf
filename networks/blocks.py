"""The parts that a U-Net is joined from: convolution blocks, ways down, ways up and skips.

A part that gives another number of channels than it takes says so in its `out_channels`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn


def conv3x3(in_channels: int, out_channels: int) -> nn.Module:
    """A dense 3x3 convolution with a bias that keeps the size."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)


class SeparableConv(nn.Sequential):
    """A depthwise convolution without a bias, then a pointwise one with a bias; keeps the size.

    For an even kernel the zeros after the last row and column are one more than those before the first.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the depthwise kernel in pixels.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            # padding="same" would do this too, but warns at every start that it does.
            self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.depthwise = nn.Conv2d(
            in_channels,
            in_channels,
            kernel_size,
            padding=(kernel_size - 1) // 2,
            groups=in_channels,
            bias=False,
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, kernel_size=1)


class GroupConv(nn.Sequential):
    """A 3x3 convolution within groups of channels, then a pointwise one over all of them; keeps the size.

    Both have a bias, and nothing stands between them. Groups of one channel make it depthwise separable.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        group_size: channels of a group; fewer channels than that are one group.
        layer: what an error calls this convolution.

    Raises:
        ValueError: if `group_size` does not divide `in_channels`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, group_size: int, layer: str = "group convolution"
    ) -> None:
        size = min(group_size, in_channels)
        if size < 1 or in_channels % size:
            raise ValueError(
                f"{layer}: expected a group size that divides its {in_channels} channels, got {group_size}: "
                "choose a divisor"
            )
        super().__init__()
        self.grouped = nn.Conv2d(
            in_channels, in_channels, kernel_size=3, padding=1, groups=in_channels // size
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, kernel_size=1)


def conv_stack(widths: Sequence[int], conv: Callable[[int, int], nn.Module]) -> nn.Sequential:
    """Convolution sets one after the other, each with BatchNorm and ReLU behind it.

    Args:
        widths: channels of the input, then of each set's output; `(64, 128, 128)` is two sets.
        conv: makes the convolutions of a set from its channels in and out.
    """
    stack = nn.Sequential()
    for channels, width in itertools.pairwise(widths):
        stack.extend([conv(channels, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True)])
    return stack


class Residual(nn.Module):
    """`body(x) + shortcut(x)`.

    Args:
        body: the long way.
        shortcut: the short way, which gives the same shape; `nn.Identity()` where the body keeps it.
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + self.shortcut(x)


def max_pool(channels: int) -> nn.Module:
    """Down: the largest of each 2x2 pixels; a last odd row or column is left out."""
    return nn.MaxPool2d(2)


def bilinear_up(channels: int) -> nn.Module:
    """Up: twice the size by bilinear interpolation between the centres of the corner pixels."""
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)


class TransposedUp(nn.ConvTranspose2d):
    """Up: a transposed 2x2 convolution with a bias, which doubles the size and halves the channels.

    Args:
        channels: channels of the input, even.

    Raises:
        ValueError: if `channels` is odd.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, _half(channels), kernel_size=2, stride=2)


class SeparableUp(nn.Sequential):
    """Up: each pixel becomes 2x2 pixels, then a separable 2x2 convolution halves the channels.

    Args:
        channels: channels of the input, even.

    Raises:
        ValueError: if `channels` is odd.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = _half(channels)
        self.nearest = nn.Upsample(scale_factor=2, mode="nearest")
        self.conv = SeparableConv(channels, self.out_channels, kernel_size=2)


class SubPixelUp(nn.PixelShuffle):
    """Up: four channels become the 2x2 pixels of one (Shi et al., 2016), without parameters.

    Args:
        channels: channels of the input, a multiple of 4.

    Raises:
        ValueError: if `channels` is not a multiple of 4.
    """

    def __init__(self, channels: int) -> None:
        if channels % 4:
            raise ValueError(
                f"sub-pixel upsampling needs a multiple of 4 channels, got {channels}: change the width"
            )
        super().__init__(upscale_factor=2)
        self.out_channels = channels // 4


def pad_to(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`x` with zeros at the bottom and right, in the size of `like`, where a pooling met an odd side."""
    right, bottom = like.shape[-1] - x.shape[-1], like.shape[-2] - x.shape[-2]
    return F.pad(x, [0, right, 0, bottom])


class Concat(nn.Module):
    """Skip: the encoder's features, then the decoder's, zero-padded at the bottom right to the same size.

    Args:
        up_channels: channels that come up from the decoder.
        skip_channels: channels that come across from the encoder.
    """

    def __init__(self, up_channels: int, skip_channels: int) -> None:
        super().__init__()
        self.out_channels = skip_channels + up_channels

    def forward(self, up: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Join (B, U, h, w) and (B, S, H, W), with h <= H and w <= W, to (B, S + U, H, W)."""
        return torch.cat([skip, pad_to(up, skip)], dim=1)


def _half(channels: int) -> int:
    """The channels that leave a way up which halves them."""
    if channels % 2:
        raise ValueError(
            f"upsampling that halves the channels needs an even number of them, got {channels}: "
            "change the width"
        )
    return channels // 2

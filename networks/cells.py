"""The cells that architecture searches found, as ConvBlock and DownOp of a U-Net, and the attention gate."""

from __future__ import annotations

import torch
from monai.networks.nets.attentionunet import AttentionBlock
from monai.networks.nets.efficientnet import MBConvBlock
from torch import nn

from networks.blocks import pad_to

EPS = 1e-3
"""What the norms of NASNet and EfficientNet add to the variance."""


def squeeze(in_channels: int, filters: int) -> nn.Sequential:
    """ReLU, a 1x1 convolution without a bias, BatchNorm: brings an input of a cell to the cell's filters."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, filters, kernel_size=1, bias=False),
        nn.BatchNorm2d(filters, eps=EPS),
    )


def separable_twice(filters: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """ReLU, a depthwise and a pointwise convolution without a bias, BatchNorm; then the same again.

    Args:
        filters: channels of the input and of the output.
        kernel_size: side of the depthwise kernels in pixels, an odd number.
        stride: of the first depthwise convolution, 1 or 2; 2 halves the size, an odd one is rounded down.
    """
    sets = nn.Sequential()
    for step in (stride, 1):
        sets.append(nn.ReLU())
        if step == 2:
            # A kernel that stands on the second pixel, the fourth and so on rounds an odd size down, as
            # `max_pool` does; on the first, the third and so on it would round it up.
            sets.append(nn.ZeroPad2d(((kernel_size - 3) // 2, (kernel_size - 1) // 2) * 2))
            padding = 0
        else:
            padding = (kernel_size - 1) // 2
        sets.extend(
            [
                nn.Conv2d(
                    filters, filters, kernel_size, stride=step, padding=padding, groups=filters, bias=False
                ),
                nn.Conv2d(filters, filters, kernel_size=1, bias=False),
                nn.BatchNorm2d(filters, eps=EPS),
            ]
        )
    return sets


def every_second(x: torch.Tensor) -> torch.Tensor:
    """The second, fourth, ... row and column: half of the size, an odd one is rounded down."""
    return x[:, :, 1::2, 1::2]


def filters_of(out_channels: int, branches: int, cell: str) -> int:
    """The filters of a cell that lays `branches` of them side by side."""
    if out_channels % branches:
        raise ValueError(
            f"a {cell} cell gives a multiple of {branches} channels, got {out_channels}: change the width"
        )
    return out_channels // branches


class NormalCell(nn.Module):
    """The normal cell of NASNet-A as a ConvBlock: keeps the size.

    NASNet gives a cell the outputs of the two cells before it. A block of a U-Net has one input, so both of
    the cell's inputs, `h` and `p`, are that one, each squeezed by a 1x1 convolution of its own.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, six times the cell's filters.

    Raises:
        ValueError: if `out_channels` is not a multiple of 6.

    Source:
        B. Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition", CVPR 2018,
        arXiv:1707.07012, figure 4.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        filters = filters_of(out_channels, 6, "normal")
        self.squeeze_h = squeeze(in_channels, filters)
        self.squeeze_p = squeeze(in_channels, filters)
        self.separable0_h = separable_twice(filters, kernel_size=5)
        self.separable0_p = separable_twice(filters, kernel_size=3)
        self.separable1_p5 = separable_twice(filters, kernel_size=5)
        self.separable1_p3 = separable_twice(filters, kernel_size=3)
        self.average = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        self.separable4_h = separable_twice(filters, kernel_size=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn (B, in_channels, H, W) into (B, out_channels, H, W)."""
        h, p = self.squeeze_h(x), self.squeeze_p(x)
        c0 = self.separable0_h(h) + self.separable0_p(p)
        c1 = self.separable1_p5(p) + self.separable1_p3(p)
        c2 = self.average(h) + p
        c3 = 2 * self.average(p)
        c4 = self.separable4_h(h) + h
        return torch.cat([p, c0, c1, c2, c3, c4], dim=1)


class ReductionCell(nn.Module):
    """The reduction cell of NASNet-A as a DownOp: halves the size, an odd one is rounded down.

    Its two inputs, `h` and `p`, are one, as in `NormalCell`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, four times the cell's filters.

    Raises:
        ValueError: if `out_channels` is not a multiple of 4.

    Source:
        B. Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition", CVPR 2018,
        arXiv:1707.07012, figure 4.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        filters = filters_of(out_channels, 4, "reduction")
        self.squeeze_h = squeeze(in_channels, filters)
        self.squeeze_p = squeeze(in_channels, filters)
        self.separable0_h = separable_twice(filters, kernel_size=5, stride=2)
        self.separable0_p = separable_twice(filters, kernel_size=7, stride=2)
        self.separable1_p = separable_twice(filters, kernel_size=7, stride=2)
        self.separable2_p = separable_twice(filters, kernel_size=5, stride=2)
        # Stride 1, then every second pixel: with stride 2 these paddings round an odd size up.
        self.maximum = nn.MaxPool2d(3, stride=1, padding=1)
        self.average = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        self.separable4_c0 = separable_twice(filters, kernel_size=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn (B, in_channels, H, W) into (B, out_channels, H // 2, W // 2)."""
        h, p = self.squeeze_h(x), self.squeeze_p(x)
        maximum_h, average_h = every_second(self.maximum(h)), every_second(self.average(h))
        c0 = self.separable0_h(h) + self.separable0_p(p)
        c1 = maximum_h + self.separable1_p(p)
        c2 = average_h + self.separable2_p(p)
        c3 = self.average(c0) + c1
        c4 = self.separable4_c0(c0) + maximum_h
        return torch.cat([c1, c2, c3, c4], dim=1)


def mbconv(in_channels: int, out_channels: int) -> nn.Module:
    """The inverted bottleneck of EfficientNet as a ConvBlock: keeps the size.

    A 1x1 convolution to six times the channels of the input, a depthwise 3x3 one, squeeze and excitation
    through a quarter of the channels of the input, a 1x1 convolution to those of the output; no biases but
    in the squeeze and excitation, BatchNorm after each of the three, Swish after the first two. The input
    is added where the number of channels stays.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.

    Source:
        M. Tan and Q. V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
        ICML 2019, arXiv:1905.11946.
    """
    return MBConvBlock(
        spatial_dims=2,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=3,
        stride=1,
        image_size=[1, 1],  # With stride 1 the padding is the same for every size.
        expand_ratio=6,
        se_ratio=0.25,
        # EfficientNet averages over some hundred steps (momentum 0.01); a short training would not get there.
        norm=("batch", {"eps": EPS, "momentum": 0.1}),
        drop_connect_rate=0.0,
    )


class AttentionGate(nn.Module):
    """Skip: the encoder's features, each pixel weighted between 0 and 1, then the decoder's.

    The weight is that of an additive attention gate: 1x1 convolutions bring what comes up and what comes
    across to half of the encoder's channels; ReLU of their sum, a 1x1 convolution to one channel, sigmoid.
    Each of the three convolutions has a bias and BatchNorm. What comes up has the size of what comes across
    (the gate needs no resampling), or is zero-padded to it at the bottom right.

    Args:
        up_channels: channels that come up from the decoder.
        skip_channels: channels that come across from the encoder.

    Source:
        O. Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", MIDL 2018,
        arXiv:1804.03999.
    """

    def __init__(self, up_channels: int, skip_channels: int) -> None:
        super().__init__()
        self.out_channels = skip_channels + up_channels
        self.attention = AttentionBlock(
            spatial_dims=2, f_int=max(1, skip_channels // 2), f_g=up_channels, f_l=skip_channels
        )

    def forward(self, up: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Join (B, U, h, w) and (B, S, H, W), with h <= H and w <= W, to (B, S + U, H, W)."""
        up = pad_to(up, skip)
        return torch.cat([self.attention(up, skip), up], dim=1)

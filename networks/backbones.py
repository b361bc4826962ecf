"""Networks made for classification, without their classifier, as backbones of output stride 16.

A backbone turns an image (B, in_channels, H, W) into its features at a 4th of the size and at a 16th, with
`fine_channels` and `coarse_channels`. Both once went down to a 32nd: the last stride of 2 is taken away and
the convolutions behind it are dilated, so that they meet the features that they met before. No pretrained
weights are loaded.
"""

from __future__ import annotations

import torch
from monai.networks.blocks import Convolution
from monai.networks.nets import ResNetFeatures
from monai.networks.nets.resnet import ResNetBottleneck
from torch import nn

from networks.blocks import Residual

MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Table 2 of Sandler et al.: expansion, channels, number of blocks, stride of the first of them."""


class ResNet101(nn.Module):
    """ResNet-101 of MONAI, its last stage dilated instead of strided: 42,500,160 parameters on RGB images.

    The three bottlenecks of the last stage have the rates 2, 4 and 8: the multi-grid 1, 2, 4 of DeepLab v3
    (Chen et al., 2017, section 3.2.1) times the stride that is lost.

    Args:
        in_channels: channels of the image.

    Source:
        K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385;
        L.-C. Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017,
        arXiv:1706.05587.
    """

    fine_channels = 256
    coarse_channels = 2048

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.features = ResNetFeatures("resnet101", pretrained=False, spatial_dims=2, in_channels=in_channels)
        last = self.features.layer4
        last[0].downsample[0].stride = (1, 1)
        for bottleneck, rate in zip(last, (2, 4, 8), strict=True):
            conv = bottleneck.conv2
            conv.stride = (1, 1)
            conv.dilation = conv.padding = (rate, rate)
        # With weights of 1 each bottleneck would add as much as it is given, and 33 of them too much to begin
        # a training from scratch with.
        bottlenecks = [m for m in self.modules() if isinstance(m, ResNetBottleneck)]
        for bottleneck in bottlenecks:
            nn.init.constant_(bottleneck.bn3.weight, len(bottlenecks) ** -0.5)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.features(image)
        return features[1], features[4]


def conv_norm_relu6(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Module:
    """A convolution without a bias, BatchNorm and ReLU6."""
    return Convolution(
        2,
        in_channels,
        out_channels,
        strides=stride,
        kernel_size=kernel_size,
        dilation=dilation,
        groups=groups,
        bias=False,
        norm="batch",
        act=("relu6", {"inplace": True}),
    )


def inverted_residual(
    in_channels: int, out_channels: int, expansion: int, stride: int, dilation: int
) -> nn.Module:
    """The block of MobileNetV2: wider by a 1x1, depthwise 3x3, narrower by a 1x1 without an activation.

    The input is added where the shape stays.
    """
    width = in_channels * expansion
    body = nn.Sequential()
    if expansion > 1:
        body.append(conv_norm_relu6(in_channels, width, kernel_size=1))
    body.extend(
        [
            conv_norm_relu6(width, width, kernel_size=3, stride=stride, dilation=dilation, groups=width),
            nn.Conv2d(width, out_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
    )
    return Residual(body, nn.Identity()) if stride == 1 and in_channels == out_channels else body


class MobileNetV2(nn.Module):
    """MobileNetV2 up to its 320 channels, from stride 16 on dilated: 1,811,712 parameters on RGB images.

    The 1x1 convolution to 1280 channels goes with the classifier: section 6.3 of the paper puts DeepLab's
    head on the 320 channels before it.

    Args:
        in_channels: channels of the image.

    Source:
        M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
        arXiv:1801.04381.
    """

    fine_channels = 24
    coarse_channels = 320

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        channels, reached, rate = 32, 2, 1
        self.fine = nn.Sequential(conv_norm_relu6(in_channels, channels, kernel_size=3, stride=2))
        self.coarse = nn.Sequential()
        for expansion, width, blocks, first_stride in MOBILENET_V2:
            for stride in (first_stride,) + (1,) * (blocks - 1):
                # The block that loses its stride still sees the grid that it was made for, those behind not.
                lost = stride if reached == 16 else 1
                block = inverted_residual(channels, width, expansion, stride // lost, dilation=rate)
                rate *= lost
                reached *= stride // lost
                (self.fine if reached <= 4 else self.coarse).append(block)
                channels = width

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fine = self.fine(image)
        return fine, self.coarse(fine)

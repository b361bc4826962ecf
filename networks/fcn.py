"""The fully convolutional networks that Li et al., ISBI 2021, compare their lightweight U-Nets with."""

from __future__ import annotations

import torch
from torch import nn

from networks.blocks import conv3x3, pad_to
from networks.light_unet import PAPER
from networks.registry import Published, register
from networks.skeleton import check_size

VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of each 3x3 convolution of VGG16, stage by stage; a 2x2 max pooling closes a stage."""

UP_WIDTHS = (512, 256, 128, 64, 32)


class VGG16Encoder(nn.Module):
    """The 13 convolutions of VGG16, each with a bias and ReLU, without its fully connected layers.

    They begin with the normal distribution of He et al. (2015): no norm keeps the scale of their features.

    Args:
        in_channels: channels of the image.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        channels = in_channels
        for widths in VGG16:
            stage = nn.Sequential()
            for width in widths:
                conv = conv3x3(channels, width)
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
                nn.init.zeros_(conv.bias)
                stage.extend([conv, nn.ReLU(inplace=True)])
                channels = width
            self.stages.append(stage.append(nn.MaxPool2d(2)))

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Turn an image into itself and the features behind each of the five poolings, the finest first."""
        features = [image]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features


class UpStage(nn.Module):
    """Twice the size: transposed 3x3 convolution, ReLU, the skip if there is one, BatchNorm.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, and of the skip.
        add_skip: whether the encoder's features are added.
    """

    def __init__(self, in_channels: int, out_channels: int, add_skip: bool) -> None:
        super().__init__()
        self.add_skip = add_skip
        self.up = nn.Sequential(
            nn.ConvTranspose2d(
                in_channels, out_channels, kernel_size=3, stride=2, padding=1, output_padding=1
            ),
            nn.ReLU(inplace=True),
        )
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, h: torch.Tensor, h_encoder: torch.Tensor) -> torch.Tensor:
        """Bring `h` to the size of `h_encoder`, with zeros for a row or column that a pooling left out."""
        h = pad_to(self.up(h), h_encoder)
        if self.add_skip:
            h = h + h_encoder
        return self.norm(h)


class FCN(nn.Module):
    """VGG16's convolutions, five transposed convolutions back to the image's size, a 1x1 classifier.

    Args:
        in_channels: channels of the image.
        out_channels: number of classes.
        skips: how many of the first ways up add the encoder's features.

    Attributes:
        least_size: the shortest side of an image in pixels.
        image_channels: channels of an image.
    """

    def __init__(self, in_channels: int, out_channels: int, skips: int) -> None:
        super().__init__()
        self.least_size = 2 ** len(VGG16)
        self.image_channels = in_channels
        self.encoder = VGG16Encoder(in_channels)
        self.decoder = nn.ModuleList()
        channels = VGG16[-1][-1]
        for i, width in enumerate(UP_WIDTHS):
            self.decoder.append(UpStage(channels, width, add_skip=i < skips))
            channels = width
        self.classifier = nn.Conv2d(channels, out_channels, kernel_size=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Segment images.

        Args:
            image: (B, in_channels, H, W), H and W of at least `least_size` pixels.

        Returns:
            Logits, (B, out_channels, H, W).

        Raises:
            ValueError: if H or W is less than `least_size`.
        """
        check_size(image, self.least_size)
        features = self.encoder(image)
        h = features[-1]
        for i, stage in enumerate(self.decoder):
            h = stage(h, features[-2 - i])
        return self.classifier(h)


@register(PAPER, [Published("FCN32s", (3, 256, 256), "")])
class FCN32s(FCN):
    """FCN-32s as Li et al. compare with it: 18,643,713 parameters on RGB images, as in FCN-16s and FCN-8s.

    The 13 convolutions of VGG16 and their five poolings lead to 512 channels at a 32nd of the size. Five
    transposed 3x3 convolutions of stride 2 with 512, 256, 128, 64 and 32 channels, each with ReLU and then
    BatchNorm, lead back to the image's size without any skip; a 1x1 convolution gives the logits. Where a
    pooling met an odd side, zeros stand for the row or column that it left out.

    Long et al. (2015), whose name it bears, keep VGG16's fully connected layers as convolutions, turn their
    features into class scores first and upsample these scores, by 32 in one step that begins as bilinear
    interpolation. The form here, common in public code, is the one of the baselines of Li et al. No
    pretrained weights are loaded: the convolutions of VGG16 begin with the normal distribution of He et al.
    (2015).

    Args:
        in_channels: channels of the image.
        out_channels: number of classes.

    Shape:
        Image (B, in_channels, H, W), H and W of at least 32 pixels, to logits (B, out_channels, H, W).

    Raises:
        ValueError: in `forward`, if H or W is less than `least_size`.

    Example:
        >>> FCN32s()(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 1, 64, 64])

    Source:
        J. Long et al., "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015,
        arXiv:1411.4038; K. Simonyan and A. Zisserman, "Very Deep Convolutional Networks for Large-Scale
        Image Recognition", ICLR 2015, arXiv:1409.1556 (VGG16, configuration D); Y. Li et al., "Lightweight
        U-Net for Lesion Segmentation in Ultrasound Images", ISBI 2021, doi:10.1109/ISBI48211.2021.9434086.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 1) -> None:
        super().__init__(in_channels, out_channels, skips=0)


@register(PAPER, [Published("FCN16s", (3, 256, 256), "")])
class FCN16s(FCN):
    """FCN-16s as Li et al. compare with it: 18,643,713 parameters on RGB images.

    `FCN32s` with one skip, which has no parameters: the 512 channels behind VGG16's fourth pooling are added
    to those of the first way up, between its ReLU and its BatchNorm. In Long et al. (2015) the two are class
    scores, each from a 1x1 convolution, when they are added; for the other differences see `FCN32s`.
    No pretrained weights are loaded.

    Args:
        in_channels: channels of the image.
        out_channels: number of classes.

    Shape:
        Image (B, in_channels, H, W), H and W of at least 32 pixels, to logits (B, out_channels, H, W).

    Raises:
        ValueError: in `forward`, if H or W is less than `least_size`.

    Example:
        >>> FCN16s()(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 1, 64, 64])

    Source:
        As of `FCN32s`.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 1) -> None:
        super().__init__(in_channels, out_channels, skips=1)


@register(PAPER, [Published("FCN8s", (3, 256, 256), "")])
class FCN8s(FCN):
    """FCN-8s as Li et al. compare with it: 18,643,713 parameters on RGB images.

    `FCN16s` with a second skip: the 256 channels behind VGG16's third pooling are added to those of the
    second way up, between its ReLU and its BatchNorm. In Long et al. (2015) class scores are added; for the
    other differences see `FCN32s`. No pretrained weights are loaded.

    Args:
        in_channels: channels of the image.
        out_channels: number of classes.

    Shape:
        Image (B, in_channels, H, W), H and W of at least 32 pixels, to logits (B, out_channels, H, W).

    Raises:
        ValueError: in `forward`, if H or W is less than `least_size`.

    Example:
        >>> FCN8s()(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 1, 64, 64])

    Source:
        As of `FCN32s`.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 1) -> None:
        super().__init__(in_channels, out_channels, skips=2)

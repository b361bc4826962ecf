"""DeepLab v3+ (Chen et al., ECCV 2018), which Li et al., ISBI 2021, compare their lightweight U-Nets with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from torch import nn

from networks.backbones import MobileNetV2, ResNet101
from networks.light_unet import PAPER
from networks.registry import Published, register
from networks.skeleton import check_size

BACKBONES = {"resnet101": ResNet101, "mobilenet_v2": MobileNetV2}


def conv_norm_relu(in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1) -> nn.Module:
    """A convolution without a bias, BatchNorm and ReLU; keeps the size."""
    return Convolution(
        2,
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        dilation=dilation,
        bias=False,
        norm="batch",
        act=("relu", {"inplace": True}),
    )


def resize(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`x` by bilinear interpolation, between the centres of the corner pixels, at the size of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: a 1x1, three dilated 3x3 and the mean of the image, side by side.

    Args:
        in_channels: channels of the input.
        width: channels of each branch, and of the output.
        rates: dilation of each 3x3 convolution.
        dropout: probability that a feature of the output is dropped in training.
    """

    def __init__(self, in_channels: int, width: int, rates: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_norm_relu(in_channels, width, kernel_size=1)])
        for rate in rates:
            self.branches.append(conv_norm_relu(in_channels, width, kernel_size=3, dilation=rate))
        self.image_pooling = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), conv_norm_relu(in_channels, width, kernel_size=1)
        )
        joined = width * (len(self.branches) + 1)
        self.project = nn.Sequential(conv_norm_relu(joined, width, kernel_size=1), nn.Dropout(dropout))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pyramid = [branch(x) for branch in self.branches]
        pyramid.append(self.image_pooling(x).expand(-1, -1, x.shape[-2], x.shape[-1]))
        return self.project(torch.cat(pyramid, dim=1))


class Decoder(nn.Module):
    """The context at the size of the fine features, joined with them, through two 3x3 to the logits.

    Args:
        context_channels: channels that come from the ASPP, and of the two convolutions.
        fine_channels: channels of the backbone's features at a 4th of the image's size.
        reduced: channels that the fine features are reduced to, so that they do not outweigh the context.
        out_channels: number of classes.
    """

    def __init__(self, context_channels: int, fine_channels: int, reduced: int, out_channels: int) -> None:
        super().__init__()
        self.reduce = conv_norm_relu(fine_channels, reduced, kernel_size=1)
        self.refine = nn.Sequential(
            conv_norm_relu(context_channels + reduced, context_channels, kernel_size=3),
            conv_norm_relu(context_channels, context_channels, kernel_size=3),
        )
        self.classifier = nn.Conv2d(context_channels, out_channels, kernel_size=1)

    def forward(self, context: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([resize(context, fine), self.reduce(fine)], dim=1)
        return self.classifier(self.refine(joined))


@register(
    PAPER,
    [
        Published("DeepLabV3Plus, ResNet-101", (3, 256, 256), "54.7 M"),
        Published("DeepLabV3Plus, MobileNetV2", (3, 256, 256), "", {"backbone": "mobilenet_v2"}),
    ],
)
class DeepLabV3Plus(nn.Module):
    """DeepLab v3+ of output stride 16: 59,339,169 parameters on RGB images with ResNet-101.

    A backbone gives features at a 4th and, with its last stage dilated instead of strided, at a 16th of the
    image's size. Atrous spatial pyramid pooling sees the latter through a 1x1 convolution, three 3x3 ones
    of rates 6, 12 and 18 and the mean over the image, 256 channels each, and projects them to 256. The
    decoder brings this context to a 4th of the image's size, joins it with the fine features, reduced to 48
    channels, and refines both by two 3x3 convolutions of 256; a 1x1 convolution gives the logits, which
    bilinear interpolation brings to the image's size. Every convolution but the last has BatchNorm and no
    bias. Parameters, part by part:

    | backbone | of the backbone | ASPP | decoder | in all |
    |---|---|---|---|---|
    | `"resnet101"` | 42,500,160 | 15,535,104 | 1,303,905 | 59,339,169 |
    | `"mobilenet_v2"` | 1,811,712 | 2,706,432 | 1,292,769 | 5,810,913 |

    Li et al. print 54.7 M for ResNet-101. The public implementation that they cite has 59,339,169 parameters
    with ResNet-101, as this network has, and 54,700,177 with its Xception backbone: the count that they
    print is that of another backbone.

    Chen et al. name ResNet-101 and Xception; for ResNet-101 the rates of the last stage are those of
    DeepLab v3. They leave open the dropout behind the projection: 0.1 is their code's. Their code can make
    the convolutions of ASPP and decoder depthwise separable; here they are dense, as the count has it. How
    Li et al. join MobileNet with DeepLab v3+ is open but for the name; here it is MobileNetV2 up to its 320
    channels, with the same ASPP and decoder.

    No pretrained weights are loaded. Every convolution but the last begins with the normal distribution of
    He et al. (2015), and the BatchNorm that closes a bottleneck of ResNet-101 with a weight of 33 ** -0.5: so
    the sum of the 33 bottlenecks keeps the scale of their input, and training from scratch is stable.

    Args:
        in_channels: channels of the image.
        out_channels: number of classes.
        backbone: `"resnet101"` or `"mobilenet_v2"`.
        dropout: probability that a feature of the ASPP's output is dropped in training.

    Shape:
        Image (B, in_channels, H, W), H and W of at least 16 pixels, to logits (B, out_channels, H, W). In
        training B is at least 2: the mean over one image is one value a channel, too few for BatchNorm.

    Attributes:
        least_size: the shortest side of an image in pixels.
        image_channels: channels of an image.

    Raises:
        ValueError: if there is no such backbone; in `forward`, if H or W is less than `least_size`, or in
            training for a batch of one image, torch's "Expected more than 1 value per channel".

    Example:
        >>> DeepLabV3Plus().eval()(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 1, 64, 64])

    Source:
        L.-C. Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
        Segmentation", ECCV 2018, arXiv:1802.02611; compared with in Y. Li et al., "Lightweight U-Net for
        Lesion Segmentation in Ultrasound Images", ISBI 2021, doi:10.1109/ISBI48211.2021.9434086.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        backbone: str = "resnet101",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"expected a backbone out of {', '.join(BACKBONES)}, got {backbone!r}")
        self.least_size = 16
        self.image_channels = in_channels
        self.backbone = BACKBONES[backbone](in_channels)
        self.aspp = ASPP(self.backbone.coarse_channels, width=256, rates=(6, 12, 18), dropout=dropout)
        self.decoder = Decoder(256, self.backbone.fine_channels, reduced=48, out_channels=out_channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module is not self.decoder.classifier:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

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
        fine, coarse = self.backbone(image)
        return resize(self.decoder(self.aspp(coarse), fine), image)

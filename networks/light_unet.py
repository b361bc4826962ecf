"""The networks of Li et al.: Lightweight U-Net for Lesion Segmentation in Ultrasound Images, ISBI 2021."""

from __future__ import annotations

from torch import nn

from networks.blocks import Concat, bilinear_up, conv3x3, conv_stack, max_pool
from networks.registry import Published, register
from networks.skeleton import UNetSkeleton

PAPER = "Li et al., ISBI 2021"


@register(PAPER, [Published("PlainUNet", (3, 256, 256), "17.27 M")])
class PlainUNet(UNetSkeleton):
    """The U-Net that Li et al. compare their lightweight networks with: 17,267,393 parameters on RGB images.

    Five levels of 64, 128, 256, 512 and 512 channels; two 3x3 convolutions a block, each with a bias,
    BatchNorm and ReLU; in the decoder the first of the two halves the channels that come in. Max pooling
    on the way down, bilinear interpolation between corner pixels on the way up, concatenation of the
    encoder's features with the decoder's, which are zero-padded where a pooling met an odd side.

    The paper's figure shows 1024 channels at the bottom and 2x2 up-convolutions, which would be 31,043,521
    parameters. The counts that the paper gives are those of this network. The authors' code also drops out
    half of the bottom's features; that is an option here.

    Args:
        in_channels: channels of the image.
        out_channels: number of classes.
        dropout: probability that a feature of the bottom is dropped in training; 0.5 in the authors' code.

    Shape:
        Image (B, in_channels, H, W), H and W of at least 16 pixels, to logits (B, out_channels, H, W).

    Raises:
        ValueError: in `forward`, if H or W is less than `least_size`.

    Example:
        >>> PlainUNet()(torch.rand(1, 3, 256, 256)).shape
        torch.Size([1, 1, 256, 256])

    Source:
        Y. Li et al., "Lightweight U-Net for Lesion Segmentation in Ultrasound Images", ISBI 2021,
        doi:10.1109/ISBI48211.2021.9434086.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 1, dropout: float = 0.0) -> None:
        def double(channels: int, width: int) -> nn.Module:
            return conv_stack((channels, width, width), conv3x3)

        def bottom(channels: int, width: int) -> nn.Module:
            return double(channels, width).append(nn.Dropout(dropout))

        def halving(channels: int, width: int) -> nn.Module:
            return conv_stack((channels, channels // 2, width), conv3x3)

        super().__init__(
            in_channels,
            out_channels,
            encoder=(64, 128, 256, 512, 512),
            decoder=(256, 128, 64, 64),
            encoder_block=(double, double, double, double, bottom),
            decoder_block=halving,
            down=max_pool,
            up=bilinear_up,
            skip=Concat,
        )

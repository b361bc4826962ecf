"""The network of Tardy and Mateus: Lightweight U-Net for High-Resolution Breast Imaging, 2019."""

from __future__ import annotations

from functools import partial

from torch import nn

from networks.blocks import (
    Concat,
    Residual,
    SeparableConv,
    SeparableUp,
    TransposedUp,
    conv3x3,
    conv_stack,
    max_pool,
)
from networks.registry import Published, register
from networks.skeleton import BlockFactory, UNetSkeleton

MAMMOGRAM = (1, 1536, 1536)


@register(
    "Tardy and Mateus, 2019",
    [
        Published("HighResUNet", MAMMOGRAM, "5.3 M"),
        Published("HighResUNet, no residuals", MAMMOGRAM, "4.6 M", {"residual": False}),
        Published("HighResUNet, dense", MAMMOGRAM, "37 M", {"separable": False, "residual": False}),
        Published(
            "HighResUNet, dense, width 64",
            MAMMOGRAM,
            "600 M",
            {"width": 64, "separable": False, "residual": False},
        ),
    ],
)
class HighResUNet(UNetSkeleton):
    """The U-Net of Tardy and Mateus for whole mammograms: 5,350,026 parameters on one-channel images.

    Seven levels of 16 to 1024 channels, so that the bottom sees 1536x1536 pixels as 24x24. Three separable
    3x3 convolutions a level, two at the bottom, each with BatchNorm and ReLU; around each block of the
    encoder a short residual. Max pooling on the way down; on the way up nearest upsampling and a separable
    2x2 convolution that halves the channels, then concatenation with the encoder's features.

    The paper counts the parameters of four networks, and each is here:

    | width | separable | residual | parameters  | in the paper |
    |-------|-----------|----------|-------------|--------------|
    | 64    | no        | no       | 598,379,969 | 600 M        |
    | 16    | no        | no       | 37,417,841  | 37 M         |
    | 16    | yes       | no       | 4,649,098   | 4.6 M        |
    | 16    | yes       | yes      | 5,350,026   | 5.3 M        |

    This network is built from the paper alone; no code of its authors was compared. Where the paper leaves a
    choice open, this is the reading that fits all four counts at once: two
    convolutions at the bottom; a bias everywhere but in depthwise convolutions; the residual's short way a
    1x1 convolution without a norm, at the bottom too, but not in the decoder; neither norm nor ReLU behind
    an upsampling; the network without separable convolutions goes up by transposed 2x2 convolutions. Free of
    any count: nothing follows the sum of a residual, and the zero that a 2x2 kernel needs stands after the
    last row and column.

    Args:
        in_channels: channels of the image.
        out_channels: number of classes.
        width: channels of the finest level; each further one has twice as many.
        separable: depthwise separable convolutions; else dense ones.
        residual: a short residual around each block of the encoder, the bottom with them.

    Shape:
        Image (B, in_channels, H, W), H and W of at least 64 pixels, to logits (B, out_channels, H, W).

    Raises:
        ValueError: in `forward`, if H or W is less than `least_size`.

    Example:
        >>> HighResUNet()(torch.rand(1, 1, 256, 256)).shape
        torch.Size([1, 1, 256, 256])

    Source:
        M. Tardy and D. Mateus, "Lightweight U-Net for High-Resolution Breast Imaging", 2019,
        arXiv:2011.13698.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 16,
        separable: bool = True,
        residual: bool = True,
    ) -> None:
        conv = partial(SeparableConv, kernel_size=3) if separable else conv3x3
        widths = tuple(width * 2**level for level in range(7))

        def sets(count: int) -> BlockFactory:
            return lambda channels, out: conv_stack((channels, *[out] * count), conv)

        def shortened(block: BlockFactory) -> BlockFactory:
            return lambda channels, out: Residual(block(channels, out), nn.Conv2d(channels, out, 1))

        encoder_blocks = [sets(3)] * 6 + [sets(2)]
        if residual:
            encoder_blocks = [shortened(block) for block in encoder_blocks]
        super().__init__(
            in_channels,
            out_channels,
            encoder=widths,
            decoder=widths[-2::-1],
            encoder_block=encoder_blocks,
            decoder_block=sets(3),
            down=max_pool,
            up=SeparableUp if separable else TransposedUp,
            skip=Concat,
        )

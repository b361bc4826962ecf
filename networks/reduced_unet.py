"""The network of Pandey et al.: Segmentation of Liver Lesions with Reduced Complexity Deep Models, 2018."""

from __future__ import annotations

from torch import nn

from networks.blocks import Concat, Residual, SeparableConv, SubPixelUp, bilinear_up, max_pool
from networks.registry import Published, register
from networks.skeleton import UNetSkeleton

WIDTHS = {
    "published_count": ((64, 128, 256, 512, 512), (256, 128, 64, 64)),
    "literal_text": ((64, 128, 256, 512, 1024), (512, 256, 128, 64)),
}
"""Preset -> channels of the encoder's and of the decoder's blocks."""


@register(
    "Pandey et al., 2018",
    [
        Published("ReducedUNet", (1, 256, 256), "2 M"),
        Published("ReducedUNet, literal text", (1, 256, 256), "2 M", {"preset": "literal_text"}),
    ],
)
class ReducedUNet(UNetSkeleton):
    """The U-Net of Pandey et al. for liver lesions in CT: 2,035,559 parameters on one-channel images.

    A block is BatchNorm, then a residual: the long way is a 2x2 depthwise separable convolution, ReLU, a
    second such convolution and dropout; the short way a 1x1 convolution where the width changes; ReLU
    follows their sum. Max pooling on the way down. On the way up three bilinear interpolations and a
    sub-pixel one, which have no parameters, each followed by concatenation with the encoder's features.

    The paper's text and its count do not agree, so there are two presets:

    - `"published_count"`, the default: 64, 128, 256, 512, 512 channels down, 256, 128, 64, 64 up. It has
      2,035,559 parameters, the paper's "2 million", 13.8 times fewer than its U-Net. The 1024 channels of
      the text are then the 512 of the bottom with the 512 of the skip beside it.
    - `"literal_text"`: 64, 128, 256, 512, 1024 channels down, 512, 256, 128, 64 up: 5,257,479 parameters.

    This network is built from the paper alone; no code of its authors was compared. Where the paper leaves a
    choice open, this is the reading that the counts agree with: the depthwise
    convolutions have no bias, the pointwise and 1x1 ones have; the sub-pixel step turns the decoder's last
    64 (128) channels into 16 (32) of twice the size, and a whole block follows it; BatchNorm stands in
    front of the first block too, on the image itself. Free of any count: the zero that a 2x2 kernel needs
    stands after the last row and column, and interpolation is between corner pixels.

    Args:
        in_channels: channels of the image.
        out_channels: number of classes.
        preset: `"published_count"` or `"literal_text"`.
        dropout: probability that a feature of a block's long way is dropped in training.

    Shape:
        Image (B, in_channels, H, W), H and W of at least 16 pixels, to logits (B, out_channels, H, W).

    Raises:
        ValueError: if there is no such preset; in `forward`, if H or W is less than `least_size`.

    Example:
        >>> ReducedUNet()(torch.rand(1, 1, 256, 256)).shape
        torch.Size([1, 1, 256, 256])

    Source:
        R. K. Pandey et al., "Segmentation of Liver Lesions with Reduced Complexity Deep Models", 2018,
        arXiv:1805.09233.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        preset: str = "published_count",
        dropout: float = 0.05,
    ) -> None:
        if preset not in WIDTHS:
            raise ValueError(f"expected a preset out of {', '.join(WIDTHS)}, got {preset!r}")
        encoder, decoder = WIDTHS[preset]

        def residual(channels: int, width: int) -> nn.Module:
            body = nn.Sequential(
                SeparableConv(channels, width, kernel_size=2),
                nn.ReLU(inplace=True),
                SeparableConv(width, width, kernel_size=2),
                nn.Dropout(dropout, inplace=True),
            )
            shortcut = nn.Identity() if channels == width else nn.Conv2d(channels, width, kernel_size=1)
            return nn.Sequential(nn.BatchNorm2d(channels), Residual(body, shortcut), nn.ReLU(inplace=True))

        super().__init__(
            in_channels,
            out_channels,
            encoder=encoder,
            decoder=decoder,
            encoder_block=residual,
            decoder_block=residual,
            down=max_pool,
            up=(bilinear_up, bilinear_up, bilinear_up, SubPixelUp),
            skip=Concat,
        )

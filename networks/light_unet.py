"""The networks of Li et al.: Lightweight U-Net for Lesion Segmentation in Ultrasound Images, ISBI 2021."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from networks.blocks import Concat, GroupConv, bilinear_up, conv3x3, conv_stack, max_pool
from networks.registry import Published, register
from networks.skeleton import BlockFactory, UNetSkeleton

PAPER = "Li et al., ISBI 2021"


class _LiUNet(UNetSkeleton):
    """The U-Net that Li et al. draw: their networks differ in a block's two convolution sets only.

    Args:
        in_channels: channels of the image.
        out_channels: number of classes.
        dropout: probability that a feature of the bottom is dropped in training.
        conv_sets: level, such as `"encoder level 1"`, to what makes the first and the second set there.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dropout: float,
        conv_sets: Callable[[str], tuple[BlockFactory, BlockFactory]],
    ) -> None:
        def two_sets(level: str, channels: int, middle: int, width: int) -> nn.Sequential:
            first, second = conv_sets(level)
            return conv_stack((channels, middle), first).extend(conv_stack((middle, width), second))

        def double(level: int) -> BlockFactory:
            return lambda channels, width: two_sets(f"encoder level {level}", channels, width, width)

        def bottom(channels: int, width: int) -> nn.Module:
            return double(5)(channels, width).append(nn.Dropout(dropout))

        def halving(level: int) -> BlockFactory:
            return lambda channels, width: two_sets(f"decoder level {level}", channels, channels // 2, width)

        super().__init__(
            in_channels,
            out_channels,
            encoder=(64, 128, 256, 512, 512),
            decoder=(256, 128, 64, 64),
            encoder_block=(double(1), double(2), double(3), double(4), bottom),
            decoder_block=(halving(4), halving(3), halving(2), halving(1)),
            down=max_pool,
            up=bilinear_up,
            skip=Concat,
        )


@register(PAPER, [Published("PlainUNet", (3, 256, 256), "17,267,393")])
class PlainUNet(_LiUNet):
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
        super().__init__(in_channels, out_channels, dropout, conv_sets=lambda level: (conv3x3, conv3x3))


@register(PAPER, [Published("LightUNet", (3, 256, 256), "11,000,257")])
class LightUNet(_LiUNet):
    """`PlainUNet` with every second convolution depthwise separable: 11,000,257 parameters on RGB images.

    The first convolution of a block stays a dense 3x3; in the place of the second are a depthwise 3x3 and a
    pointwise convolution, each with a bias, without a norm or a ReLU between them.

    Args:
        in_channels: channels of the image.
        out_channels: number of classes.
        dropout: probability that a feature of the bottom is dropped in training; 0.5 in the authors' code.

    Shape:
        Image (B, in_channels, H, W), H and W of at least 16 pixels, to logits (B, out_channels, H, W).

    Raises:
        ValueError: in `forward`, if H or W is less than `least_size`.

    Example:
        >>> LightUNet()(torch.rand(1, 3, 256, 256)).shape
        torch.Size([1, 1, 256, 256])

    Source:
        Y. Li et al., "Lightweight U-Net for Lesion Segmentation in Ultrasound Images", ISBI 2021,
        doi:10.1109/ISBI48211.2021.9434086.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 1, dropout: float = 0.0) -> None:
        depthwise = partial(GroupConv, group_size=1)
        super().__init__(in_channels, out_channels, dropout, conv_sets=lambda level: (conv3x3, depthwise))


@register(
    PAPER,
    [
        Published(f"LighterUNet, C = {size}", (3, 256, 256), printed, {"group_size": size})
        for size, printed in (
            (128, "7,944,661"),
            (64, ""),
            (32, ""),
            (16, ""),
            (8, ""),
            (4, ""),
            (2, ""),
            (1, "1,983,583"),
        )
    ],
)
class LighterUNet(_LiUNet):
    """`PlainUNet` with group convolutions of C channels a group: 2,700,757 parameters on RGB with C = 16.

    In the place of each 3x3 convolution are a 3x3 within groups of C channels, which keeps their number, and
    a pointwise one, which changes it, each with a bias, without a norm or a ReLU between them. C = 1 makes
    them depthwise separable.

    | C   | parameters, RGB | GMAC at 256x256 |
    |-----|-----------------|-----------------|
    | 128 | 7,944,661       | 37.67           |
    | 64  | 4,995,541       | 23.78           |
    | 32  | 3,465,685       | 14.11           |
    | 16  | 2,700,757       | 9.28            |
    | 8   | 2,318,293       | 6.87            |
    | 4   | 2,127,061       | 5.66            |
    | 2   | 2,031,445       | 5.06            |
    | 1   | 1,983,583       | 4.75            |

    Where a layer has fewer channels than C, they are one group. The paper makes the three channels of its
    images one group for each C but 1; on other images, the first layer's channels are one group wherever C
    does not divide them. The paper puts C = 128 forward, as accurate there as the plain network; C = 16 takes
    a quarter of its multiply-accumulates.

    Args:
        in_channels: channels of the image.
        out_channels: number of classes.
        group_size: the paper's C; 128, 64, 32, 16, 8, 4, 2 and 1 there.
        dropout: probability that a feature of the bottom is dropped in training; 0.5 in the authors' code.

    Shape:
        Image (B, in_channels, H, W), H and W of at least 16 pixels, to logits (B, out_channels, H, W).

    Raises:
        ValueError: if a layer behind the first has channels that `group_size` does not divide; in `forward`,
            if H or W is less than `least_size`.

    Example:
        >>> LighterUNet(group_size=16)(torch.rand(1, 3, 256, 256)).shape
        torch.Size([1, 1, 256, 256])

    Source:
        Y. Li et al., "Lightweight U-Net for Lesion Segmentation in Ultrasound Images", ISBI 2021,
        doi:10.1109/ISBI48211.2021.9434086.
    """

    def __init__(
        self, in_channels: int = 3, out_channels: int = 1, group_size: int = 128, dropout: float = 0.0
    ) -> None:
        divides_image = group_size > 0 and in_channels % group_size == 0
        image_group = group_size if divides_image else in_channels

        def group_sets(level: str) -> tuple[BlockFactory, BlockFactory]:
            first_size = image_group if level == "encoder level 1" else group_size
            first = partial(GroupConv, group_size=first_size, layer=f"{level}, first convolution set")
            second = partial(GroupConv, group_size=group_size, layer=f"{level}, second convolution set")
            return first, second

        super().__init__(in_channels, out_channels, dropout, conv_sets=group_sets)
        self.group_size = group_size

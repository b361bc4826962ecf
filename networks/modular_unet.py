"""The networks of Laird, 2019: U-Nets of one size, whose parts are exchanged one by one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from networks.blocks import Concat, conv3x3, conv_stack, max_pool
from networks.cells import AttentionGate, NormalCell, ReductionCell, mbconv
from networks.registry import Published, register
from networks.skeleton import UNetSkeleton


def double_conv(channels: int, width: int) -> nn.Module:
    """Two 3x3 convolutions, each with BatchNorm and ReLU."""
    return conv_stack((channels, width, width), conv3x3)


def unchanged(channels: int, width: int) -> nn.Module:
    """No block: the reduction cells of the way down do its work."""
    return nn.Identity()


CONV_BLOCKS = {"conv": (double_conv, 1), "nas": (NormalCell, 6), "mbconv": (mbconv, 1)}
"""`conv_block` -> factory, and the channels that a block gives for each of its width."""

SKIPS = {"concat": Concat, "attention": AttentionGate}
"""`skip` -> factory."""

DOWNS = ("maxpool", "nas_reduction")
"""`down`."""

WIDTHS = {
    ("conv", "concat", "maxpool"): (34, 66, 134, 268, 536),
    ("conv", "attention", "maxpool"): (34, 66, 134, 266, 532),
    ("nas", "concat", "maxpool"): (16, 32, 64, 128, 256),
    ("nas", "concat", "nas_reduction"): (16, 32, 65, 130, 260),
    ("mbconv", "concat", "maxpool"): (36, 72, 142, 286, 572),
}
"""The paper's networks: (`conv_block`, `skip`, `down`) -> widths that come to its 8.5 million parameters."""

IMAGE = (4, 144, 144)


@register(
    "Laird, 2019",
    [
        Published("ModularUNet", IMAGE, "8.5 M"),
        Published("ModularUNet, Attention U-Net", IMAGE, "8.5 M", {"skip": "attention"}),
        Published("ModularUNet, NAS U-Net", IMAGE, "8.5 M", {"conv_block": "nas"}),
        Published(
            "ModularUNet, NAS Reduction U-Net",
            IMAGE,
            "8.5 M",
            {"conv_block": "nas", "down": "nas_reduction"},
        ),
        Published("ModularUNet, Efficient U-Net", IMAGE, "8.5 M", {"conv_block": "mbconv"}),
    ],
)
class ModularUNet(UNetSkeleton):
    """Laird's U-Nets for brain tumours in four MRI sequences: any ConvBlock, any SkipConn, any DownOp.

    The paper compares five of the twelve combinations, each with 8.5 million parameters, so that the parts
    are compared and not the sizes. These five have default widths, here with the exact counts for
    four-channel images; the other seven work when widths are given:

    | network             | `conv_block` | `skip`        | `down`            | parameters |
    | ------------------- | ------------ | ------------- | ----------------- | ---------- |
    | U-Net, the default  | `"conv"`     | `"concat"`    | `"maxpool"`       | 8,505,601  |
    | Attention U-Net     | `"conv"`     | `"attention"` | `"maxpool"`       | 8,493,389  |
    | NAS U-Net           | `"nas"`      | `"concat"`    | `"maxpool"`       | 8,534,593  |
    | NAS Reduction U-Net | `"nas"`      | `"concat"`    | `"nas_reduction"` | 8,470,759  |
    | Efficient U-Net     | `"mbconv"`   | `"concat"`    | `"maxpool"`       | 8,489,391  |

    - `conv_block`: two 3x3 convolutions, each with a bias, BatchNorm and ReLU; one normal cell of NASNet-A;
      or one inverted bottleneck of EfficientNet.
    - `skip`: concatenation of the encoder's features with the decoder's, or the same behind an additive
      attention gate on the encoder's.
    - `down`: max pooling, or a reduction cell of NASNet-A. A reduction cell takes the place of block and
      pooling together: what enters it is the skip, the image itself at the finest level, and only the
      bottom and the decoder have blocks.

    The way up is a transposed 2x2 convolution to the width of the block that follows it; what it gives is
    zero-padded where a DownOp met an odd side.

    These networks are built from the paper alone; no code of its author was compared. The paper gives the
    number of parameters, not the widths: those in `WIDTHS` are chosen here to meet it,
    about doubling from level to level. Further readings: a cell of NASNet takes the outputs of two earlier
    cells, a block of a U-Net has one input, so the cell takes it twice; cells keep the ReLU that NASNet
    begins them with, at the finest level too, where it hides what is negative in an image, so scale images
    for the NAS networks to numbers above zero; a gate has half as many channels as its skip, with
    BatchNorm.

    Args:
        in_channels: channels of the image.
        out_channels: number of classes.
        conv_block: `"conv"`, `"nas"` or `"mbconv"`.
        skip: `"concat"` or `"attention"`.
        down: `"maxpool"` or `"nas_reduction"`.
        widths: from the finest level to the bottom, two or more; needed where the combination is none of
            the paper's. They are the channels of a block, or the filters of a cell: a normal cell gives six
            times as many channels, a reduction cell, which leads to the next level, four times.

    Shape:
        Image (B, in_channels, H, W), H and W of at least 16 pixels (2 to the power of the poolings), to
        logits (B, out_channels, H, W).

    Raises:
        ValueError: if an option has no such value, if there are no widths for a combination that is none of
            the paper's, or less than two; in `forward`, if H or W is less than `least_size`.

    Example:
        >>> ModularUNet(conv_block="nas", down="nas_reduction")(torch.rand(1, 4, 144, 144)).shape
        torch.Size([1, 1, 144, 144])

    Source:
        D. Laird, 2019, on the brain tumours of the Medical Segmentation Decathlon. The parts: B. Zoph et al.,
        CVPR 2018, arXiv:1707.07012 (cells); M. Tan and Q. V. Le, ICML 2019, arXiv:1905.11946 (inverted
        bottleneck); O. Oktay et al., MIDL 2018, arXiv:1804.03999 (attention gate).
    """

    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 1,
        conv_block: str = "conv",
        skip: str = "concat",
        down: str = "maxpool",
        widths: Sequence[int] | None = None,
    ) -> None:
        for option, value, known in (
            ("conv_block", conv_block, CONV_BLOCKS),
            ("skip", skip, SKIPS),
            ("down", down, DOWNS),
        ):
            if value not in known:
                raise ValueError(f"expected a {option} out of {', '.join(known)}, got {value!r}")
        if widths is None:
            if (conv_block, skip, down) not in WIDTHS:
                published = ", ".join("/".join(combination) for combination in WIDTHS)
                raise ValueError(
                    f"expected a combination of the paper ({published}), got {conv_block}/{skip}/{down}: "
                    "give its widths"
                )
            widths = WIDTHS[conv_block, skip, down]
        if len(widths) < 2:
            raise ValueError(f"expected two or more widths, one for each level, got {len(widths)}: give more")

        block, outputs = CONV_BLOCKS[conv_block]
        channels = [outputs * width for width in widths]
        decoder = channels[-2::-1]
        if down == "maxpool":
            encoder, encoder_block, down_op = channels, block, max_pool
        else:
            # What a level hands on as its skip is then what enters it: the image, or a cell's output.
            reduced = [4 * width for width in widths[:-1]]
            encoder = [in_channels, *reduced[:-1], channels[-1]]
            encoder_block = [*[unchanged] * len(reduced), block]
            down_op = [partial(ReductionCell, out_channels=width) for width in reduced]

        super().__init__(
            in_channels,
            out_channels,
            encoder=encoder,
            decoder=decoder,
            encoder_block=encoder_block,
            decoder_block=block,
            down=down_op,
            up=[
                partial(nn.ConvTranspose2d, out_channels=width, kernel_size=2, stride=2) for width in decoder
            ],
            skip=SKIPS[skip],
        )

"""The skeleton of every U-Net here: four exchangeable parts, joined level by level.

After D. Laird (2019), a U-Net is

    down:  h[i+1] = DownOp(ConvBlock(h[i]))
    up:    h[i+1] = UpOp(ConvBlock(SkipConn(h[i], h_encoder)))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn

BlockFactory = Callable[[int, int], nn.Module]
"""(channels in, channels out) -> ConvBlock."""

ScaleFactory = Callable[[int], nn.Module]
"""(channels in) -> DownOp or UpOp."""

SkipFactory = Callable[[int, int], nn.Module]
"""(channels from below, channels of the encoder) -> SkipConn, called with the tensors in this order."""

Factory = TypeVar("Factory", bound=Callable[..., nn.Module])


def check_size(image: torch.Tensor, least_size: int) -> None:
    """Make sure that an image survives the poolings of a network.

    Args:
        image: (B, C, H, W).
        least_size: the shortest side that the network takes, in pixels.

    Raises:
        ValueError: if H or W is less than `least_size`.
    """
    height, width = image.shape[-2], image.shape[-1]
    if height < least_size or width < least_size:
        raise ValueError(
            f"expected an image of at least {least_size} x {least_size} pixels, got {height} x {width}: "
            "pad or resize it"
        )


class Encoder(nn.Module):
    """The way down: a ConvBlock at each level, a DownOp between two levels.

    Args:
        in_channels: channels of the image.
        widths: channels that leave each level's block, from the finest level to the bottom.
        block: makes the blocks; one factory for all, or one a level.
        down: makes the ways down; one factory for all, or one a step.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        block: BlockFactory | Sequence[BlockFactory],
        down: ScaleFactory | Sequence[ScaleFactory],
    ) -> None:
        super().__init__()
        blocks, downs = _one_each(block, len(widths)), _one_each(down, len(widths) - 1)
        self.levels = nn.ModuleList([blocks[0](in_channels, widths[0])])
        for i in range(1, len(widths)):
            down_op = downs[i - 1](widths[i - 1])
            conv_block = blocks[i](_out_channels(down_op, widths[i - 1]), widths[i])
            self.levels.append(nn.Sequential(down_op, conv_block))

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Turn an image (B, C, H, W) into the features of each level, the finest first."""
        features = []
        h = image
        for level in self.levels:
            h = level(h)
            features.append(h)
        return features


class UpStep(nn.Module):
    """A step of the way up: an UpOp, a SkipConn and a ConvBlock."""

    def __init__(self, up: nn.Module, skip: nn.Module, block: nn.Module) -> None:
        super().__init__()
        self.up = up
        self.skip = skip
        self.block = block

    def forward(self, h: torch.Tensor, h_encoder: torch.Tensor) -> torch.Tensor:
        return self.block(self.skip(self.up(h), h_encoder))


class Decoder(nn.Module):
    """The way up: at each step an UpOp, a SkipConn and a ConvBlock.

    Args:
        encoder_widths: channels of the features that the decoder is given, the finest first.
        widths: channels that leave each step's block, from above the bottom to the finest level.
        block: makes the blocks; one factory for all, or one a step.
        up: makes the ways up; one factory for all, or one a step.
        skip: makes the skips; one factory for all, or one a step.

    Raises:
        ValueError: if there is not one width less than in the encoder.
    """

    def __init__(
        self,
        encoder_widths: Sequence[int],
        widths: Sequence[int],
        block: BlockFactory | Sequence[BlockFactory],
        up: ScaleFactory | Sequence[ScaleFactory],
        skip: SkipFactory | Sequence[SkipFactory],
    ) -> None:
        super().__init__()
        steps = len(encoder_widths) - 1
        if len(widths) != steps:
            raise ValueError(
                f"expected {steps} decoder widths, one less than the encoder's, got {len(widths)}"
            )
        blocks, ups, skips = _one_each(block, steps), _one_each(up, steps), _one_each(skip, steps)
        self.steps = nn.ModuleList()
        below = encoder_widths[-1]
        for i in range(steps):
            up_op = ups[i](below)
            skip_conn = skips[i](_out_channels(up_op, below), encoder_widths[-2 - i])
            conv_block = blocks[i](skip_conn.out_channels, widths[i])
            self.steps.append(UpStep(up_op, skip_conn, conv_block))
            below = widths[i]

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Turn the features of each level, the finest first, into those of the finest level."""
        h = features[-1]
        for i, step in enumerate(self.steps):
            h = step(h, features[-2 - i])
        return h


class UNetSkeleton(nn.Module):
    """A U-Net from its widths and its four parts, closed by a 1x1 convolution that gives the logits.

    A paper's network is a subclass whose `__init__` is the paper's recipe of parts. Each argument that
    takes a factory takes one for every level, or a sequence with one for each, in the order of the widths.

    Args:
        in_channels: channels of the image.
        out_channels: number of classes.
        encoder: channels that leave the encoder's blocks, from the finest level to the bottom.
        decoder: channels that leave the decoder's blocks, from above the bottom to the finest level.
        encoder_block: ConvBlock of the encoder, `(channels in, channels out) -> module`.
        decoder_block: ConvBlock of the decoder, `(channels in, channels out) -> module`.
        down: DownOp, `(channels) -> module`, which halves the size.
        up: UpOp, `(channels) -> module`, which doubles the size.
        skip: SkipConn, `(channels from below, channels of the encoder) -> module`.

    Attributes:
        least_size: the shortest side of an image in pixels, 2 to the number of poolings.
        image_channels: channels of an image.

    Raises:
        ValueError: if the numbers of widths or factories do not fit together.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        encoder: Sequence[int],
        decoder: Sequence[int],
        encoder_block: BlockFactory | Sequence[BlockFactory],
        decoder_block: BlockFactory | Sequence[BlockFactory],
        down: ScaleFactory | Sequence[ScaleFactory],
        up: ScaleFactory | Sequence[ScaleFactory],
        skip: SkipFactory | Sequence[SkipFactory],
    ) -> None:
        super().__init__()
        self.least_size = 2 ** (len(encoder) - 1)
        self.image_channels = in_channels
        self.encoder = Encoder(in_channels, encoder, encoder_block, down)
        self.decoder = Decoder(encoder, decoder, decoder_block, up, skip)
        self.head = nn.Conv2d(decoder[-1], out_channels, kernel_size=1)

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
        return self.head(self.decoder(self.encoder(image)))


def _one_each(factory: Factory | Sequence[Factory], count: int) -> Sequence[Factory]:
    """`count` factories from one for all of them or from one for each."""
    if callable(factory):
        return [factory] * count
    if len(factory) != count:
        raise ValueError(f"expected one factory, or {count} of them, one for each level, got {len(factory)}")
    return factory


def _out_channels(part: nn.Module, in_channels: int) -> int:
    return getattr(part, "out_channels", in_channels)

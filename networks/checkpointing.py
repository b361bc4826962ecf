"""Training in less memory: the features of a block are computed anew when its gradients need them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

RESIZING = (nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d, nn.Upsample, nn.PixelShuffle)
LISTS = (nn.ModuleList, nn.ModuleDict)  # which cannot be called


def checkpoint_activations(network: nn.Module, blocks: Sequence[nn.Module] | None = None) -> nn.Module:
    """Let a network keep no more than the inputs of its blocks between forward and backward pass.

    What lies within a block is computed a second time in the backward pass (Chen et al., "Training Deep Nets
    with Sublinear Memory Cost", 2016, arXiv:1604.06174), so a training step takes about a third more time
    and a part of the memory. Outputs, gradients, what dropout draws and what norms remember of their images
    are those of the plain network; so are the names in `state_dict`. In evaluation, and where no gradient is
    asked for, nothing changes.

    MONAI's `ActivationCheckpointWrapper` wraps a module of one input, gives its weights other names, and lets
    a BatchNorm count each image twice; hence this function.

    Args:
        network: changed in place.
        blocks: parts of it that are computed anew, none within another; by default those of `blocks_of`.

    Returns:
        The network.

    Example:
        >>> from networks import HighResUNet
        >>> network = checkpoint_activations(HighResUNet())
        >>> network(torch.rand(1, 1, 256, 256)).mean().backward()
    """
    for block in blocks_of(network) if blocks is None else blocks:
        # The class's own, so that a second call wraps nothing twice.
        block.forward = functools.partial(_forward, block)
    return network


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The parts of a network that are worth computing anew: its largest ones within one level.

    A part within a level changes the size once at most, by a pooling, a strided convolution or an upsampling;
    one that changes it more often is looked into. Entries of an `nn.ModuleList` are always taken whole, and a
    single layer never, since it keeps little but its input. So a U-Net of `UNetSkeleton` gives the levels of
    its encoder and the steps of its decoder.

    Args:
        network: of any library.
    """
    found: dict[int, nn.Module] = {}
    for child in network.children():
        if isinstance(child, LISTS) or not (isinstance(network, LISTS) or _size_changes(child) <= 1):
            found |= {id(block): block for block in blocks_of(child)}
        elif _layers(child) > 1:
            found[id(child)] = child
    return list(found.values())  # a part that hangs in two places is one block


def _layers(module: nn.Module) -> int:
    return sum(not any(True for _ in layer.children()) for layer in module.modules())


def _size_changes(module: nn.Module) -> int:
    return sum(
        isinstance(layer, RESIZING) or max(_tuple(getattr(layer, "stride", 1)), default=1) > 1
        for layer in module.modules()
    )


def _tuple(stride: Any) -> tuple[int, ...]:
    return tuple(stride) if isinstance(stride, (tuple, list)) else (int(stride),)


def _forward(block: nn.Module, *features: torch.Tensor, **options: Any) -> Any:
    forward = functools.partial(type(block).forward, block)
    if not (block.training and torch.is_grad_enabled()):
        return forward(*features, **options)

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return contextlib.nullcontext(), _unremembered(block)

    return checkpoint(forward, *features, use_reentrant=False, context_fn=contexts, **options)


@contextlib.contextmanager
def _unremembered(block: nn.Module) -> Iterator[None]:
    """Give back to a block's buffers what they hold now: a norm has counted these images already."""
    kept = [(module, name, buffer) for module in block.modules() for name, buffer in module._buffers.items()]
    try:
        for module, name, buffer in kept:
            module._buffers[name] = None if buffer is None else buffer.clone()
        yield
    finally:
        for module, name, buffer in kept:
            module._buffers[name] = buffer

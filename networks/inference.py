"""The same network, faster: norms folded into convolutions, weights in the layout of the fast kernels."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Iterator

import torch
from monai.networks.nets.efficientnet import MBConvBlock
from monai.networks.nets.resnet import ResNetBottleneck, ResNetFeatures
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Place = tuple[nn.Module, str]
"""A module that holds another, and the name under which it does."""

FOLLOWED = {
    ResNetFeatures: (("conv1", "bn1"),),
    ResNetBottleneck: (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
    MBConvBlock: (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")),
}
"""Modules of MONAI -> convolutions and the norms that their `forward` calls next."""


def optimize_for_inference(module: nn.Module) -> nn.Module:
    """Make an equivalent of a trained network that answers faster, on the same device.

    Each BatchNorm that directly follows a convolution, in an `nn.Sequential` or in MONAI's ResNet and MBConv,
    is folded into it. The weights are laid out channels last, which is what the fast kernels of CPUs and of
    GPUs with tensor cores take, and the layers hand on their features in that layout. Where the image itself
    is a skip, as in Laird's NAS Reduction U-Net, give it in that layout too:
    `image.to(memory_format=torch.channels_last)`.

    The time that is left in an eager CPU process on Linux is often that of fresh memory from the kernel, most
    of all with large images. It goes away where the process keeps what it frees: `reuse_freed_memory` of
    `pipelines.allocator`, which is a setting of the whole process and so is not made here.

    Args:
        module: a network, which is left as it is. It calls each `nn.Sequential` as a whole.

    Returns:
        A copy in eval mode, without gradients. Its outputs are those of `module` in eval mode up to rounding
        (1e-4). It can be scripted and exported as `module` can; its state dict is another. A convolution or a
        norm that stands in two places, has hooks or is of a subclass stays as it is.

    Example:
        >>> from networks import PlainUNet
        >>> network = optimize_for_inference(PlainUNet())
        >>> network(torch.rand(1, 3, 256, 256)).shape
        torch.Size([1, 1, 256, 256])
    """
    module = copy.deepcopy(module).eval().requires_grad_(False)
    uses = Counter(id(part) for _, part in module.named_modules(remove_duplicate=False))
    for first, second in list(_neighbours(module)):
        conv, norm = getattr(*first), getattr(*second)
        if not (type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.track_running_stats):
            continue
        once = uses[id(conv)] == uses[id(norm)] == 1
        if once and not (_has_hooks(conv) or _has_hooks(norm)):
            setattr(*first, fuse_conv_bn_eval(conv, norm))
            setattr(*second, nn.Identity())
    return module.to(memory_format=torch.channels_last)


def _neighbours(module: nn.Module) -> Iterator[tuple[Place, Place]]:
    """Two modules of which the second is given what the first one gives."""
    for part in module.modules():
        if _is_chain(part):
            yield from itertools.pairwise(_links(part))
        for first, second in FOLLOWED.get(type(part), ()):
            if hasattr(part, first) and hasattr(part, second):
                yield (part, first), (part, second)


def _is_chain(module: nn.Module | None) -> bool:
    return (
        isinstance(module, nn.Sequential)
        and type(module).forward is nn.Sequential.forward
        and not _has_hooks(module)
    )


def _links(chain: nn.Module) -> Iterator[Place]:
    """What runs one after the other, chains inside the chain unrolled."""
    # `named_children` would name a module that stands here twice once only.
    for name, link in chain._modules.items():
        if _is_chain(link):
            yield from _links(link)
        else:
            yield chain, name


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)

"""Which parts of an image a segmentation hangs on: gradients and class activation maps, through MONAI.

MONAI's classes explain a class of a classifier. Here the class is a region of the output, and its score the
mean logit over it, as in Vinogradova et al., "Towards Interpretable Semantic Segmentation via
Gradient-weighted Class Activation Mapping", AAAI 2020, arXiv:2002.11434 (there the sum).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from monai.visualize import GradCAM, SmoothGrad, VanillaGrad
from torch import nn
from torch.utils.checkpoint import checkpoint
from tqdm import trange

from networks.checkpointing import blocks_of
from pipelines.errors import DataError

SAMPLES, NOISE = 25, 0.15  # of SmoothGrad; the noise as a share of the image's range


Prepare = Callable[[torch.Tensor], torch.Tensor]


class Layer(NamedTuple):
    """A layer that gives features (1, C, H, W): its name in the network, and H and W."""

    name: str
    grid: tuple[int, int]


class MeanLogit(nn.Module):
    """A segmentation network as a classifier of one class, whose score is the mean logit over a region.

    Args:
        network: images (1, C, H, W) to logits (1, K, H, W).
        region: bool, (K, H, W), at least one pixel of it true.
        prepare: what comes between the image and the network, differentiable, (C, H, W) to (C, H, W).

    Shape:
        Image (1, C, H, W) to (1, 1).
    """

    def __init__(self, network: nn.Module, region: torch.Tensor, prepare: Prepare | None = None) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("region", region, persistent=False)
        self.prepare = prepare

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if self.prepare is not None:
            image = _batch(self.prepare(image[0]))
        return self.network(image)[0][self.region].mean().reshape(1, 1)


def gradient(
    network: nn.Module, image: torch.Tensor, region: torch.Tensor, prepare: Prepare | None = None
) -> torch.Tensor:
    """The gradient of the mean logit over a region to the image (Simonyan et al. 2014, `VanillaGrad`).

    Args:
        network: images (1, C, H, W) to logits (1, K, H, W); it is taken in eval mode, and left as it is.
        image: float, (C, H, W), on the network's device.
        region: bool, (K, H, W).
        prepare: what comes between the image and the network, differentiable, (C, H, W) to (C, H, W). Where
            it mixes channels, the gradient is that to each channel before.

    Returns:
        (C, H, W), in logits per unit of the image.

    Raises:
        DataError: it is not finite.
    """
    vanilla = VanillaGrad(_classifier(network, region, prepare))
    return _finite(vanilla(_batch(image.detach()), 0, retain_graph=False)[0])


def smooth_gradient(
    network: nn.Module,
    image: torch.Tensor,
    region: torch.Tensor,
    prepare: Prepare | None = None,
    seed: int = 0,
    samples: int = SAMPLES,
    noise: float = NOISE,
) -> torch.Tensor:
    """The mean of such gradients at noisy copies of the image (Smilkov et al. 2017, `SmoothGrad`).

    The copies go through the network one at a time, so that it takes no more memory than one gradient.

    Args:
        network, image, region, prepare: as of `gradient`.
        seed: of the noise; the global random state is left as it is.
        samples: how many copies.
        noise: standard deviation of the noise, as a share of the range of the image's values.

    Returns:
        (C, H, W), in logits per unit of the image.

    Raises:
        DataError: it is not finite.
    """
    # The paper's mean of the gradients. MONAI's `magnitude` is the root of their summed squares over the
    # number of copies, which shrinks as there are more of them.
    smooth = SmoothGrad(_classifier(network, region, prepare), noise, samples, magnitude=False)
    smooth.range = partial(trange, desc="smoothing", unit="copy", disable=None)
    with torch.random.fork_rng(devices=[image.device] if image.is_cuda else []):
        torch.manual_seed(seed)
        found = smooth(_batch(image.detach()), 0, retain_graph=False)
    return _finite(found[0])


def activation_map(
    network: nn.Module,
    image: torch.Tensor,
    region: torch.Tensor,
    prepare: Prepare | None = None,
    *,
    layer: str,
) -> torch.Tensor:
    """Where the features of a layer speak for a region (Selvaraju et al. 2017, `GradCAM`).

    Args:
        network, image, region, prepare: as of `gradient`.
        layer: whose features are weighted, by its name in the network.

    Returns:
        (H, W), 0 or more, brought from the layer's grid to the image's by bilinear interpolation.

    Raises:
        DataError: it is not finite.
    """
    classifier = _classifier(network, region, prepare)
    for module in classifier.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # or it would change the features that a hook has kept
    cam = GradCAM(classifier, f"network.{layer}", postprocessing=lambda values: values)
    return _finite(cam(_batch(image.detach()).requires_grad_(), class_idx=0)[0, 0].detach())


def features(network: nn.Module, image: torch.Tensor) -> list[Layer]:
    """The layers that give features (1, C, H, W), in the order in which they are done.

    Args:
        network: as of `gradient`.
        image: float, (C, H, W), as the network is given it.
    """
    found: list[Layer] = []

    def note(name: str, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4:
            found.append(Layer(name, (output.shape[2], output.shape[3])))

    network = _copy(network)
    for name, module in network.named_modules():
        if name:
            module.register_forward_hook(lambda _, __, output, name=name: note(name, output))
    with torch.no_grad():
        network(_batch(image))
    return found


def coarsest(layers: list[Layer], size: tuple[int, int]) -> Layer | None:
    """The layer for Grad-CAM where none is named: the last one on the coarsest grid, a U-Net's bottom.

    A single pixel, as of pooling over the whole image, is no grid.

    Args:
        layers: as `features` gives them.
        size: (H, W) of the image.

    Returns:
        None where no grid is coarser than the image's.
    """
    coarse = [layer for layer in layers if 1 < layer.grid[0] * layer.grid[1] < size[0] * size[1]]
    least = min((layer.grid[0] * layer.grid[1] for layer in coarse), default=0)
    return next((layer for layer in reversed(coarse) if layer.grid[0] * layer.grid[1] == least), None)


def shares(found: torch.Tensor) -> list[float]:
    """Each channel's share of the sum of |gradient| over all pixels and channels; of nothing, 0.

    Args:
        found: (C, H, W).
    """
    totals = found.abs().double().sum(dim=(1, 2))
    return (totals / totals.sum() if totals.any() else totals).tolist()


def _copy(network: nn.Module) -> nn.Module:
    """The network in eval mode on the same weights; hooks that are put on it, the original has not."""
    weights = {id(one): nn.Parameter(one.detach(), requires_grad=False) for one in network.parameters()}
    weights |= {id(one): one for one in network.buffers()}
    return copy.deepcopy(network, weights).eval()


def _classifier(network: nn.Module, region: torch.Tensor, prepare: Prepare | None) -> MeanLogit:
    network = _copy(network)
    for block in blocks_of(network):  # in half the memory, which counts with mammograms
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    return MeanLogit(network, region, prepare)


def _batch(image: torch.Tensor) -> torch.Tensor:
    """Of one image, a copy: MONAI marks what it is given, and collects the gradient in it."""
    return image[None].clone(memory_format=torch.channels_last)


def _finite(found: torch.Tensor) -> torch.Tensor:
    if not torch.isfinite(found).all():
        raise DataError(
            "expected finite gradients, found nan or infinite ones; the weights may be of a training that "
            "diverged, choose others by --checkpoint"
        )
    return found

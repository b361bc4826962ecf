"""How unsure a network is of an image: what it makes of several views of it, lesion by lesion.

A view is the image mirrored, turned and scaled a little at random; what the network finds in it is brought
back (test-time augmentation: Wang et al., Neurocomputing 338, 2019, doi:10.1016/j.neucom.2019.01.103). Most
of an image with a small lesion is background that nobody doubts, and a mean over all of it says little. So
doubt is summed up only where the views together see something, candidate by candidate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandAffined, RandFlipd
from scipy import ndimage

VIEWS = 4
TURN, SCALE = math.pi / 12, 0.1
CANDIDATE = 0.2  # the mean probability from which on views see something together
LEAST = 4  # pixels or voxels of a candidate; below, one view's edge of another lesion


class Candidate(NamedTuple):
    """Something that may be a lesion: a connected component of where the views see something.

    Attributes:
        size: in pixels or voxels of the network's grid.
        probability: of a lesion, the highest of the means over the views.
        entropy: of the mean over the views, its mean over the component; bits, 0 (sure) to 1.
    """

    size: int
    probability: float
    entropy: float


def probabilities(
    image: torch.Tensor, infer: Callable[[torch.Tensor], torch.Tensor], views: int = VIEWS, seed: int = 0
) -> np.ndarray:
    """What a network finds in several views of an image, brought back onto it.

    Args:
        image: as the network takes it, (C, X, Y) or (C, X, Y, Z), float32; a volume is mirrored, turned and
            scaled within its slices.
        infer: a batch of one image to its logits, (1, L, X, Y) or (1, L, X, Y, Z).
        views: how many.
        seed: of the views; the same ones for every image of a size.

    Returns:
        (views, X, Y) or (views, X, Y, Z), float32, 0 to 1; the highest of several labels.
    """
    image = _plain(image)
    flat = [0.0] * (image.ndim - 3)
    turn = [*flat, *flat, TURN] if flat else TURN
    transform = Compose(
        [
            RandFlipd(keys="image", prob=0.5, spatial_axis=0),
            RandAffined(
                keys="image",
                prob=1.0,
                rotate_range=turn,
                scale_range=[SCALE, SCALE, *flat],
                padding_mode="border",
            ),
        ]
    )
    found = []
    for number in range(views):
        # MONAI's TestTimeAugmentation does the same, but what it draws differs from run to run.
        transform.set_random_state(1000 * seed + number)
        view = transform({"image": MetaTensor(image)})["image"]
        with torch.no_grad():
            seen = torch.sigmoid(_plain(infer(_plain(view)[None])).float())[0]
        traced = MetaTensor(seen, affine=view.affine, applied_operations=view.applied_operations)
        back = transform.inverse({"image": traced})["image"]
        found.append(np.asarray(_plain(back).amax(0).cpu()).clip(0, 1))
    return np.stack(found)


def _plain(image: torch.Tensor) -> torch.Tensor:
    """Without a trace of how it was prepared, of which nothing is to be taken back."""
    return image.as_tensor() if isinstance(image, MetaTensor) else image


def candidates(samples: np.ndarray) -> list[Candidate]:
    """What may be a lesion, the largest first.

    Args:
        samples: as `probabilities` gives them.
    """
    mean = samples.mean(0, dtype=np.float32)
    structure = np.ones((3,) * mean.ndim)
    components, _ = ndimage.label(mean >= CANDIDATE, structure)
    found = []
    for number, box in enumerate(ndimage.find_objects(components), start=1):
        within = mean[box][components[box] == number]
        if len(within) >= LEAST:
            found.append(Candidate(len(within), float(within.max()), float(_entropy(within).mean())))
    return sorted(found, reverse=True)


def doubt(found: Sequence[Candidate]) -> float:
    """How much a study is doubted: the uncertain tissue of all candidates together; 0 without any.

    Args:
        found: as `candidates` gives it.

    Returns:
        Entropy times size, summed up: how many pixels or voxels would be as uncertain if all the doubt were
        in those.
    """
    return float(sum(one.size * one.entropy for one in found))


def _entropy(p: np.ndarray) -> np.ndarray:
    """Of a yes or no, in bits."""
    p = np.clip(p.astype(np.float64), 1e-7, 1 - 1e-7)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))

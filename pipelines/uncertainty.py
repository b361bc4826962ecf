"""How unsure a network is of an image: how far apart the lesions are that it finds in several views of it.

A view is the image mirrored, turned and scaled a little at random; what the network finds in it is brought
back (test-time augmentation: Wang et al., Neurocomputing 338, 2019, doi:10.1016/j.neucom.2019.01.103). Most
of an image with a small lesion is background that nobody doubts, and a mean over all of it says little. So
the views are compared by their Dice, in which only what at least one of them sees has a weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandAffined, RandFlipd
from scipy import ndimage

VIEWS = 4
TURN, SCALE = math.pi / 12, 0.1
CANDIDATE = 0.2  # the mean probability from which on views see something together
LEAST = 4  # pixels or voxels of a candidate; below, one view's edge of another lesion
SMALL = 100  # pixels or voxels below which it matters little whether views agree


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


def candidates(samples: np.ndarray) -> int:
    """How many components there are of what the views together see, and of which each may be a lesion.

    Args:
        samples: as `probabilities` gives them.
    """
    seen = samples.mean(0, dtype=np.float32) >= CANDIDATE
    components, _ = ndimage.label(seen, np.ones((3,) * seen.ndim))
    return int(np.count_nonzero(np.bincount(components.ravel())[1:] >= LEAST))


def doubt(samples: np.ndarray) -> float:
    """How little the views agree: one less their Dice, mean over all pairs of views.

    The Dice is that of probabilities p and q, (2 sum(pq) + s) / (sum(pp) + sum(qq) + s), where s, which is
    `SMALL`, makes views agree where there is next to nothing in either: a speck that one of them sees leaves
    a study without a lesion the less doubted the smaller it is.

    Args:
        samples: as `probabilities` gives them, two views or more.

    Returns:
        0, where all views are alike, to 1.
    """
    flat = samples.reshape(len(samples), -1)
    both = (flat @ flat.T).astype(np.float64)
    own = np.diag(both)
    dice = (2 * both + SMALL) / (own[:, None] + own + SMALL)
    return float(np.mean(1 - dice[np.triu_indices(len(samples), 1)]))

"""What the voxels of a labelled brain tumour tell of the labels' coding and of the sequences' order.

Nothing in a file says what its labels mean or which sequence is which; these rules notice a wrong belief
where anatomy contradicts it. They are rules of thumb: one case may break them, most of a dataset does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.datasets import brain_tumour_codings as codings
from pipelines.datasets.brain_tumour_layout import SEQUENCES

LEAST_VOXELS = 30  # of a label, below which it tells nothing
LEAST_CASES = 3  # that have to be judged before all are

FLAIR, T1, T1GD, T2 = range(len(SEQUENCES))


def outer_faces(labels: np.ndarray) -> dict[int, int]:
    """How many faces of each label's voxels lie on background.

    Args:
        labels: (X, Y, Z), whole numbers from 0.

    Returns:
        Label and number; labels with fewer than `LEAST_VOXELS` voxels are left out.
    """
    voxels = np.bincount(labels.ravel(order="K"))
    faces = np.zeros(len(voxels), np.int64)
    for axis in range(labels.ndim):
        ahead, behind = np.moveaxis(labels, axis, 0)[1:], np.moveaxis(labels, axis, 0)[:-1]
        border = (ahead == 0) != (behind == 0)
        faces += np.bincount((ahead + behind)[border], minlength=len(faces))
    return {label: int(faces[label]) for label in range(1, len(voxels)) if voxels[label] >= LEAST_VOXELS}


def contradicts_coding(coding: str, faces: Sequence[Mapping[int, int]]) -> tuple[int, int]:
    """In how many cases the label that should be edema borders less on the outside than the one of the core.

    Edema surrounds a tumour, so that of the two it is what mostly borders on healthy brain, while core and
    necrosis lie inside. Only cases that hold both labels are judged.

    Args:
        coding: of the labels, as the user says.
        faces: of each case, see `outer_faces`.

    Returns:
        How many cases contradict the coding, and how many were judged.
    """
    meant = {msd: label for label, msd in codings.labels(coding).items()}
    edema, core = meant[codings.EDEMA], meant[codings.CORE]
    judged = [one for one in faces if edema in one and core in one]
    return sum(one[core] > one[edema] for one in judged), len(judged)


def mostly(count: int, judged: int) -> bool:
    """Whether so many of the judged cases tell something of all: more than half, of at least three."""
    return judged >= LEAST_CASES and 2 * count > judged


def wrong_order(images: Sequence[np.ndarray], tumour: np.ndarray, enhancing: np.ndarray) -> str | None:
    """What contradicts the order of the sequences in one case.

    Two facts do not depend on the scanner: gadolinium makes the enhancing tumour brighter in T1gd than in
    T1w, and water makes the rest of a tumour brighter in FLAIR and T2w than in T1w and T1gd. Brightness is
    counted from the median of the brain outside the tumour, in its standard deviations.

    Args:
        images: FLAIR, T1w, T1gd and T2w, (X, Y, Z) each, on one grid, finite, 0 outside the brain.
        tumour: bool, the whole of it.
        enhancing: bool, its enhancing part.

    Returns:
        What was found, "" where nothing contradicts, None where tumour or brain are too small to judge.
    """
    rest = tumour & ~enhancing
    judged_t1, judged_water = (np.count_nonzero(part) >= LEAST_VOXELS for part in (enhancing, rest))
    brains = [np.count_nonzero((image != 0) & ~tumour) for image in images]
    if not (judged_t1 or judged_water) or min(brains) < LEAST_VOXELS:
        return None
    if judged_t1:
        plain, contrast = (_brightness(images[n], tumour, enhancing) for n in (T1, T1GD))
        if plain > contrast:
            return (
                f"enhancing tumour is brighter in T1w ({plain:+.1f} standard deviations from the brain's"
                f" median) than in T1gd ({contrast:+.1f})"
            )
    if judged_water:
        bright = {SEQUENCES[n]: _brightness(images[n], tumour, rest) for n in (FLAIR, T2)}
        dark = {SEQUENCES[n]: _brightness(images[n], tumour, rest) for n in (T1, T1GD)}
        low, high = min(bright, key=bright.get), max(dark, key=dark.get)
        if bright[low] < dark[high]:
            return (
                f"tumour that does not enhance is brighter in {high} ({dark[high]:+.1f} standard deviations"
                f" from the brain's median) than in {low} ({bright[low]:+.1f})"
            )
    return ""


def _brightness(image: np.ndarray, tumour: np.ndarray, part: np.ndarray) -> float:
    healthy = image[(image != 0) & ~tumour]
    return float((np.median(image[part]) - np.median(healthy)) / healthy.std())

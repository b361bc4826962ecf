"""A skull-stripped brain with a tumour, as four MR sequences show it: the content of the phantom.

Positions are in mm in a standard patient: x grows to the patient's right, y to the front, z to the head, and
the origin lies in the middle of the brain. Everything that is drawn of a patient comes from one generator and
from positions alone, so that the same patient can be drawn on any grid.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from pipelines.datasets.brain_tumour_codings import CORE, EDEMA, ENHANCING
from pipelines.datasets.shapes import Points, capsule, coverage, ellipsoid, grain, union, waves

# What tissue looks like in FLAIR, T1w, T1gd and T2w, where the brightest normal tissue of each is about 1.
TISSUE = {
    "fluid": (0.15, 0.25, 0.25, 1.30),
    "grey": (0.68, 0.58, 0.60, 0.72),
    "white": (0.54, 0.78, 0.80, 0.52),
    "spots": (0.98, 0.62, 0.64, 0.88),  # of ageing, in the white matter
    "blood": (0.30, 0.45, 1.40, 0.25),
    "dura": (0.50, 0.50, 1.10, 0.45),
    "edema": (0.98, 0.56, 0.57, 1.02),
    "solid": (0.88, 0.46, 0.48, 1.05),  # tumour that does not enhance
    "necrosis": (0.46, 0.36, 0.36, 1.22),
    "enhancing": (0.84, 0.52, 1.25, 0.80),
}

Lay = Callable[..., None]  # paints a tissue over all sequences: distance, tissue, width of its edge, share


class Tumour(NamedTuple):
    """What kind of tumour a patient has."""

    enhancing: bool = True  # a rim around a necrosis, as glioblastomas have; without it the core is solid
    lesions: int = 1
    edema: bool = True


def brain(
    rng: np.random.Generator, points: Points, edge: float, tumour: Tumour
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A patient's brain without the marks that a scanner leaves.

    Edema is bright in FLAIR and T2w, but spots are as bright in the one, and fluid is brighter in the other.
    The enhancing rim is bright in T1gd, but so are vessels and dura; the core is dark in T1w, as fluid is.

    Args:
        rng: where everything that varies between patients comes from.
        points: x, y and z of every voxel in mm, float32 arrays of one shape.
        edge: width over which a border is soft, about a voxel, in mm.
        tumour: its kind.

    Returns:
        Four sequences (4, X, Y, Z), float32; the brain, bool; the labels in the coding msd, uint8.
    """
    look = {name: np.array(values) * rng.uniform(0.93, 1.07, 4) for name, values in TISSUE.items()}
    images = np.zeros((4, *points[0].shape), np.float32)

    def lay(distance: np.ndarray, tissue: str, soft: float = edge, share: float = 1.0) -> None:
        covered = np.float32(share) * coverage(distance, soft)
        for image, value in zip(images, look[tissue], strict=True):
            image += covered * (np.float32(value) - image)

    outside = _surface(points, rng)
    lay(outside - 3, "fluid")
    folds = waves(points, rng, 16)
    lay(outside + 1.5 + np.float32(2) * np.maximum(folds, 0), "grey")
    white = outside + np.float32(rng.uniform(7, 9)) + np.float32(3) * folds + waves(points, rng, 30)
    lay(white, "white")
    ventricles = _inner_parts(lay, points, white, rng, edge)
    labels = np.zeros(points[0].shape, np.uint8)
    for number in range(tumour.lesions):
        _lesion(lay, labels, points, np.maximum(outside + 2, 2 - ventricles), rng, edge, tumour, number)
    _vessels(lay, points, outside, rng)
    inside = outside < 0
    labels[~inside] = 0
    return images, inside, labels


def scan(
    rng: np.random.Generator, image: np.ndarray, inside: np.ndarray, points: Points, edge: float
) -> np.ndarray:
    """What a scanner makes of one sequence: a scale of its own, uneven coils, noise; 0 outside the brain.

    Args:
        rng: of this sequence.
        image: (X, Y, Z), as `brain` gives it.
        inside: the brain, the same shape.
        points: as for `brain`.
        edge: width of a voxel in mm.

    Returns:
        int16, at least 1 in the brain.
    """
    scale = rng.uniform(250, 900)
    coils = np.exp(np.float32(rng.uniform(0.1, 0.2)) * waves(points, rng, 240, terms=3))
    soft = ndimage.gaussian_filter(image, 0.35)
    noise = grain(rng, image.shape, (max(0.4, 0.8 / edge),) * 2 + (0.3,)) * np.float32(
        rng.uniform(0.03, 0.05)
    )
    seen = np.rint((soft * coils + noise) * np.float32(scale))
    return np.where(inside, np.clip(seen, 1, 32767), 0).astype(np.int16)


def _surface(points: Points, rng: np.random.Generator) -> np.ndarray:
    """Distance to the surface of the brain: two hemispheres, cerebellum and brain stem."""
    long, high = rng.uniform(78, 86), rng.uniform(53, 59)
    halves = [ellipsoid(points, (side * 19, 0, 4), (rng.uniform(44, 48), long, high)) for side in (-1, 1)]
    cerebellum = ellipsoid(points, (0, -48, -44), (48, 32, 24))
    stem = capsule(points, (0, -18, -20), (0, -32, -72), 13)
    brain = union(union(halves[0], halves[1], 12), union(cerebellum, stem, 10), 8)
    return brain + np.float32(1.5) * waves(points, rng, 45)


def _inner_parts(
    lay: Lay, points: Points, white: np.ndarray, rng: np.random.Generator, edge: float
) -> np.ndarray:
    """Falx, deep grey matter, ventricles and spots; returns the distance to the ventricles."""
    x, y, z = points
    fissure = np.maximum(np.abs(x) - np.float32(1.2), 18 - z + np.float32(0.25) * np.abs(y))
    lay(fissure, "fluid")
    for side in (-1, 1):
        lay(ellipsoid(points, (side * 24, 4, 0), (9, 20, 12)), "grey")
        lay(ellipsoid(points, (side * 9, -10, 2), (8, 13, 9)), "grey")
    wide = rng.uniform(4, 8.5)
    ventricles = capsule(points, (0, -8, -4), (0, 10, -2), 2.5)
    for side in (-1, 1):
        body = capsule(points, (side * 15, -28, 14), (side * 10, 30, 12), wide)
        horn = capsule(points, (side * 15, -28, 14), (side * 26, -52, 6), wide * 0.9)
        ventricles = np.minimum(ventricles, union(body, horn, 6))
    caps = ventricles - np.float32(rng.uniform(1, 7)) - np.float32(1.5) * waves(points, rng, 25)
    lay(np.maximum(caps, white), "spots", edge + 2)
    for _ in range(rng.integers(4, 15)):
        side, radius = rng.choice((-1, 1)), rng.uniform(3, 8)
        spot = ellipsoid(
            points, (side * rng.uniform(20, 42), *rng.uniform((-50, 12), (50, 38))), (radius,) * 3
        )
        lay(np.maximum(spot, white), "spots", edge + 2)
    lay(ventricles, "fluid")
    for side in (-1, 1):  # the choroid plexus
        lay(ellipsoid(points, (side * 20, -38, 10), (4, 7, 4)), "blood", share=0.8)
    return ventricles


def _vessels(lay: Lay, points: Points, outside: np.ndarray, rng: np.random.Generator) -> None:
    """Sinus, arteries and enhancing dura, all bright in T1gd as a tumour's rim is."""
    lay(np.maximum(outside - 1, np.float32(-2) + 2 * waves(points, rng, 40) - outside), "dura", share=0.8)
    arch = ((0, -86, 8), (0, -60, 48), (0, 0, 66), (0, 60, 48), (0, 84, 8))
    for start, end in pairwise(arch):
        lay(capsule(points, start, end, rng.uniform(4, 5.5)), "blood")
    lay(capsule(points, (0, 8, -30), (0, -4, -62), 3), "blood")
    for side in (-1, 1):
        middle = np.array((side * 40, 12, -14)) + rng.uniform(-4, 4, 3)
        lay(capsule(points, (side * 6, 10, -26), middle, 2.8), "blood")
        branch = middle + np.array((side * 16, -32, 22)) + rng.uniform(-6, 6, 3)
        lay(capsule(points, middle, branch, 2.5), "blood")


def _lesion(
    lay: Lay,
    labels: np.ndarray,
    points: Points,
    room: np.ndarray,
    rng: np.random.Generator,
    edge: float,
    tumour: Tumour,
    number: int,
) -> None:
    """One lesion: edema, in it the core, and where the tumour enhances a rim about its necrosis."""
    while True:  # in a hemisphere, away from the surface
        centre = rng.uniform((18, -60, -18), (50, 62, 46))
        if np.linalg.norm(centre / (62, 78, 58)) < 0.85:
            break
    centre[0] *= rng.choice((-1, 1))
    size = rng.uniform(13, 25) if number == 0 else rng.uniform(8, 13)
    stretch = rng.uniform(0.75, 1.3, 3)
    core = ellipsoid(points, centre, size * stretch / np.cbrt(stretch.prod()))
    bump = ellipsoid(points, centre + rng.normal(0, 0.5, 3) * size, size * rng.uniform(0.4, 0.75, 3))
    core = union(core, bump, size / 3) + np.float32(0.1 * size) * waves(points, rng, 1.6 * size)
    spread = rng.uniform(6, 16)
    drift = ellipsoid(points, centre + rng.normal(0, 0.6, 3) * size, (size + spread) * rng.uniform(0.6, 1, 3))
    edema = union(core - np.float32(spread), drift, 8) + np.float32(0.25 * spread) * waves(points, rng, 22)
    edema = np.maximum(np.minimum(edema, core - 2), room)
    core = np.maximum(core, room)
    faint = rng.uniform(0.55, 1)
    if tumour.edema:
        lay(edema, "edema", edge + 3, faint)
        labels[edema < 0] = EDEMA
    lay(core, "solid", edge + 1)
    labels[core < 0] = CORE
    thick, gaps = rng.uniform(4, 6.5), np.float32(1.5) * waves(points, rng, 1.2 * size)
    if tumour.enhancing:
        rim = np.maximum(core, -core - np.float32(thick) - gaps)
        lay(core + np.float32(thick) + gaps, "necrosis", edge)
        lay(rim, "enhancing", edge, rng.uniform(0.8, 1))
        labels[rim < 0] = ENHANCING

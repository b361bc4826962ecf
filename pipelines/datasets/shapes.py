"""Soft shapes in millimetres, from which a phantom is painted.

A shape is its signed distance: a float32 array over the grid, in mm, negative inside. A distance becomes a
coverage between 0 and 1 over the width of a voxel, which is what partial volume is, so that nothing has to be
sampled finer than the grid. The functions know no dataset.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

Points = tuple[np.ndarray, np.ndarray, np.ndarray]


def waves(points: Points, rng: np.random.Generator, wavelength: float, terms: int = 5) -> np.ndarray:
    """A smooth random field with a standard deviation of about 1: a sum of plane waves.

    The field is a function of the position alone, so that it is the same on a coarse and on a fine grid.

    Args:
        points: x, y and z of every voxel in mm, float32 arrays that broadcast to the grid.
        rng: where directions and phases come from.
        wavelength: in mm; the waves have 0.7 to 1.5 times this length.
        terms: how many waves are summed.
    """
    total = np.float32(0)
    for _ in range(terms):
        direction = rng.normal(size=3)
        k = 2 * np.pi / (wavelength * rng.uniform(0.7, 1.5)) * direction / np.linalg.norm(direction)
        phase = rng.uniform(0, 2 * np.pi)
        total = total + np.sin(
            sum(np.float32(ki) * p for ki, p in zip(k, points, strict=True)) + np.float32(phase)
        )
    return total * np.float32(np.sqrt(2 / terms))


def ellipsoid(points: Points, centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
    """Distance to an ellipsoid along the axes, exact to first order at its surface."""
    unit = [(p - np.float32(c)) / np.float32(r) for p, c, r in zip(points, centre, radii, strict=True)]
    norm = np.sqrt(sum(u * u for u in unit))
    slope = np.sqrt(sum((u / np.float32(r)) ** 2 for u, r in zip(unit, radii, strict=True)))
    # At the centre itself 0/0 stands for a length between the smallest and the largest radius.
    length = np.divide(norm, slope, out=np.full_like(norm, min(radii)), where=slope > 0)
    return (norm - 1) * length


def capsule(points: Points, start: Sequence[float], end: Sequence[float], radius: float) -> np.ndarray:
    """Distance to a cylinder with round ends between two points."""
    axis = np.asarray(end, np.float32) - np.asarray(start, np.float32)
    relative = [p - np.float32(s) for p, s in zip(points, start, strict=True)]
    along = sum(r * a for r, a in zip(relative, axis, strict=True)) / np.float32(axis @ axis)
    along = np.clip(along, 0, 1)
    return np.sqrt(sum((r - along * a) ** 2 for r, a in zip(relative, axis, strict=True))) - np.float32(
        radius
    )


def union(first: np.ndarray, second: np.ndarray, blend: float) -> np.ndarray:
    """The union of two shapes, its crease rounded over `blend` mm."""
    overlap = np.maximum(np.float32(blend) - np.abs(first - second), 0)
    return np.minimum(first, second) - overlap * overlap / np.float32(4 * blend)


def coverage(distance: np.ndarray, width: float) -> np.ndarray:
    """The share of a voxel that a shape covers, from 1 to 0 over `width` mm about the surface."""
    return np.clip(np.float32(0.5) - distance / np.float32(width), 0, 1)


def paint(image: np.ndarray, distance: np.ndarray, value: float | np.ndarray, width: float) -> None:
    """Lay a shape of the given value over `image`, in place, with an edge of `width` mm."""
    image += coverage(distance, width) * (value - image)


def grain(rng: np.random.Generator, shape: Sequence[int], sigma: Sequence[float]) -> np.ndarray:
    """Correlated Gaussian noise of standard deviation 1; `sigma` is its blur along each axis in voxels."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), sigma)
    return noise / noise.std()

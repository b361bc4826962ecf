"""The examinations of the phantom of `brain_tumour`: which patient is drawn, on which grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import nibabel as nib
import numpy as np

from pipelines.datasets.brain_tumour_anatomy import Tumour, brain, scan
from pipelines.datasets.brain_tumour_layout import SEQUENCES

WIDTH, HEIGHT, SLICES = 240.0, 155.0, 28  # mm that the Decathlon's images show, here in thick slices

GLIOBLASTOMA = Tumour()
# The sixth of every twelve does not enhance and has no edema, as some of low grade.
TUMOURS = (
    *(GLIOBLASTOMA, Tumour(lesions=2), Tumour(enhancing=False)),
    *(GLIOBLASTOMA, GLIOBLASTOMA, Tumour(enhancing=False, edema=False)),
    *(Tumour(lesions=2), GLIOBLASTOMA, GLIOBLASTOMA),
    *(Tumour(enhancing=False), GLIOBLASTOMA, GLIOBLASTOMA),
)


class Grid(NamedTuple):
    """Where the voxels of an image lie: the shape, and the affine to mm of the scanner (RAS)."""

    shape: tuple[int, int, int]
    affine: np.ndarray


class Examination(NamedTuple):
    """Each sequence on its grid (X, Y, Z), int16, and the labels, in msd, on that of T1gd."""

    grids: tuple[Grid, ...]
    images: tuple[np.ndarray, ...]
    labels: np.ndarray

    @property
    def affine(self) -> np.ndarray:
        """Of the labels."""
        return self.grids[SEQUENCES.index("T1gd")].affine


def decathlon(number: int, seed: int, size: int, tumour: Tumour | None = None) -> Examination:
    """A case as the Decathlon has it: one grid, whose axes grow to the right and the front from 0.

    Args:
        number: of the case, from 1.
        seed: another seed, other patients.
        size: voxels across the image.
        tumour: by default the number says which kind it is.
    """
    grid = Grid((size, size, SLICES), np.diag((WIDTH / size, WIDTH / size, HEIGHT / SLICES, 1)))
    return _examine((grid,) * 4, (WIDTH / 2, WIDTH / 2, HEIGHT / 2), number, seed, tumour)


def brats(number: int, seed: int, size: int, tumour: Tumour | None = None) -> Examination:
    """A case as BraTS has it: one grid, whose axes grow to the left and the back; arguments as above."""
    affine = np.diag((-WIDTH / size, -WIDTH / size, HEIGHT / SLICES, 1))
    affine[1, 3] = WIDTH
    grid = Grid((size, size, SLICES), affine)
    return _examine((grid,) * 4, (-WIDTH / 2, WIDTH / 2, HEIGHT / 2), number, seed, tumour)


def hospital(number: int, seed: int, size: int, tumour: Tumour | None = None) -> Examination:
    """A case as a hospital makes it: two tilts, three matrices, thick slices; arguments as above."""
    rng = np.random.default_rng([seed, number])
    steep, flat = _tilt(rng.uniform(12, 20)), _tilt(rng.uniform(-6, 6))
    pixel = 230 / size
    flair = _tilted((round(0.8125 * size), size, 26), steep, pixel)
    t1 = _tilted((size, round(0.875 * size), 26), flat, pixel)
    t2 = _tilted((round(0.875 * size), size, 26), steep, pixel)
    return _examine((flair, t1, t1, t2), rng.uniform(-15, 15, 3), number, seed, tumour)


def _examine(
    grids: tuple[Grid, ...], position: Sequence[float], number: int, seed: int, tumour: Tumour | None
) -> Examination:
    """Draw each sequence on its grid, of a patient whose brain's middle lies at `position`, in mm."""
    tumour = tumour or TUMOURS[(number - 1) % len(TUMOURS)]
    drawn, images, labels = {}, [], {}
    for channel, (name, grid) in enumerate(zip(SEQUENCES, grids, strict=True)):
        points, edge = _points(grid, position)
        if id(grid) not in drawn:  # always from the same state of the generator: it is the same patient
            drawn[id(grid)] = brain(np.random.default_rng([seed, number, 9]), points, edge, tumour)
        clean, inside, labels[name] = drawn[id(grid)]
        own = np.random.default_rng([seed, number, channel])
        images.append(scan(own, clean[channel], inside, points, edge))
    return Examination(grids, tuple(images), labels["T1gd"])


def _tilt(degrees: float) -> np.ndarray:
    """A rotation about the axis from left to right."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array(((1, 0, 0), (0, c, -s), (0, s, c)))


def _tilted(shape: tuple[int, int, int], tilt: np.ndarray, pixel: float) -> Grid:
    """A grid centred on the scanner's, whose axes grow to the left, the front and the head (LAS)."""
    matrix = tilt @ np.diag((-pixel, pixel, 5.5))
    middle = (np.array(shape) - 1) / 2
    return Grid(shape, nib.affines.from_matvec(matrix, -matrix @ middle))


def _points(grid: Grid, position: Sequence[float]) -> tuple[tuple[np.ndarray, ...], float]:
    """Where each voxel lies in the patient, in mm, and the width of a soft border."""
    indices = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    world = nib.affines.apply_affine(grid.affine, np.stack(indices, axis=-1)) - np.asarray(position)
    x, y, z = nib.affines.voxel_sizes(grid.affine)
    points = tuple(np.ascontiguousarray(world[..., axis], np.float32) for axis in range(3))
    return points, float((x + y) / 2 + 0.1 * z)

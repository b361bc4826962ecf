"""On which grids the sequences of an MR examination lie, from the headers of their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from pipelines.datasets.brain_tumour_layout import SEQUENCES
from pipelines.datasets.checking import affine_gap
from pipelines.datasets.nifti import READ_ERRORS
from pipelines.errors import DataError

REFERENCE = "T1gd"  # where a tumour is drawn, and the sharpest of them
SAME_GRID = 0.01  # voxels at a corner, which is what rounded headers differ by


class Grid(NamedTuple):
    """A file's grid: the shape of its axes in space and the affine from their indices to mm."""

    file: Path
    shape: tuple[int, ...]
    affine: np.ndarray

    @property
    def size(self) -> str:
        """Such as "208x256x26"."""
        return "x".join(map(str, self.shape))


def number_of(sequence: str) -> int:
    """The channel of a sequence, given in upper or lower case.

    Raises:
        DataError: for an unknown one.
    """
    names = [name.lower() for name in SEQUENCES]
    if sequence.lower() not in names:
        raise DataError(f"expected one of the sequences {', '.join(SEQUENCES)}, found {sequence!r}")
    return names.index(sequence.lower())


def read_grids(files: Sequence[Path]) -> list[Grid]:
    """The grid of the one file of an examination, or of each of four.

    Raises:
        DataError: another number of files, one that is missing or no NIfTI, that has not four axes with four
            channels (of one file) or three (of several), or whose affine says nothing.
    """
    if len(files) not in (1, len(SEQUENCES)):
        raise DataError(
            f"expected one 4D file, or one file each of {', '.join(SEQUENCES)}, found {len(files)} files"
            + (f", the first {files[0]}" if files else "")
        )
    grids = []
    for file in files:
        if not file.is_file():
            raise DataError(f"expected a NIfTI file at {file}, found none")
        try:
            header = nib.load(file)
        except READ_ERRORS as error:
            raise unreadable(file, error) from error
        shape = tuple(header.shape)
        if len(files) == 1 and (len(shape) != 4 or shape[-1] != len(SEQUENCES)):
            raise DataError(
                f"{file}: expected {', '.join(SEQUENCES)} as the last of four axes, (X, Y, Z, 4), found shape"
                f" {shape}; where each is a file of its own, give the folder that holds the four"
            )
        if len(files) > 1 and len(shape) != 3:
            raise DataError(f"{file}: expected one sequence of three axes, found shape {shape}")
        if not np.isfinite(header.affine).all() or np.linalg.det(header.affine[:3, :3]) == 0:
            raise DataError(
                f"{file}: expected an affine that can be inverted, found {header.affine.tolist()}; without it"
                " nothing says where its voxels lie; export the sequence again"
            )
        grids.append(Grid(file, shape[:3], np.asarray(header.affine, float)))
    return grids


def registration(grids: Sequence[Grid], reference: int) -> str:
    """What is resampled onto which grid, such as "registered by header only: FLAIR 208x256x26 -> T1gd
    256x224x26", or "" where all lie on one.

    Args:
        grids: one, or one a sequence.
        reference: the channel of the sequence whose grid is taken.
    """
    if len(grids) == 1:
        return ""
    fixed = grids[reference]
    others = [
        f"{name} {grid.size}" for name, grid in zip(SEQUENCES, grids, strict=True) if not same(fixed, grid)
    ]
    if not others:
        return ""
    return f"registered by header only: {', '.join(others)} -> {SEQUENCES[reference]} {fixed.size}"


def same(fixed: Grid, grid: Grid) -> bool:
    """Whether two grids are one."""
    return grid.shape == fixed.shape and affine_gap(fixed.affine, grid.affine, fixed.shape) < SAME_GRID


def seen(fixed: Grid, grid: Grid) -> np.ndarray:
    """Which voxel centres of one grid lie in a voxel of another one, bool, (X, Y, Z)."""
    to_other = np.linalg.solve(grid.affine, fixed.affine)
    x, y, z = np.ogrid[tuple(slice(n) for n in fixed.shape)]
    inside = np.ones(fixed.shape, bool)
    for row, n in zip(to_other[:3], grid.shape, strict=True):
        index = row[0] * x + row[1] * y + row[2] * z + row[3]
        inside &= (index >= -0.5) & (index <= n - 0.5)
    return inside


def unreadable(file: Path, error: Exception) -> DataError:
    """The error about a file that is cut off, damaged or no NIfTI."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return DataError(
        f"{file}: expected a whole NIfTI file, found one that cannot be read ({reason}); "
        "download or export it again"
    )

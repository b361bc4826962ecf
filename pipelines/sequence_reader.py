"""The sequences of an MR examination in a chain of MONAI, always as the channels of one volume."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.data import ImageReader, MetaTensor
from monai.transforms import SpatialResample
from monai.utils import ensure_tuple
from tqdm import tqdm

from pipelines.datasets.brain_tumour_layout import SEQUENCES
from pipelines.datasets.checking import affine_gap
from pipelines.datasets.nifti import READ_ERRORS
from pipelines.errors import DataError

SAME_GRID = 0.01  # voxels at a corner, which is what rounded headers differ by
REFERENCE = "T1gd"  # where a tumour is drawn, and the sharpest of them


class SequenceReader(ImageReader):
    """Reads FLAIR, T1w, T1gd and T2w of one examination as four channels on one grid.

    `LoadImaged(keys="image", reader=SequenceReader(), ensure_channel_first=True)` gives float32 (4, X, Y, Z)
    from one 4D file, whose last axis is the channel, or from four 3D files in this order, of which those on
    another grid than the reference are resampled onto it by what their headers say, bilinearly and with 0
    outside of what was measured. Nothing looks at the images, so a patient who moved stays moved.

    The metadata hold, all as text but the affine:

    - `affine`: from voxels of the result to mm;
    - `grid_file`: the file whose grid the result has (`filename_or_obj` is always the first of the files);
    - `registration`: what was resampled, such as "registered by header only: FLAIR 208x256x26 -> T1gd
      256x224x26", or "" where all lay on one grid; it is printed too, once a case.

    Args:
        reference: the sequence whose grid is taken, in upper or lower case.
        quiet: do not print what was resampled.
    """

    def __init__(self, reference: str = REFERENCE, quiet: bool = False) -> None:
        super().__init__()
        self.reference = _number(reference)
        self.quiet = quiet

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether all files are NIfTI by their names."""
        return all(str(file).endswith((".nii", ".nii.gz")) for file in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: object) -> list[Path]:
        """Only note the files: after an error here, `LoadImage` would try its next reader."""
        return [Path(file) for file in ensure_tuple(data)]

    def get_data(self, img: Sequence[Path]) -> tuple[np.ndarray, dict]:
        """Read the files: (4, X, Y, Z) float32 and the metadata.

        Raises:
            DataError: a file is missing or cut short, has other axes than three (or four with four channels)
                or voxels that are not finite, the number of files is not 1 or 4, or a sequence does not
                overlap with the reference. The message names the file.
        """
        grids = _grids(img)
        said = _registration(grids, self.reference)
        if said and not self.quiet:
            tqdm.write(f"{grids[self.reference].file}: {said}")
        if len(grids) == 1:
            volume, grid = np.moveaxis(_voxels(grids[0]), -1, 0), grids[0]
        else:
            grid = grids[self.reference]
            volume = np.stack([_on(grid, one) for one in grids])
        about = {"grid_file": str(grid.file), "registration": said}
        meta = {"affine": grid.affine, "original_channel_dim": 0, "space": "RAS"}
        return np.ascontiguousarray(volume, np.float32), {**about, **meta}


def registration(files: str | Sequence[str], reference: str = REFERENCE) -> str:
    """What a `SequenceReader` says of an examination under `registration`, from the headers alone.

    For a report on cases that come from a cache, which keeps the voxels only.

    Args:
        files: the image of a case, one file or four.
        reference: as for the reader.

    Raises:
        DataError: as the reader, but for what the voxels hold.
    """
    return _registration(_grids([Path(file) for file in ensure_tuple(files)]), _number(reference))


class _Grid(NamedTuple):
    """A file's grid: the shape of its axes in space and the affine from their indices to mm."""

    file: Path
    shape: tuple[int, ...]
    affine: np.ndarray

    @property
    def size(self) -> str:
        return "x".join(map(str, self.shape))


def _number(sequence: str) -> int:
    names = [name.lower() for name in SEQUENCES]
    if sequence.lower() not in names:
        raise DataError(f"expected one of the sequences {', '.join(SEQUENCES)}, found {sequence!r}")
    return names.index(sequence.lower())


def _grids(files: Sequence[Path]) -> list[_Grid]:
    """The grid of each file, its axes as expected."""
    if len(files) not in (1, len(SEQUENCES)):
        raise DataError(
            f"expected one 4D file, or one file each of {', '.join(SEQUENCES)}, found {len(files)} files, the"
            f" first {files[0]}"
            if files
            else "expected the files of an examination, found none"
        )
    grids = []
    for file in files:
        if not file.is_file():
            raise DataError(f"expected a NIfTI file at {file}, found none")
        try:
            header = nib.load(file)
        except READ_ERRORS as error:
            raise _unreadable(file, error) from error
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
        grids.append(_Grid(file, shape[:3], np.asarray(header.affine, float)))
    return grids


def _registration(grids: Sequence[_Grid], reference: int) -> str:
    if len(grids) == 1:
        return ""
    fixed = grids[reference]
    others = [
        f"{name} {grid.size}" for name, grid in zip(SEQUENCES, grids, strict=True) if not _same(fixed, grid)
    ]
    if not others:
        return ""
    return f"registered by header only: {', '.join(others)} -> {SEQUENCES[reference]} {fixed.size}"


def _same(fixed: _Grid, grid: _Grid) -> bool:
    return grid.shape == fixed.shape and affine_gap(fixed.affine, grid.affine, fixed.shape) < SAME_GRID


def _on(fixed: _Grid, grid: _Grid) -> np.ndarray:
    """The voxels of a sequence on the grid of another one, (X, Y, Z)."""
    voxels = _voxels(grid)
    if _same(fixed, grid):
        return voxels
    seen = _seen(fixed, grid)
    if not seen.any():
        raise DataError(
            f"{grid.file}: expected a sequence of the space that {fixed.file} shows, found one that does not"
            " overlap with it; check that both are of one examination"
        )
    moving = MetaTensor(torch.from_numpy(voxels)[None], affine=torch.from_numpy(grid.affine))
    # The border, or the first and the last of thick slices would fade; what lies outside of it is cut off.
    resample = SpatialResample(mode="bilinear", padding_mode="border")
    moved = resample(moving, dst_affine=torch.from_numpy(fixed.affine), spatial_size=fixed.shape)
    return np.where(seen, moved[0].numpy(), np.float32(0))


def _seen(fixed: _Grid, grid: _Grid) -> np.ndarray:
    """Which voxel centres of one grid lie in a voxel of another one, bool, (X, Y, Z)."""
    to_other = np.linalg.solve(grid.affine, fixed.affine)
    x, y, z = np.ogrid[tuple(slice(n) for n in fixed.shape)]
    seen = np.ones(fixed.shape, bool)
    for row, n in zip(to_other[:3], grid.shape, strict=True):
        index = row[0] * x + row[1] * y + row[2] * z + row[3]
        seen &= (index >= -0.5) & (index <= n - 0.5)
    return seen


def _voxels(grid: _Grid) -> np.ndarray:
    try:
        voxels = np.asanyarray(nib.load(grid.file).dataobj).astype(np.float32)
    except READ_ERRORS as error:
        raise _unreadable(grid.file, error) from error
    if bad := int(np.count_nonzero(~np.isfinite(voxels))):
        raise DataError(
            f"{grid.file}: expected finite values, found {bad} NaN or infinite voxels; export it again or "
            "leave the case out"
        )
    return voxels


def _unreadable(file: Path, error: Exception) -> DataError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return DataError(
        f"{file}: expected a whole NIfTI file, found one that cannot be read ({reason}); "
        "download or export it again"
    )

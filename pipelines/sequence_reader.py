"""The sequences of an MR examination in a chain of MONAI, always as the channels of one volume."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import ImageReader, MetaTensor
from monai.transforms import SpatialResample
from monai.utils import ensure_tuple
from tqdm import tqdm

from pipelines.datasets import mr_grids
from pipelines.datasets.mr_grids import REFERENCE, Grid, number_of, read_grids, same, seen, unreadable
from pipelines.datasets.nifti import READ_ERRORS
from pipelines.errors import DataError


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
        self.reference = number_of(reference)
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
        grids = read_grids(img)
        said = mr_grids.registration(grids, self.reference)
        if said and not self.quiet:
            tqdm.write(f"{grids[self.reference].file}: {said}", file=sys.stderr)
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
    return mr_grids.registration(
        read_grids([Path(file) for file in ensure_tuple(files)]), number_of(reference)
    )


def _on(fixed: Grid, grid: Grid) -> np.ndarray:
    """The voxels of a sequence on the grid of another one, (X, Y, Z)."""
    voxels = _voxels(grid)
    if same(fixed, grid):
        return voxels
    inside = seen(fixed, grid)
    if not inside.any():
        raise DataError(
            f"{grid.file}: expected a sequence of the space that {fixed.file} shows, found one that does not"
            " overlap with it; check that both are of one examination"
        )
    moving = MetaTensor(torch.from_numpy(voxels)[None], affine=torch.from_numpy(grid.affine))
    # The border, or the first and the last of thick slices would fade; what lies outside of it is cut off.
    resample = SpatialResample(mode="bilinear", padding_mode="border")
    moved = resample(moving, dst_affine=torch.from_numpy(fixed.affine), spatial_size=fixed.shape)
    return np.where(inside, moved[0].numpy(), np.float32(0))


def _voxels(grid: Grid) -> np.ndarray:
    try:
        voxels = np.asanyarray(nib.load(grid.file).dataobj).astype(np.float32)
    except READ_ERRORS as error:
        raise unreadable(grid.file, error) from error
    if bad := int(np.count_nonzero(~np.isfinite(voxels))):
        raise DataError(
            f"{grid.file}: expected finite values, found {bad} NaN or infinite voxels; export it again or "
            "leave the case out"
        )
    return voxels

"""Labels as annotators submit them: read to their end, checked against their image, written on its grid.

A label is 0 and 1, or 0 and 255 where it is a picture. Of a volume the empty slices before and after the
lesion may be missing, as they are where it was stored as DICOM SEG: it is put where it belongs, voxel by
voxel. It is never resized.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.transforms import ResampleToMatch
from PIL import Image
from pydicom.misc import is_dicom

from pipelines.clips import DICOM_ERRORS
from pipelines.datasets import masks, nifti
from pipelines.errors import DataError
from pipelines.files import written_whole
from pipelines.segment import NIFTI, write_mask

VOLUMES = (*NIFTI, ".nrrd")
PICTURES = (*masks.SUFFIXES, ".dcm")
OFF = 0.1  # voxels by which a label may lie beside the grid of its image: what formats lose in rounding
READ_ERRORS = (*masks.READ_ERRORS, *nifti.READ_ERRORS, RuntimeError)


@dataclass(frozen=True)
class Grid:
    """Where an image lies: its size along x, y and, in a volume, z; its affine (RAS+), None for a picture."""

    size: tuple[int, ...]
    affine: np.ndarray | None = None


def is_volume(path: str | Path) -> bool:
    """Whether a file is a volume, by its name."""
    return Path(path).name.lower().endswith(VOLUMES)


def ending(path: str | Path) -> str:
    """The ending of a file's name that says what it is, such as ".nii.gz"; "" where none does."""
    name = Path(path).name.lower()
    return next(
        (one for one in sorted((*VOLUMES, *PICTURES), key=len, reverse=True) if name.endswith(one)), ""
    )


def grid_of(image: str | Path) -> Grid:
    """The grid of an image, of which only the header is read.

    Raises:
        DataError: no such file, or one that cannot be read.
    """
    path = Path(image)
    if not path.is_file():
        raise DataError(f"expected an image at {path}, found no such file")
    try:
        if path.name.lower().endswith(NIFTI):
            volume = nib.load(path)
            return Grid(tuple(map(int, volume.shape[:3])), volume.affine)
        if is_volume(path):
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            return Grid(tuple(reader.GetSize()[:3]), _affine(reader))
        if is_dicom(path):
            header = pydicom.dcmread(path, specific_tags=["Rows", "Columns"], stop_before_pixels=True)
            return Grid((int(header.Columns), int(header.Rows)))
        with Image.open(path) as picture:
            return Grid(picture.size)
    except (*READ_ERRORS, *DICOM_ERRORS) as error:
        raise DataError(
            f"{path}: expected a whole image, found one that cannot be read; copy it again"
        ) from error


def same_grid(label: str | Path, image: str | Path) -> bool:
    """Whether a label's file lies on the grid of its image as it stands."""
    one, other = grid_of(label), grid_of(image)
    if one.size != other.size or (one.affine is None) != (other.affine is None):
        return False
    return one.affine is None or np.allclose(one.affine, other.affine, atol=1e-4)


def read(label: str | Path, image: str | Path, name: str = "the label") -> np.ndarray:
    """Read a label onto the grid of its image.

    Args:
        label: NIfTI, NRRD or a picture. Of a picture a volume of one slice will do, as 3D Slicer saves it.
        image: that it was drawn on.
        name: what the label is called in an error, since its file may be a temporary one.

    Returns:
        uint8, 0 and 1, shape (X, Y, Z), or (X, Y) of a picture.

    Raises:
        DataError: the label is cut off or no label, has another size or place than its image, or other
            values; or the image cannot be read.
    """
    grid = grid_of(image)
    try:
        values, affine = _read(Path(label))
    except READ_ERRORS as error:
        if isinstance(error, DataError):
            raise DataError(f"{name}: {str(error).removeprefix(f'{label}: ')}") from error
        raise DataError(
            f"{name}: expected a whole file ({', '.join((*VOLUMES, '.png'))}), found one that cannot be read "
            "to its end; save and submit it again"
        ) from error
    found = sorted(np.unique(values).tolist())
    if not set(found) <= {0, 1}:
        shown = ", ".join(f"{value:g}" for value in found[:6])
        raise DataError(
            f"{name}: expected 0 for background and 1 for the lesion, found the values {shown}; keep one "
            "segment only"
        )
    values = values.astype(np.uint8)
    if grid.affine is None:
        flat = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
        if flat.shape != grid.size:
            raise _other_size(name, values.shape, grid)
        return flat
    if affine is None or values.ndim != 3:
        raise _other_size(name, values.shape, grid)
    return _placed(values, affine, grid, name)


def write(mask: np.ndarray, image: str | Path, out: str | Path) -> None:
    """Write a mask that lies on the grid of its image: NIfTI of a volume, PNG of a picture; whole or not.

    Args:
        mask: uint8, 0 and 1, as `read` gives it.
        image: whose geometry a NIfTI file gets.
        out: ends in .nii.gz or .png.
    """
    if mask.ndim == 2:
        with written_whole(out) as beside:
            Image.fromarray(mask.T).save(beside)
        return
    affine = grid_of(image).affine
    meta = {"filename_or_obj": str(image)}
    write_mask(mask, MetaTensor(np.empty((1, 1, 1, 1), np.uint8), affine=affine, meta=meta), Path(out))


def label_ending(image: str | Path) -> str:
    """The ending that labels of an image have: ".nii.gz", or ".png" of a picture."""
    return ".nii.gz" if is_volume(image) else ".png"


def _read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """A label's values, in the axes x, y and z, and its affine; None of a picture."""
    if path.name.lower().endswith(NIFTI):
        header, values = nifti.read_voxels(path)
        return np.rint(values) if np.allclose(values, np.rint(values), atol=1e-3) else values, header.affine
    if is_volume(path):
        volume = sitk.ReadImage(str(path))
        return sitk.GetArrayFromImage(volume).transpose(), _affine(volume)
    return masks.read(path).T, None


def _affine(image: sitk.Image | sitk.ImageFileReader) -> np.ndarray:
    """Indices to mm, in the directions of NIfTI; ITK's are those of DICOM."""
    affine = np.eye(4)
    direction = np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)[:3, :3]
    affine[:3, :3] = direction @ np.diag(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _placed(values: np.ndarray, affine: np.ndarray, grid: Grid, name: str) -> np.ndarray:
    """A label on its image's grid, where its own voxels are some of the image's.

    Raises:
        DataError: they are not, or some of the lesion is outside of the image.
    """
    steps = np.linalg.inv(grid.affine) @ affine  # from the label's indices to the image's
    whole = np.rint(steps)
    far = np.array([*values.shape, 1.0]) - [1, 1, 1, 0]
    apart = max(np.abs((steps - whole) @ end).max() for end in ([0, 0, 0, 1], far))
    axes = np.abs(whole[:3, :3])
    one_to_one = (axes.sum(0) == 1).all() and (axes.sum(1) == 1).all()
    if not one_to_one or apart > OFF:
        if values.shape != grid.size:
            raise _other_size(name, values.shape, grid)
        raise _elsewhere(name, "one whose voxels are not the image's")
    if np.array_equal(whole, np.eye(4)) and values.shape == grid.size:
        return values
    if not _lacks_empty_slices(values, axes, grid):
        raise _other_size(name, values.shape, grid)
    there = MetaTensor(torch.zeros(1).expand(1, *grid.size), affine=grid.affine)
    source = MetaTensor(values[None].astype(np.float32), affine=grid.affine @ whole)
    placed = ResampleToMatch(mode="nearest", padding_mode="zeros")(source, there)[0].numpy().astype(np.uint8)
    if placed.sum() != values.sum():
        raise _elsewhere(name, "some of it outside")
    return placed


def _lacks_empty_slices(values: np.ndarray, axes: np.ndarray, grid: Grid) -> bool:
    """Whether a label is short of slices as DICOM SEG leaves it: whole ones, and none empty at its ends."""
    size = (axes @ values.shape).astype(int)
    differing = np.flatnonzero(size != grid.size)
    if not len(differing):
        return True
    if len(differing) > 1 or size[differing[0]] > grid.size[differing[0]]:
        return False
    first, *_, last = np.moveaxis(values, int(np.argmax(axes[differing[0]])), 0)[[0, -1]]
    return bool(first.any() and last.any())


def _other_size(name: str, found: tuple[int, ...], grid: Grid) -> DataError:
    size, there = (" x ".join(map(str, one)) for one in (grid.size, found))
    return DataError(
        f"{name}: expected a label of its image's size, {size}, found {there}; a label is never resized, "
        "draw or export it on its image"
    )


def _elsewhere(name: str, found: str) -> DataError:
    return DataError(
        f"{name}: expected a label that lies on its image, found {found}; draw or export it on its image"
    )

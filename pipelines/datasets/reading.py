"""Cases as arrays in their original geometry, with what a plain threshold has to know of their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from pipelines.datasets import masks, nifti
from pipelines.datasets.fingerprint import files_of
from pipelines.errors import DataError


class Levels(NamedTuple):
    """The values that a threshold is looked for in: their unit, the lowest and the highest, integers."""

    unit: str
    lowest: int
    highest: int


GREY_LEVELS = Levels("grey levels", 0, 255)


def read_volume(
    case: dict[str, Any], targets: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """A NIfTI volume and the mask of its target labels.

    Args:
        case: of a MONAI datalist, with `image` and `label`.
        targets: the labels that are lesion.

    Returns:
        The volume in its unit, integers or floats, shape (X, Y, Z); the mask, bool, of the same shape; the
        distance of voxel centres along each axis, in mm.

    Raises:
        DataError: names the file that cannot be read, or whose shape is not its volume's.
    """
    image, values = _load(case["image"])
    labels = read_labels(case["label"], values.shape)
    return values, np.isin(labels, targets), image.header.get_zooms()[:3]


def read_labels(path: str, shape: Sequence[int]) -> np.ndarray:
    """The labels of a NIfTI mask, rounded to whole numbers.

    Raises:
        DataError: names the file that cannot be read, or whose shape is not the one given, its volume's.
    """
    _, labels = _load(path)
    if labels.shape != tuple(shape):
        raise DataError(
            f"{path}: expected the shape of its volume, {tuple(shape)}, found {labels.shape}; "
            "export the segmentation on the grid of the volume"
        )
    return np.rint(labels)


def read_picture(
    case: dict[str, Any], targets: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """The luminance of a picture and the union of its masks.

    Args:
        case: of a MONAI datalist, with `image` and `label`, one file or several.
        targets: the labels that are lesion; in a mask drawn as a picture it is 1.

    Returns:
        The luminance, uint8, shape (height, width); the mask, bool, of the same shape; the distance of pixels
        along each axis, 1.

    Raises:
        DataError: names the file that cannot be read, or the mask whose size is not its picture's.
    """
    # Here, since they take seconds to import, which `featherseg check` does without.
    from pipelines import picture_reader

    values = np.array(picture_reader.read_picture(case["image"]).convert("L"))
    drawn = {file: _mask(file) for file in files_of(case)[1:]}
    mask = masks.join(drawn, values.shape)
    return values, np.isin(mask.astype(np.uint8), targets), (1, 1)


def _load(path: str) -> tuple[nib.Nifti1Image, np.ndarray]:
    try:
        image = nib.load(path)
        return image, np.asarray(image.dataobj)
    except nifti.READ_ERRORS as error:
        raise _unreadable(path, error) from error


def _mask(path: str) -> np.ndarray:
    try:
        return masks.read(path)
    except DataError:
        raise
    except masks.READ_ERRORS as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> DataError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return DataError(
        f"{path}: expected a whole file, found one that cannot be read ({reason}); "
        "download or export it again"
    )

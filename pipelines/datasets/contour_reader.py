"""Contours as masks, in a chain of MONAI; `inbreast_contours` does without, since a check needs none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from monai.data import ImageReader
from monai.utils import MetaKeys, ensure_tuple

from pipelines.datasets.inbreast_contours import ORDER, draw
from pipelines.errors import DataError
from pipelines.mammograms import read_header


class ContourReader(ImageReader):
    """Reads a mammogram's contours: `LoadImaged("label", reader=ContourReader(), ensure_channel_first=True)`.

    A label is a list of the mammogram, which gives the mask's size, and of the contours' file where there is
    one. Gives 0 for background, 1 for a mass, 2 for a calcification and 3 for another region, in uint8 and in
    the axes of `MammogramReader`, that is (width, height).

    Args:
        classes: what is drawn; `[1]` gives whole masses, without holes where calcifications lie on them.
    """

    def __init__(self, classes: Sequence[int] = ORDER) -> None:
        super().__init__()
        unknown = set(classes) - set(ORDER)
        if unknown or not classes:
            raise DataError(f"expected some of the classes {sorted(ORDER)} to draw, found {list(classes)}")
        self.classes = sorted(classes)

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Any name will do, since DICOM files are called by all of them."""
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: object) -> list[Path]:
        """Only note the files: after an error here, `LoadImage` would try its next reader."""
        return [Path(file) for file in ensure_tuple(data)]

    def get_data(self, img: Sequence[Path]) -> tuple[np.ndarray, dict]:
        """Draw the mask: (W, H) uint8 and the metadata.

        Raises:
            DataError: as `read_header` of the mammogram and `draw` of the contours.
        """
        if not 1 <= len(img) <= 2:
            raise DataError(f"expected a mammogram and its contours, found {len(img)} files")
        header = read_header(img[0])
        if len(img) == 2:
            mask = draw(img[1], header.size, header.spacing, self.classes)
        else:
            mask = np.zeros(header.size, np.uint8)
        mask = np.ascontiguousarray(mask.T)
        return mask, {MetaKeys.SPATIAL_SHAPE: np.array(mask.shape), MetaKeys.ORIGINAL_CHANNEL_DIM: math.nan}

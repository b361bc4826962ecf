"""Digital mammograms in a chain of MONAI."""

from __future__ import annotations

import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from monai.data import ImageReader
from monai.utils import MetaKeys, ensure_tuple

from pipelines.errors import DataError
from pipelines.mammograms import read_mammogram

SPACING = "pixel_spacing"


class MammogramReader(ImageReader):
    """Reads mammograms: `LoadImaged("image", reader=MammogramReader(), ensure_channel_first=True)`.

    Gives (1, W, H), float32, brighter where tissue is denser: see `read_mammogram`. The metadata hold the
    file's path, the image's size and `pixel_spacing`, the distance of pixel centres along x and y in mm (NaN
    where it is not known), and nothing of what a file says about a patient; the affine is the identity, so
    that units are pixels.

    Args:
        window: None gives all values; a number or a name one of the file's windows, scaled to 0 to 1.
    """

    def __init__(self, window: int | str | None = None) -> None:
        super().__init__()
        self.window = window

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Any name will do, since DICOM files are called by all of them."""
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: object) -> list[Path]:
        """Only note the file: after an error here, `LoadImage` would try its next reader."""
        return [Path(file) for file in ensure_tuple(data)]

    def get_data(self, img: Sequence[Path]) -> tuple[np.ndarray, dict]:
        """Decode the file: (W, H) float32 and the metadata.

        Raises:
            DataError: as `read_mammogram`, and for more than one file.
        """
        if len(img) != 1:
            raise DataError(f"expected one mammogram, found {len(img)}, such as {img[0]}; give one at a time")
        values, header = read_mammogram(img[0], self.window)
        values = np.ascontiguousarray(values.T)
        meta = {
            MetaKeys.SPATIAL_SHAPE: np.array(values.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: math.nan,
            SPACING: np.array(header.spacing),
        }
        return values, meta

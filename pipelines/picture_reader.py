"""Pictures and single ultrasound frames in a chain of MONAI, always as RGB of 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import pydicom
from monai.data import PILReader
from monai.utils import ensure_tuple
from PIL import Image
from pydicom.misc import is_dicom

from pipelines.clips import COLOURS, DICOM_ERRORS, read_clip
from pipelines.datasets.masks import READ_ERRORS
from pipelines.errors import DataError

DEEP = ("I;16", "I;16L", "I;16B", "I;16N")


class PictureReader(PILReader):
    """Reads pictures and DICOM ultrasound files of one frame.

    `LoadImaged(keys="image", reader=PictureReader(), ensure_channel_first=True)` gives (3, W, H), whatever
    the file's mode is: see `read_picture`. The metadata hold the file's path and the image's size, and
    nothing of what a file says about a patient; the affine is the identity, so that units are pixels.
    """

    def __init__(self) -> None:
        super().__init__()

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: object) -> list[Path]:
        """Only note the files: after an error here, `LoadImage` would try its next reader."""
        return [Path(file) for file in ensure_tuple(data)]

    def get_data(self, img: Sequence[Path]) -> tuple[np.ndarray, dict]:
        """Decode the files: (W, H, 3) uint8 and the metadata.

        Raises:
            DataError: as `read_picture`.
        """
        return super().get_data([read_picture(file) for file in img])

    def _get_meta_dict(self, img: Image.Image) -> dict:
        return {}  # not the format and the mode that a picture has no more, once it is RGB


def read_picture(path: str | Path) -> Image.Image:
    """Read a picture, or the frame of a DICOM ultrasound file, as RGB of 8 bits.

    Grey values are repeated, palettes looked up, and 16 bits scaled so that 65535 becomes 255. Transparency
    is dropped: a pixel has the colour that is stored for it, however transparent it is.

    Args:
        path: what Pillow reads, or DICOM of any photometric interpretation that ultrasound has; which of the
            two is told by the content, not by the name.

    Raises:
        DataError: no such file, one that is cut off, of another kind or modality, with several frames or
            pages, or with more than 16 bits a pixel's channel. The message names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"expected a picture at {path}, found no such file")
    return _dicom(path) if is_dicom(path) else _picture(path)


def _picture(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            pages = getattr(picture, "n_frames", 1)
            deep, known = picture.mode in DEEP, picture.mode not in ("I", "F")
            if pages == 1 and deep:
                levels = np.asarray(picture)
            elif pages == 1 and known:
                return picture.convert("RGB")
    except READ_ERRORS as error:
        raise DataError(
            f"{path}: expected a whole picture, found one that cannot be read; download or export it again"
        ) from error
    if pages > 1:
        raise DataError(
            f"{path}: expected one picture, found {pages} in the file; save the one that is meant on its own"
        )
    if not deep:
        raise DataError(
            f"{path}: expected 8 or 16 bits a channel, found 32, whose full scale is not known; "
            "export the picture again with 8 bits"
        )
    return Image.fromarray(np.rint(levels / 257.0).astype(np.uint8)).convert("RGB")


def _dicom(path: Path) -> Image.Image:
    tags = ["Modality", "NumberOfFrames", "PhotometricInterpretation", "BitsStored"]
    try:
        header = pydicom.dcmread(path, specific_tags=tags, stop_before_pixels=True)
        modality, count = header.get("Modality"), int(header.get("NumberOfFrames") or 1)
        colour, bits = header.get("PhotometricInterpretation"), header.get("BitsStored")
    except DICOM_ERRORS as error:
        raise DataError(
            f"{path}: expected a whole DICOM file, found one that is not; export it again"
        ) from error
    if modality != "US":
        raise DataError(
            f"{path}: expected an ultrasound image (modality US), found {modality}; give one of ultrasound"
        )
    if count > 1:
        raise DataError(f"{path}: expected a single image, found {count} frames; export one frame on its own")
    if colour is not None and (colour not in COLOURS or (bits != 8 and colour != "PALETTE COLOR")):
        raise DataError(
            f"{path}: expected 8 bits a channel of {', '.join(COLOURS)}, found {bits} bits of {colour}; "
            "export the image as PNG"
        )
    return Image.fromarray(next(read_clip(path)).image)

"""Masks drawn as pictures: PNG, JPEG, BMP or TIFF of any mode, decoded by one stated rule.

A pixel belongs to the lesion where it is brighter than half of full scale. Its brightness is that of its
brightest colour, so that a red lesion counts as much as a white one. Full scale is the first of 1, 255 and
65535 that no pixel exceeds, so that 0/1, 0/255, 0/65535, 0.99999997 and the blurred edges of a JPEG all give
the same mask; for a JPEG it is not 1, which its noise alone reaches. A mask with something in it, but nothing
above half (0/2, 0/100), follows no such coding and is an error rather than an empty mask.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
FULL_SCALES = (1, 255, 65535)
LOSSY = ("JPEG", "MPO", "WEBP")
NOISE = 32  # of 255: what lossy compression of a black picture with a caption or a hairline leaves behind

# What Pillow is seen to raise for a file that is cut off, damaged or no picture at all.
READ_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def decode(picture: Image.Image) -> np.ndarray:
    """The mask that a picture shows, by the rule above.

    Transparent pixels are background; where the colour is the same everywhere, the opacity is the mask.

    Args:
        picture: of any mode, as `PIL.Image.open` gives it.

    Returns:
        bool, shape (height, width).

    Raises:
        DataError: where no pixel is bright enough for a lesion, but some are not black either, or where
            values are negative, not finite or above 65535.
    """
    bright = _brightness(picture)
    low, high, lossy = float(bright.min()), float(bright.max()), picture.format in LOSSY
    if lossy and high <= NOISE:
        return np.zeros(bright.shape, bool)
    scales = FULL_SCALES[1:] if lossy else FULL_SCALES
    # A thousandth more, since a float mask that was resampled may hold 1.0000001.
    scale = next((scale for scale in scales if low >= 0 and high <= 1.001 * scale), None)
    if scale is None or 0 < high <= scale / 2:
        raise DataError(
            f"{getattr(picture, 'filename', None) or 'a mask'}: expected 0 for background and 1, 255 or 65535"
            f" for a lesion, found values from {low:g} to {high:g}; save the mask with one of these codings"
        )
    return bright > scale / 2


def has_greys(picture: Image.Image) -> bool:
    """Whether a mask holds more than two levels, as JPEG or smooth drawing leave them."""
    return len(np.unique(_brightness(picture))) > 2


def read(path: str | Path) -> np.ndarray:
    """The mask in a file, bool, shape (height, width).

    Raises:
        READ_ERRORS: where the file cannot be read to its end.
        DataError: where it is coded in no known way, see `decode`.
    """
    with Image.open(path) as picture:
        return decode(picture)


def join(masks: Mapping[str, np.ndarray], size: tuple[int, int] | None = None) -> np.ndarray:
    """The union of the masks of one image.

    Args:
        masks: bool, shape (height, width), by the names of their files.
        size: of the image, (height, width); None takes that of the first mask.

    Raises:
        DataError: names both sizes where a mask has another one, since none is ever resized.
    """
    (first, mask), *_ = masks.items()
    expected, whose = (tuple(size), "its image") if size else (mask.shape, Path(first).name)
    for file, mask in masks.items():
        if mask.shape != expected:
            raise DataError(
                f"{file}: expected the {size_text(expected)} pixels of {whose}, found"
                f" {size_text(mask.shape)}; a mask is never resized, draw or export it on its image"
            )
    return np.logical_or.reduce(list(masks.values()))


def size_text(size: tuple[int, int]) -> str:
    """(height, width) as people write it, such as "500x471" for 500 wide and 471 high."""
    return f"{size[1]}x{size[0]}"


def _brightness(picture: Image.Image) -> np.ndarray:
    """The brightest colour of every pixel, dimmed by its transparency; shape (height, width)."""
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA" if "transparency" in picture.info or picture.mode == "PA" else "RGB")
    elif picture.mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa", "La"):
        picture = picture.convert("RGBA" if picture.mode in ("RGBa", "La") else "RGB")
    values = np.asarray(picture)
    if values.ndim == 2:
        return values
    if picture.mode not in ("RGBA", "LA"):
        return values.max(-1)
    colour, opacity = values[..., :-1].max(-1), values[..., -1]
    if opacity.min() == opacity.max():
        return colour
    if (values[..., :-1] == values[0, 0, :-1]).all():
        return opacity
    return colour * (opacity / np.float32(255))

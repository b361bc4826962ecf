"""What a picture of each held-out case needs, in one small file beside their scores."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from skimage.measure import block_reduce
from skimage.transform import resize

from pipelines.errors import DataError
from pipelines.files import written_whole

LONGEST = 192  # pixels of the longer side, enough for a picture of many cases
LARGEST = 1024  # of a picture of one case


@dataclass(frozen=True)
class Shown:
    """One slice of a case.

    Attributes:
        image: uint8, (H, W) or, in colour, (H, W, 3).
        truth, prediction: bool, (H, W).
    """

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


def thumbnail(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, colour: bool = False) -> Shown:
    """Take the slice with most lesion, true or predicted, shrink it, and bring its grey values to 0 to 255.

    Args:
        image: (X, Y), in colour (X, Y, 3) in uint8, or slices of a volume in RAS orientation, (X, Y, slices);
            a volume is turned to be seen from the feet, as `report.overlay` shows it.
        truth, prediction: bool, of the image's shape without colour.
        colour: the last axis of `image` is its colour.
    """
    if truth.ndim == 3:
        most = int((truth | prediction).sum(axis=(0, 1)).argmax())
        image, truth, prediction = (part[::-1, ::-1, most] for part in (image, truth, prediction))
    image, truth, prediction = (part.swapaxes(0, 1) for part in (image, truth, prediction))
    if not colour:
        low, high = float(image.min()), float(image.max())
        image = (image - low) * (255 / (high - low) if high > low else 0)
    shape = np.array(truth.shape)
    if shape.max() > LONGEST:
        height, width = np.maximum(1, np.rint(shape * LONGEST / shape.max())).astype(int)
        image = resize(image, (height, width), order=1, anti_aliasing=True, preserve_range=True)
        truth, prediction = (
            resize(mask.astype(float), (height, width), order=1, anti_aliasing=True) >= 0.5
            for mask in (truth, prediction)
        )
    return Shown(np.rint(image).astype(np.uint8), truth.astype(bool), prediction.astype(bool))


def reduced(image: np.ndarray, *masks: np.ndarray) -> tuple[np.ndarray, ...]:
    """An image and its masks with a longer side of `LARGEST` pixels at most, as they are where they have it.

    A large image shrinks by a whole number. Its pixels become means; a mask keeps each of its lesions, since
    its pixels are set where one of those that they stand for is.

    Args:
        image: (X, Y), in colour (X, Y, 3).
        masks: bool, (X, Y).
    """
    factor = -(-max(image.shape[:2]) // LARGEST)
    if factor == 1:
        return image, *masks
    blocks = (factor, factor, 1)[: image.ndim]
    means = block_reduce(image.astype(np.float32), blocks, np.nanmean, cval=np.nan)
    means = np.rint(means) if np.issubdtype(image.dtype, np.integer) else means
    return means.astype(image.dtype), *(block_reduce(mask, blocks[:2], np.max) for mask in masks)


def write(path: str | Path, cases: Mapping[str, Shown]) -> None:
    """Write the cases to a compressed `.npz`, whole or not at all."""
    arrays: dict[str, Any] = {"cases": np.array(list(cases), dtype=str)}
    for number, shown in enumerate(cases.values()):
        arrays[f"image_{number}"] = shown.image
        arrays[f"truth_{number}"] = np.packbits(shown.truth, axis=1)
        arrays[f"prediction_{number}"] = np.packbits(shown.prediction, axis=1)
    with written_whole(path) as beside:
        np.savez_compressed(beside, **arrays)


class Album(Mapping[str, Shown]):
    """The cases of a file of `write`, by name. The file is read at once, a picture when it is asked for.

    Raises:
        DataError: no such file, or not one of these; here, or where a picture is asked for.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        try:
            data = Path(path).read_bytes()
        except FileNotFoundError as error:
            raise DataError(f"expected pictures of cases at {path}, found none; evaluate again") from error
        with self._whole():
            self.file = np.load(io.BytesIO(data), allow_pickle=False)
            self.numbers = {str(name): number for number, name in enumerate(self.file["cases"])}

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a zip file can be broken in many ways
            raise DataError(
                f"expected pictures of cases in {self.path}, found: {error}; evaluate again"
            ) from error

    def __getitem__(self, case: str) -> Shown:
        number = self.numbers[case]
        with self._whole():
            image = self.file[f"image_{number}"]
            masks = (
                np.unpackbits(self.file[f"{name}_{number}"], axis=1, count=image.shape[1]).astype(bool)
                for name in ("truth", "prediction")
            )
            return Shown(image, *masks)

    def __contains__(self, case: object) -> bool:
        return case in self.numbers  # the inherited one would read the picture

    def __iter__(self) -> Iterator[str]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

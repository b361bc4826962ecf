"""Digital mammograms: one DICOM file of modality MG, as values in which dense tissue is bright.

Of a file only pixels, geometry, side and view are read, nothing about the patient, so that nothing of it can
reach a message.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from pydicom.pixels import apply_modality_lut, apply_windowing, get_decoder, pixel_array

from pipelines.clips import DICOM_ERRORS, whole_fragments
from pipelines.errors import DataError

PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2")
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing")  # the first is calibrated, the second as at the detector
TAGS = (
    *("Modality", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ModalityLUTSequence"),
    *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation"),
    *("VOILUTFunction", "PresentationIntentType", "ImageLaterality", "Laterality", "ViewPosition"),
    *SPACINGS,
)
WHOLE = "expected a whole DICOM file of a mammogram, found one that"


class OtherModality(DataError):
    """A DICOM file that is no mammogram."""


class Header(NamedTuple):
    """What a mammogram's file says of itself.

    Attributes:
        size: (height, width) in pixels.
        spacing: distance of pixel centres along x and y in mm, NaN where the file does not say it.
        side: "L" or "R", or "".
        view: "CC" or "MLO", or what else the file says, or "".
        raw: stored for processing, not for presentation: not as a reader sees it.
        windows: the names of its windows; "" for one without a name.
    """

    size: tuple[int, int]
    spacing: tuple[float, float]
    side: str
    view: str
    raw: bool
    windows: tuple[str, ...]


def read_header(path: str | Path) -> Header:
    """Read what a mammogram's file says of itself, without its pixels.

    Raises:
        DataError: no such file, or no mammogram of one frame in grey. The message names the file.
    """
    return _described(path, _read(path))


def read_mammogram(path: str | Path, window: int | str | None = None) -> tuple[np.ndarray, Header]:
    """Read a mammogram.

    Args:
        path: DICOM of modality MG, 8 to 16 bits, MONOCHROME1 or 2, in a syntax that pydicom decodes.
        window: None gives the whole range of values: those stored, rescaled where the file says how, and
            reflected within their range (0 to 4095 for 12 bits) where the file is MONOCHROME1, so that
            brighter is denser in every file. A number or a name takes that one of the file's windows, and
            scales its range to 0 to 1.

    Returns:
        float32, shape (height, width), the first row at the top; and what the file says of itself.

    Raises:
        DataError: as `read_header`, and where the file is cut off, cannot be decoded, or has no such window.
    """
    dataset = _read(path)
    header = _described(path, dataset)
    try:
        values = pixel_array(path)
        if _is_rescaled(dataset):  # else it would cost a copy in double precision
            values = apply_modality_lut(values, dataset)
    except DICOM_ERRORS as error:
        raise DataError(f"{path}: {WHOLE} is cut off or damaged; export it again") from error
    if values.shape != header.size:
        raise DataError(f"{path}: {WHOLE} holds pixels of shape {values.shape}; export it again")
    lowest, highest = _range(dataset)
    if window is not None:
        number = _window_number(path, window, header.windows)
        try:
            values = (apply_windowing(values, dataset, number) - lowest) / (highest - lowest)
        except DICOM_ERRORS as error:
            raise DataError(
                f"{path}: expected a window of a centre and a width above 0, found one that is not; take"
                " another window or none"
            ) from error
        lowest, highest = 0, 1
    values = values.astype(np.float32)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        np.subtract(np.float32(lowest + highest), values, out=values)
    return values, header


def _read(path: str | Path) -> pydicom.Dataset:
    """The elements that are needed, where the file holds one mammogram that can be decoded."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"expected a mammogram at {path}, found no such file")
    try:
        with path.open("rb") as file:
            dataset = pydicom.dcmread(file, specific_tags=list(TAGS), stop_before_pixels=True)
            syntax = dataset.file_meta.TransferSyntaxUID
            pixels = bool(file.read(1))
            file.seek(-1 if pixels else 0, 1)
            whole = not syntax.is_encapsulated or not pixels or whole_fragments(file)
        modality, colour = dataset.get("Modality"), dataset.get("PhotometricInterpretation")
        frames, bits = int(dataset.get("NumberOfFrames") or 1), dataset.get("BitsStored")
    except DICOM_ERRORS as error:
        raise DataError(f"{path}: {WHOLE} is not; export it again") from error
    if modality != "MG":
        raise OtherModality(
            f"{path}: expected a mammogram (modality MG), found modality {modality}; give a mammogram"
        )
    if not pixels or colour is None:
        raise DataError(
            f"{path}: expected an image, found a DICOM file without pixels; give the image itself"
        )
    if frames > 1:
        raise DataError(
            f"{path}: expected one mammogram, found {frames} frames, as of a tomosynthesis; give a plain or a"
            " synthetic mammogram"
        )
    if colour not in PHOTOMETRIC or not isinstance(bits, int) or not 8 <= bits <= 16:
        raise DataError(
            f"{path}: expected 8 to 16 bits of {' or '.join(PHOTOMETRIC)}, found {bits} bits of {colour};"
            " export the image as it was acquired"
        )
    try:
        decodable = get_decoder(syntax).is_available
    except NotImplementedError:
        decodable = False
    if not decodable:
        raise DataError(
            f"{path}: expected a transfer syntax that pydicom decodes, found {syntax.name}; export the image"
            " uncompressed"
        )
    if not whole:
        raise DataError(f"{path}: {WHOLE} is cut off or damaged; export it again")
    return dataset


def _described(path: str | Path, dataset: pydicom.Dataset) -> Header:
    try:
        size = (int(dataset.Rows), int(dataset.Columns))
    except DICOM_ERRORS as error:
        raise DataError(f"{path}: {WHOLE} tells no size; export it again") from error
    side = _text(dataset, "ImageLaterality") or _text(dataset, "Laterality")
    view = _text(dataset, "ViewPosition")
    raw = _text(dataset, "PresentationIntentType") == "FOR PROCESSING"
    return Header(size, _spacing(dataset), side, {"ML": "MLO"}.get(view, view), raw, _windows(dataset))


def _text(dataset: pydicom.Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return value.strip().upper() if isinstance(value, str) else ""


def _spacing(dataset: pydicom.Dataset) -> tuple[float, float]:
    for keyword in SPACINGS:
        try:
            down, right = (float(one) for one in dataset.get(keyword))
        except (TypeError, ValueError):
            continue
        if 0 < down < math.inf and 0 < right < math.inf:
            return right, down
    return math.nan, math.nan


def _windows(dataset: pydicom.Dataset) -> tuple[str, ...]:
    count = len(_several(dataset.get("WindowCenter")))
    names = [str(one) for one in _several(dataset.get("WindowCenterWidthExplanation"))]
    return tuple([*names, *[""] * count][:count])


def _several(value: object) -> list:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, (str, float, int)) else list(value)


def _window_number(path: str | Path, window: int | str, names: tuple[str, ...]) -> int:
    if isinstance(window, str) and window.strip() and window in names:
        return names.index(window)
    if isinstance(window, int) and 0 <= window < len(names):
        return window
    found = ", ".join(f"{number} {name}".strip() for number, name in enumerate(names)) or "none"
    raise DataError(
        f"{path}: expected a window {window!r}, found {found}; take one of these, or null for all values"
    )


def _is_rescaled(dataset: pydicom.Dataset) -> bool:
    line = (dataset.get("RescaleSlope"), dataset.get("RescaleIntercept"))
    return "ModalityLUTSequence" in dataset or (None not in line and line != (1, 0))


def _range(dataset: pydicom.Dataset) -> tuple[float, float]:
    """The lowest and the highest value that the file could hold."""
    if table := dataset.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** table[0].LUTDescriptor[2] - 1
    bits = dataset.BitsStored
    lowest = -(2 ** (bits - 1)) if dataset.PixelRepresentation else 0
    slope, intercept = (dataset.get(keyword) for keyword in ("RescaleSlope", "RescaleIntercept"))
    if slope is None or intercept is None:
        slope, intercept = 1, 0
    return tuple(float(slope) * stored + float(intercept) for stored in (lowest, lowest + 2**bits - 1))

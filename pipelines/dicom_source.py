"""The DICOM images that a mask is of: the slices of one CT or MR series, a mammogram, ultrasound.

Only what tells the images apart and where they lie is read here, nothing about the patient, so that nothing
of it can reach a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from pydicom.misc import is_dicom

from pipelines.clips import DICOM_ERRORS
from pipelines.errors import DataError

VOLUMES, PICTURES = ("CT", "MR"), ("MG", "US")
TURNED = 1e-3  # direction cosines by which slices of one orientation differ, for rounding
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # from DICOM's patient coordinates, LPS+
PLACE = ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
IDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns")
TAGS = (
    *(*IDS, *PLACE, "Modality", "NumberOfFrames", "SliceThickness", "SeriesNumber"),
    "PatientOrientation",  # which way rows and columns of a picture go
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)


class Source(NamedTuple):
    """The images that a mask is of.

    Attributes:
        files: in the order of the mask's last axis; of a picture or a clip one.
        headers: of each, with `TAGS` only.
        size: (X, Y, Z) of a series, (X, Y) of a picture, (X, Y, frames) of a clip.
        affine: from voxels of a series to mm (RAS+), as ITK has it; None of a picture and a clip.
    """

    files: list[Path]
    headers: list[pydicom.Dataset]
    size: tuple[int, ...]
    affine: np.ndarray | None


def read_source(source: str | Path | Sequence[str | Path]) -> Source:
    """Read what the images of a mask are, and bring the slices of a series into their order in space.

    Args:
        source: a file, the files of a series in any order, or the folder of a series, in which hidden files
            and such that are no DICOM do not count.

    Raises:
        DataError: no DICOM there, of another modality, of two series or studies, a file that cannot be read
            or has no identifier, slices of unlike sizes or orientations, a slice missing or there twice.
    """
    files, where = _files(source)
    headers = [_header(file) for file in files]
    modality = headers[0].get("Modality")
    if modality not in (*VOLUMES, *PICTURES):
        wanted = ", ".join((*VOLUMES, *PICTURES))
        raise DataError(f"{where}: expected images of modality {wanted}, found {modality}; give one of these")
    for keyword, what in (("StudyInstanceUID", "study"), ("SeriesInstanceUID", "series")):
        if (count := len({header[keyword].value for header in headers})) > 1:
            raise DataError(
                f"{where}: expected the images of one {what}, found {count}; put each series into a folder "
                "of its own"
            )
    sizes = {(header.Rows, header.Columns) for header in headers}
    if len(sizes) > 1:
        raise _unlike(where, f"{len(sizes)} sizes")
    size = (int(headers[0].Columns), int(headers[0].Rows))
    if modality in PICTURES:
        if len(files) > 1:
            raise DataError(
                f"{where}: expected one file of modality {modality}, found {len(files)}; give them one by one"
            )
        frames = int(headers[0].get("NumberOfFrames") or 1)
        if frames > 1 and modality == "MG":
            raise DataError(
                f"{where}: expected one mammogram, found {frames} frames; give a plain or a synthetic one"
            )
        return Source(files, headers, size if frames == 1 else (*size, frames), None)
    for file, header in zip(files, headers, strict=True):
        absent = [keyword for keyword in PLACE if header.get(keyword) in (None, "")]
        if absent or int(header.get("NumberOfFrames") or 1) > 1:
            found = f"none with {absent[0]}" if absent else f"{header.NumberOfFrames} frames in one"
            raise DataError(
                f"{file}: expected a file for each slice that says where it lies, found {found}; export the "
                "series as single slices"
            )
    if len(spaces := {header.FrameOfReferenceUID for header in headers}) > 1:
        raise _unlike(where, f"{len(spaces)} frames of reference")
    orientations = np.array([header.ImageOrientationPatient for header in headers], float)
    if np.abs(orientations - orientations[0]).max() > TURNED:
        raise _unlike(where, "several orientations")
    places = np.array([header.ImagePositionPatient for header in headers], float) @ normal(headers[0])
    check_spacing(places, where)
    order = np.argsort(places)
    files, headers = [files[place] for place in order], [headers[place] for place in order]
    return Source(files, headers, (*size, len(files)), _affine(headers))


def normal(header: pydicom.Dataset) -> np.ndarray:
    """The direction in which the slices of a series are stacked, in patient coordinates."""
    return np.cross(*np.reshape(np.asarray(header.ImageOrientationPatient, float), (2, 3)))


def check_spacing(places: Iterable[float], where: object) -> None:
    """Refuse slices with a gap between them, or two in one place.

    Args:
        places: of the slices along their normal, in mm, in any order.
        where: what the message calls them.

    Raises:
        DataError: a step is less than half the usual one, or more than one and a half.
    """
    steps = np.diff(np.sort(np.asarray(list(places), float)))
    if steps.size and (
        steps.min() <= 0 or steps.min() < 0.5 * np.median(steps) or steps.max() > 1.5 * np.median(steps)
    ):
        raise DataError(
            f"expected evenly spaced slices in {where}, found steps from {steps.min():.2f} to "
            f"{steps.max():.2f} mm; a slice is missing or there twice, export the series again"
        )


def _files(source: str | Path | Sequence[str | Path]) -> tuple[list[Path], object]:
    """The files, and what a message calls them."""
    if not isinstance(source, (str, Path)):
        files = [Path(file) for file in source]
        return files, files[0].parent if files else "the given files"
    path = Path(source)
    if path.is_dir():
        there = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
        files = [one for one in there if one.name != "DICOMDIR" and is_dicom(one)]
        if not files:
            raise DataError(f"expected the DICOM files of a series in {path}, found none")
        return files, path
    return [path], path


def _header(file: Path) -> pydicom.Dataset:
    if not file.is_file():
        raise DataError(f"expected a DICOM file at {file}, found no such file")
    try:
        header = pydicom.dcmread(file, specific_tags=list(TAGS), stop_before_pixels=True)
        absent = [keyword for keyword in IDS if not header.get(keyword)]
    except DICOM_ERRORS as error:
        raise DataError(
            f"{file}: expected a whole DICOM file, found one that is not; export it again"
        ) from error
    if absent:
        raise DataError(
            f"{file}: expected {absent[0]}, by which DICOM objects refer to an image, found none; export it "
            "from the PACS again"
        )
    return header


def _unlike(where: object, found: str) -> DataError:
    return DataError(
        f"{where}: expected the slices of a series alike, found {found}; export it without its localizer"
    )


def _affine(headers: list[pydicom.Dataset]) -> np.ndarray:
    """As ITK reads a series: slices stacked along their normal, by their mean distance."""
    row, column = np.reshape(np.asarray(headers[0].ImageOrientationPatient, float), (2, 3))
    first, last = (np.asarray(headers[place].ImagePositionPatient, float) for place in (0, -1))
    down, right = (float(one) for one in headers[0].PixelSpacing)
    step = float(headers[0].get("SliceThickness") or 1)
    if len(headers) > 1:
        step = float(np.linalg.norm(last - first)) / (len(headers) - 1)
    affine = np.eye(4)
    affine[:3] = np.stack([right * row, down * column, step * normal(headers[0]), first], axis=1)
    return TO_RAS @ affine

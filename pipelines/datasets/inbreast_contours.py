"""The contours of INbreast: a property list of OsiriX for each image, and the mask that it describes.

`Images[0]["ROIs"]` lists the contours, each with a `Name` and its corners `Point_px`, texts such as
`(1747.560059, 1367.180054)`, x to the right and y down from the top left. `Point_mm` and `Center` are zero.

Names became labels by this rule, whatever their capitals:

- "Mass" is a mass, and "Calcification" or "Calcifications" is a calcification;
- "Cluster", "Spiculated Region" (also "Espiculated"), "Distortion" and "Asymmetry" (also "Assymetry") are
  regions around something, no outlines of a lesion: they are drawn as "other", which is never a target;
- "Unnamed", the "Point 1" or "Point 3" that OsiriX calls a mark by itself, and no name at all do not tell. A
  mark of one or two points, or an outline of no more than 1 mm, is a calcification, since only these are so
  small; a larger outline is "other";
- anything else is an error.
"""

from __future__ import annotations

import math
import plistlib
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple
from xml.parsers.expat import ExpatError

import numpy as np

from pipelines.errors import DataError

MASS, CALCIFICATION, OTHER = 1, 2, 3
LABELS = {"mass": MASS, "calcification": CALCIFICATION, "calcifications": CALCIFICATION} | dict.fromkeys(
    ("cluster", "spiculated region", "espiculated region", "distortion", "asymmetry", "assymetry"), OTHER
)
ORDER = (OTHER, MASS, CALCIFICATION)  # a calcification in a mass lies on it, and both lie on a region

PIXEL = 0.07  # mm, of both detectors of INbreast, where a file does not say it
SMALL = 1.0  # mm, the longer side of an outline without a telling name that is a calcification
RADIUS = 0.25  # mm, of a mark's disc: half a millimetre wide, as the larger ones of microcalcifications are

_UNTOLD = re.compile(r"(unnamed|point \d+)?")
_POINT = re.compile(r"\s*\(\s*([^,()]+?)\s*,\s*([^,()]+?)\s*\)\s*")


class Roi(NamedTuple):
    """One contour: its name, "" where it has none, and its points, float (N, 2), x and y in pixels."""

    name: str
    points: np.ndarray


def read_rois(path: str | Path) -> list[Roi]:
    """The contours of a file in their order.

    Raises:
        DataError: no such file, no whole property list, or not the structure above. The message names it.
    """
    try:
        with Path(path).open("rb") as file:
            content = plistlib.load(file, fmt=plistlib.FMT_XML)
    except FileNotFoundError:
        raise DataError(f"expected contours at {path}, found no such file") from None
    except (OSError, ExpatError, ValueError, AttributeError, IndexError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: expected a whole property list (XML), found one that cannot be read; download it again"
        ) from error
    try:
        (image,) = content["Images"]
        return [_roi(entry) for entry in image["ROIs"]]
    except (KeyError, TypeError, ValueError, AttributeError, DataError) as error:
        found = str(error) if isinstance(error, DataError) else "another structure"
        raise DataError(
            f"{path}: expected contours as OsiriX exports them, Images with ROIs of one image, found {found};"
            " take the file of the release"
        ) from error


def label_of(roi: Roi, spacing: tuple[float, float]) -> int | None:
    """What a contour outlines: 1 a mass, 2 a calcification, 3 another region; None for an unknown name.

    Args:
        roi: the contour.
        spacing: of pixel centres along x and y, in mm; NaN takes that of INbreast.
    """
    name = plain(roi.name)
    if not _UNTOLD.fullmatch(name):
        return LABELS.get(name)
    return CALCIFICATION if len(roi.points) < 3 or _extent(roi, spacing) <= SMALL else OTHER


def plain(name: str) -> str:
    """A name without its capitals and needless blanks."""
    return " ".join(name.casefold().split())


def radius(spacing: tuple[float, float]) -> float:
    """Of a mark's disc, in pixels: 0.25 mm, and 1 pixel or more."""
    return max(1.0, RADIUS / float(np.mean(_known(spacing))))


def draw(
    path: str | Path,
    size: tuple[int, int],
    spacing: tuple[float, float],
    classes: Collection[int] = ORDER,
) -> np.ndarray:
    """The mask that a file describes.

    Other regions are drawn first, then masses, then calcifications. A contour of one or two points becomes a
    disc at each, of 0.25 mm or 1 pixel about it, the greater of the two; what lies outside is cut off.

    Args:
        path: the contours' file.
        size: of its image, (height, width).
        spacing: of pixel centres along x and y, in mm; NaN takes that of INbreast.
        classes: what is drawn; without the calcifications, masses have no holes where these lie.

    Returns:
        uint8, shape (height, width): 0 background, 1 mass, 2 calcification, 3 other region.

    Raises:
        DataError: as `read_rois`, and for an unknown name or a contour that lies wholly outside the image.
    """
    from transforms.contours import ContoursToMask  # takes seconds, which `featherseg check` does without
    from transforms.errors import ImageError

    contours = []
    for roi in read_rois(path):
        label = label_of(roi, spacing)
        if label is None:
            raise DataError(
                f"{path}: expected a contour named {known_names()}, found {roi.name!r}; rename it"
            )
        contours.append((label, roi.points))
    chosen = [one for label in ORDER if label in classes for one in contours if one[0] == label]
    try:
        return ContoursToMask(radius(spacing))(chosen, size)[0].numpy()
    except ImageError as error:
        raise DataError(f"{path}: {error}") from error


def known_names() -> str:
    """The names that a contour may have, for messages."""
    return ", ".join((*(name.title() for name in LABELS), "Unnamed", "Point N or none"))


def _roi(entry: dict) -> Roi:
    name, points = entry.get("Name", ""), [_point(text) for text in entry["Point_px"]]
    if not isinstance(name, str):
        raise DataError("a name that is no text")
    if not points or entry.get("NumberOfPoints", len(points)) != len(points):
        raise DataError(f"{entry.get('NumberOfPoints')} points announced and {len(points)} given")
    return Roi(name, np.array(points))


def _point(text: str) -> tuple[float, float]:
    match = _POINT.fullmatch(text)
    try:
        x, y = (float(one) for one in match.groups()) if match else (math.nan, math.nan)
    except ValueError:
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        raise DataError(f"a point {text[:40]!r}")
    return x, y


def _extent(roi: Roi, spacing: tuple[float, float]) -> float:
    """The longer side of the box about a contour, in mm."""
    return float(((roi.points.max(axis=0) - roi.points.min(axis=0)) * _known(spacing)).max())


def _known(spacing: tuple[float, float]) -> np.ndarray:
    return np.nan_to_num(np.asarray(spacing, float), nan=PIXEL)

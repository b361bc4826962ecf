"""INbreast: masses and calcifications in mammograms, DICOM with contours, as unzipped.

See `inbreast_layout` for the files and `inbreast_contours` for what the contours' names mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.datasets import inbreast_contours as contours
from pipelines.datasets.inbreast_check import check
from pipelines.datasets.inbreast_layout import discover
from pipelines.datasets.inbreast_phantom import phantom
from pipelines.datasets.reading import GREY_LEVELS
from pipelines.errors import DataError
from pipelines.mammograms import read_mammogram

__all__ = ["LEVELS", "check", "index", "phantom", "read"]

LEVELS = GREY_LEVELS
WHITE = 99.9  # percent of an image's pixels are not brighter than its white; what is, is a burned-in marker


def index(root: str | Path, labelled: bool = True, normal: bool = True) -> list[dict]:
    """The cases of a dataset as a MONAI datalist, sorted by id; a case is one image.

    Args:
        root: the folder that holds `AllDICOMs` and `AllXML`, or the release's with them in it.
        labelled: give each image its label; without, `AllXML` is not needed.
        normal: list the images without contours as well, in which nothing was found.

    Returns:
        Entries such as `{"case": "20586908", "patient": "6c613a14b80a8591", "image": path, "label": [path,
        path], "side": "R", "view": "CC"}`. A label is the image, which gives the mask's size, and its
        contours, or the image alone where it has none: see `ContourReader`.

    Raises:
        DataError: where there is no data, an image is there twice or called by no known name, contours have
            no image, or data lies beside a phantom.
    """
    root = Path(root)
    cases, findings = discover(root)
    for finding in findings:
        if labelled or finding.kind in ("twice", "name"):
            raise DataError(
                f"{finding.message}, in {root}; see all that is wrong with: featherseg check inbreast {root}"
            )
    entries = []
    for case in cases:
        if case.image is None or not (normal or case.contours):
            continue
        entry = {"case": case.name, "patient": case.patient, "image": str(case.image)}
        if labelled:
            entry["label"] = [str(file) for file in (case.image, case.contours) if file]
        entries.append({**entry, "side": case.side, "view": case.view})
    return entries


def read(case: dict[str, Any], targets: Sequence[int]) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """The grey levels of a mammogram and the mask of its lesions.

    Args:
        case: of `index`, with its label.
        targets: 1 for masses, 2 for calcifications.

    Returns:
        Levels from 0 for the darkest value to 255 for that which 99.9 % do not exceed, float32, shape
        (height, width); the mask, bool, of the same shape; the distance of pixels along each axis, 1.

    Raises:
        DataError: names the file that cannot be read.
    """
    values, header = read_mammogram(case["image"])
    lowest, highest = np.percentile(values, (0, WHITE))
    levels = np.clip((values - lowest) * (255 / max(highest - lowest, 1e-6)), 0, 255).astype(np.float32)
    _, *files = case["label"]
    mask = np.zeros(header.size, bool)
    for file in files:
        mask |= contours.draw(file, header.size, header.spacing, targets) > 0
    return levels, mask, (1, 1)

"""Whom a study shows, so that all images of a patient have the same role.

In this order: what `patients.csv` beside the studies says; what the name tells in a layout that the project
knows; of a DICOM file a hash of its Patient ID, which in INbreast is the same for all; else a study is a
patient of its own.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import pydicom
from pydicom.misc import is_dicom

from pipelines.clips import DICOM_ERRORS
from pipelines.errors import DataError

LISTING = "patients.csv"
# Both views of dce_us, and INbreast.
NAMES = (re.compile(r"(.+)_img\d+"), re.compile(r"\d+_([0-9a-z]+)_MG_[LR]_[A-Z]+_ANON", re.IGNORECASE))


def listed(studies: str | Path) -> dict[str, str]:
    """What `patients.csv` says: study -> patient; nothing where there is none.

    Raises:
        DataError: it has not the columns `image` and `patient`, or an image twice.
    """
    file = Path(studies) / LISTING
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8-sig", newline="") as content:
        table = csv.DictReader(content)
        if not {"image", "patient"} <= set(table.fieldnames or ()):
            raise DataError(f"{file}: expected the columns image and patient, found {table.fieldnames}")
        found: dict[str, str] = {}
        for row in table:
            if row["image"] in found:
                raise DataError(f"{file}: expected each image once, found {row['image']} twice")
            found[row["image"]] = row["patient"]
    return found


def of_studies(studies: Iterable[tuple[str, Path]], listing: dict[str, str]) -> dict[str, str]:
    """Study -> patient.

    Args:
        studies: id and file of each.
        listing: of `listed`, whose images may have their ending or not.
    """
    return {
        name: listing.get(name) or listing.get(file.name) or _from_name(name) or _from_header(file) or name
        for name, file in studies
    }


def _from_header(file: Path) -> str | None:
    """A hash, since the id itself is nobody's business here; None where a file has none."""
    try:
        if file.suffix.lower() not in (".dcm", "") or not is_dicom(file):
            return None
        header = pydicom.dcmread(file, specific_tags=["PatientID"], stop_before_pixels=True)
        patient = str(header.get("PatientID") or "").strip()
    except DICOM_ERRORS:
        return None  # what reads the image will say what is wrong with it
    return hashlib.sha256(patient.encode()).hexdigest()[:12] if patient else None


def _from_name(name: str) -> str | None:
    matches = (pattern.fullmatch(name) for pattern in NAMES)
    return next((match[1] for match in matches if match), None)

"""Mammograms as DICOM files, with a patient's name that must not get out."""

from __future__ import annotations

import numpy as np

from pipelines.datasets.inbreast_writers import write_mammogram

PATIENT = {
    "PatientName": "Müller^Jürgen",
    "PatientID": "SECRET-4711",
    "PatientBirthDate": "19560401",
    "PatientAddress": "Lindenweg 12",
    "AccessionNumber": "ACC-0815",
    "StudyDescription": "Vorsorge Frau Müller",
    "InstitutionName": "Klinik Beispielstadt",
}
HEIGHT, WIDTH = 51, 40  # JPEG 2000 takes 32 or more


def levels(bits=12, height=HEIGHT, width=WIDTH):
    """Levels that reach from 0 to full scale, no two of whose quarters look alike, (height, width) uint16."""
    y, x = np.mgrid[:height, :width]
    ramp = (y / (height - 1) + 2 * x / (width - 1)) / 3
    ramp[: height // 3, : width // 3] = 0.9
    return np.rint(ramp * (2**bits - 1)).astype(np.uint16)


def write(path, values=None, bits=12, **options):
    """A left CC mammogram of `levels`, 0.07 mm a pixel, where nothing else is said; returns the path."""
    values = levels(bits) if values is None else values
    options = {"side": "L", "view": "CC", "spacing": 0.07, "bits": bits, **options}
    write_mammogram(path, values, **{**PATIENT, **options})
    return path

"""The layout of `ceus` on disk: which files are a patient's clip, masks and panels."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

from pipelines.clips import PICTURES, VIDEOS
from pipelines.datasets import masks, phantoms
from pipelines.datasets.checking import Finding, natural, relative
from pipelines.errors import DataError

PANELS = "panels.json"
LABEL = re.compile(r"mask(?:_(\d+))?", re.IGNORECASE)


class Patient(NamedTuple):
    """One patient's files; `clip` is a file, or pictures in their order, or None where there is none."""

    name: str
    folder: Path
    clip: Path | tuple[Path, ...] | None
    labels: tuple[Path, ...]
    panels: Path | None


def discover(root: Path) -> tuple[list[Patient], list[Finding]]:
    """Find the patients of a dataset, in natural order, and what is missing, there twice or beside a
    phantom.

    Raises:
        DataError: where there is no patient's folder at all.
    """
    if not root.is_dir():
        raise _no_data(root, "no such folder")
    folders = [path for path in root.iterdir() if path.is_dir() and path.name[0] not in "._"]
    folders.sort(key=lambda folder: (natural(_composed(folder.name)), folder.name))
    patients: list[Patient] = []
    findings: list[Finding] = []
    for folder in folders:
        patient, wrong = _patient(folder, root)
        if any(patient.name == other.name for other in patients):
            message = f"expected one folder of patient {patient.name}, found two that differ in accents only"
            findings.append(Finding("error", "twice", patient.name, relative(folder, root), message))
            continue
        patients.append(patient)
        findings += wrong
    if all(patient.clip is None for patient in patients):
        raise _no_data(root, "none" if not patients else f"{len(patients)} folders without a clip")
    files = [path for patient in patients for path in (*clip_files(patient), *patient.labels)]
    return patients, findings + phantoms.strangers(root, files)


def clip_files(patient: Patient) -> tuple[Path, ...]:
    """The one file of a clip, its pictures, or nothing."""
    return (patient.clip,) if isinstance(patient.clip, Path) else patient.clip or ()


def _patient(folder: Path, root: Path) -> tuple[Patient, list[Finding]]:
    name, findings = _composed(folder.name), []
    files = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    files.sort(key=lambda path: natural(path.name))
    labels = [path for path in files if path.suffix.lower() in masks.SUFFIXES and LABEL.fullmatch(path.stem)]
    rest = [path for path in files if path not in labels]
    pictures = [path for path in rest if is_picture(path)]
    clips = [path for path in rest if is_clip(path)]
    clip = clips[0] if clips else tuple(pictures) or None
    where = relative(folder, root)
    if clip is None:
        message = "expected a clip (DICOM, AVI or MP4) or its frames (PNG or JPEG), found none"
        findings.append(Finding("error", "missing", name, where, message))
    elif len(clips) > 1 or (clips and pictures):
        other = clips[1] if len(clips) > 1 else pictures[0]
        message = f"expected one clip, or frames, found {clips[0].name} and {other.name}; keep one"
        findings.append(Finding("error", "clips", name, where, message))
    if not labels:
        message = "expected a mask.png, found none"
        findings.append(Finding("error", "unlabelled", name, where, message))
    return Patient(name, folder, clip, tuple(labels), panels_file(folder, root)), findings


def panels_file(*folders: Path) -> Path | None:
    """The `panels.json` in the first of these folders that has one."""
    return next((folder / PANELS for folder in folders if (folder / PANELS).is_file()), None)


def is_picture(path: Path) -> bool:
    """Whether a file is a frame by its ending."""
    return path.suffix.lower() in PICTURES


def is_clip(path: Path) -> bool:
    """Whether a file is a clip: a video by its ending, DICOM by its first bytes."""
    if path.suffix.lower() in VIDEOS:
        return True
    if path.name == "DICOMDIR" or is_picture(path):
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _composed(name: str) -> str:
    """Composed, since macOS writes an accent as a character of its own and other systems do not."""
    return unicodedata.normalize("NFC", name)


def _no_data(root: Path, found: str) -> DataError:
    return DataError(
        f"expected a folder for each patient in {root}, with a clip (DICOM, AVI, MP4) or its frames (PNG,"
        f" JPEG) and a mask.png, found {found}; a phantom is made with: featherseg phantom ceus --out"
        " data/ceus"
    )

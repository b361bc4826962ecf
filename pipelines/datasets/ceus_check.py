"""What can be wrong with contrast-enhanced clips and the masks drawn on them."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from PIL import Image

from pipelines.clips import DICOM_ERRORS, FOLDER_RATE, VIDEOS, read_clip
from pipelines.datasets import checking, mask_check, masks, repeats
from pipelines.datasets.ceus_frames import Boxes, Files, find_boxes, watch
from pipelines.datasets.ceus_layout import Patient, clip_files, discover, panels_file
from pipelines.datasets.checking import Finding, Report, relative
from pipelines.errors import DataError
from pipelines.folds import read_split
from pipelines.panels import read_panels

FULL = 0.9  # of the contrast panel
NEAR = 2  # pixels; panels are found to within so many


def check(
    root: str | Path, workers: int = 2, progress: bool | None = None, split: str | Path | None = None
) -> list[Finding]:
    """Read every file to its end and list what is wrong or unusual, the worst first.

    Args:
        root: the folder that holds the patients' folders.
        workers: how many processes read.
        progress: show a bar on standard error; None shows it on a terminal only.
        split: a split file (see `pipelines.folds`) to compare with the data.

    Raises:
        DataError: where there is no data at all, or `split` is not one.
    """
    root = Path(root)
    patients, findings = discover(root)
    results = checking.each(partial(_examine, root), patients, workers, progress)
    findings += [finding for found, _ in results for finding in found]
    seen = {
        patient.name: facts
        for patient, (_, facts) in zip(patients, results, strict=True)
        if facts is not None
    }
    groups = repeats.group(np.stack([facts.look for facts in seen.values()])) if seen else []
    findings += _compare(seen, groups)
    if split is not None:
        labelled = {patient.name for patient in patients if patient.clip and patient.labels}
        findings += checking.check_split(split, labelled)
        findings += _divided(split, dict(zip(seen, groups, strict=True)))
    return checking.ordered(findings)


class _Facts(NamedTuple):
    """What is compared between patients: where the clip is, a hash of what it shows, and how it looks."""

    file: str
    digest: str
    look: np.ndarray


def _examine(root: Path, patient: Patient) -> tuple[list[Finding], _Facts | None]:
    """What is wrong with one patient alone."""
    findings, report = checking.reporting(patient.name, root)
    named = [patient.folder, *clip_files(patient), *patient.labels]
    if strange := [path for path in named if not path.name.isascii()]:
        report("note", "not-ascii", strange[0], "a name that is not ASCII, which some programs cannot open")
    panels, given = None, patient.panels or panels_file(root)
    if given is not None:
        try:
            panels = read_panels(given)
        except DataError as error:
            report("error", "panels", given, _without(error, given))
    facts = size = None
    if patient.clip is not None:
        facts, size, panels = _examine_clip(patient.clip, panels, given, root, report)
    lesion = mask_check.examine(patient.labels, size, report) if patient.labels else None
    if lesion is not None:
        _examine_lesion(lesion, panels, patient.labels[0], report)
    return findings, facts


def _examine_clip(
    clip: Files, panels: Boxes | None, given: Path | None, root: Path, report: Report
) -> tuple[_Facts | None, tuple[int, int] | None, Boxes | None]:
    """What is wrong with a clip; returns its facts, its frames' size and its panels, as far as known."""
    first = clip if isinstance(clip, Path) else clip[0]
    if isinstance(clip, Path) and clip.suffix.lower() not in VIDEOS and not _examine_header(clip, report):
        return None, None, panels
    try:
        seen = watch(clip)
    except DataError as error:
        named = [path for path in ([clip] if isinstance(clip, Path) else clip) if str(path) in str(error)]
        kind = "timing" if isinstance(clip, Path) and _lacks_timing(clip) else "unreadable"
        report("error", kind, named[0] if named else first, _without(error, *named))
        return None, None, panels
    if len(seen.frames) < 2:
        message = "expected 2 frames or more, a second apart, to choose key frames from, found 1"
        report("warning", "short", first, message)
    height, width = size = seen.maximum.shape[:2]
    if given is None:
        panels, unsure = find_boxes(seen)
        if panels is None:
            report("error", "panels", first, unsure)
    elif panels and any(
        top + rows > height or left + columns > width for top, left, rows, columns in panels.values()
    ):
        message = f"expected panels within the clip's frames of {masks.size_text(size)}, found {panels}"
        report("error", "panels", given, message)
        panels = None
    top, left, rows, columns = panels["bmode"] if panels else (0, 0, height, width)
    look = repeats.describe(Image.fromarray(seen.darkest[top : top + rows, left : left + columns]))
    digest = hashlib.blake2b(repr(size).encode() + seen.maximum.tobytes(), digest_size=16).hexdigest()
    return _Facts(relative(first, root), digest, look), size, panels


def _examine_header(clip: Path, report: Report) -> bool:
    """What a DICOM file says of itself; returns whether it is worth reading on."""
    try:
        tags = ["Modality", "PhotometricInterpretation"]
        header = pydicom.dcmread(clip, specific_tags=tags, stop_before_pixels=True)
        modality, colour = header.get("Modality"), header.get("PhotometricInterpretation")
    except DICOM_ERRORS:
        return True  # whatever it is, reading the clip says it
    if modality != "US":
        report("error", "modality", clip, f"expected ultrasound (modality US), found {modality}")
        return False
    if colour == "PALETTE COLOR" or str(colour).startswith("YBR"):
        report("note", "colour", clip, f"colours stored as {colour}, decoded to RGB")
    return True


def _lacks_timing(clip: Path) -> bool:
    """Whether a clip that cannot be read could be, if its rate were known."""
    try:
        read_clip(clip, frames_per_second=FOLDER_RATE)
    except DataError:
        return False
    try:
        read_clip(clip)
    except DataError:
        return True
    return False


def _without(error: DataError, *paths: Path) -> str:
    """The message without the file's name, which stands beside it."""
    message = str(error)
    for path in paths:
        message = message.removeprefix(f"{path}: ")
    return message


def _examine_lesion(lesion: np.ndarray, panels: Boxes | None, first: Path, report: Report) -> None:
    """Whether and where there is a lesion."""
    if not lesion.any():
        report("warning", "empty", first, "expected a lesion, found an empty mask")
    elif panels:
        _examine_place(lesion, panels["contrast"], first, report)
    elif lesion.mean() > FULL:
        report("warning", "full", first, f"a mask that covers {lesion.mean():.0%} of the frame: inverted?")


def _examine_place(lesion: np.ndarray, contrast: Sequence[int], path: Path, report: Report) -> None:
    """Where a lesion lies relative to the contrast panel."""
    top, left, height, width = contrast
    share = lesion[top : top + height, left : left + width].mean()
    if share > FULL:
        report("warning", "full", path, f"a mask that covers {share:.0%} of the contrast panel: inverted?")
        return
    rows = slice(max(0, top - NEAR), top + height + NEAR)
    columns = slice(max(0, left - NEAR), left + width + NEAR)
    outside = 1 - lesion[rows, columns].sum() / lesion.sum()
    if outside > 0:
        message = (
            f"expected the lesion on the contrast panel, {list(contrast)} (top, left, height, width), found"
            f" {max(outside, 0.01):.0%} of it outside; draw it there, or give both panels in panels.json"
        )
        report("error", "outside", path, message)


def _compare(seen: dict[str, _Facts], groups: Iterable[int]) -> list[Finding]:
    """One clip, or near-identical ones, of different patients."""
    findings = []
    alike: dict[int, list[tuple[str, _Facts]]] = defaultdict(list)
    for (name, facts), group in zip(seen.items(), groups, strict=True):
        same = [other for other, its in alike[group] if its.digest == facts.digest]
        if same:
            message = f"shows the same as the clip of {same[0]}: folds could share them"
            findings.append(Finding("error", "duplicate", name, facts.file, message))
        elif alike[group]:
            message = f"looks like the clip of {alike[group][0][0]}: folds could share a lesion"
            findings.append(Finding("warning", "repeat", name, facts.file, message))
        alike[group].append((name, facts))
    return findings


def _divided(split: str | Path, groups: dict[str, int]) -> list[Finding]:
    """Key frames of one patient, or near-identical clips, that a split puts into different folds.

    `checking.check_split` reports a patient named twice; here a split may name key frames, such as P001_12.
    """
    together: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for fold, names in enumerate(read_split(split)):
        for name in names:
            patient = name if name in groups else re.sub(r"_\d+$", "", name)
            if patient in groups:
                together[groups[patient]].append((name, fold))
    return checking.divided(split, together.values())

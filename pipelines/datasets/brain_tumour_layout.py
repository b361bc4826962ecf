"""The layouts of `brain_tumour` on disk: which files are an examination's sequences and its mask."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from pipelines.datasets import decathlon, phantoms
from pipelines.datasets.checking import Finding, natural, relative
from pipelines.datasets.pairs import pair
from pipelines.errors import NoDataError

TASK = "Task01_BrainTumour"
SEQUENCES = ("FLAIR", "T1w", "T1gd", "T2w")  # in the order of the channels
ALONE = "examination"  # the case of one examination given on its own: its files may be named after a patient

# How BraTS until 2021, TCGA and BraTS from 2023 on call the sequences at the end of a file's name.
ENDINGS = {
    "FLAIR": ("flair", "t2f"),
    "T1w": ("t1", "t1n", "t1w"),
    "T1gd": ("t1gd", "t1ce", "t1c"),
    "T2w": ("t2", "t2w"),
    "mask": ("seg",),
}
_PART = {ending: part for part, endings in ENDINGS.items() for ending in endings}
_RAW = re.compile(rf"(?:(.+)[_-])?({'|'.join(_PART)})\.nii(\.gz)?", re.IGNORECASE)

# Examinations of one patient at several times, as BraTS 2023, BraTS 2017 to 2019 and TCGA number them.
_TIMES = (
    re.compile(r"(BraTS-\w+-\d+)-\d{3}"),
    re.compile(r"(Brats1[789]_\w+)_\d+"),
    re.compile(r"(TCGA-\w{2}-[^\W_]{4})[\W_].*"),
)


class Examination(NamedTuple):
    """One examination; `images` is the file with all sequences, or one file each in the order of SEQUENCES.

    Where a sequence is missing or there twice, `images` is empty; a test case is expected to have no mask.
    """

    name: str
    patient: str
    images: tuple[Path, ...]
    label: Path | None
    test: bool = False


def discover(root: Path) -> tuple[list[Examination], list[Finding]]:
    """Every examination of a dataset in natural order, tests last, and what is missing, there twice or beside
    a phantom.

    Raises:
        NoDataError: where there is no examination at all.
        DataError: where the Decathlon's dataset.json is broken.
    """
    if not root.is_dir():
        raise _no_data(root, "no such folder")
    folder = decathlon.find(root, TASK)
    if folder:
        files, findings = decathlon.files(root, folder, "BRATS")
        cases, findings = pair(files, findings, root)
        found = [Examination(c.name, c.patient, (c.image,) * bool(c.image), c.label, c.test) for c in cases]
        paths = [path for *_, path in files]
    else:
        found, findings, paths = _raw(root)
    if not found:
        raise _no_data(root, "neither")
    return found, findings + phantoms.strangers(root, paths)


def patient_of(case: str) -> str:
    """The patient of a raw case: its name, without the number of the time where the name has one."""
    return next((match[1] for times in _TIMES if (match := times.fullmatch(case))), case)


def _raw(root: Path) -> tuple[list[Examination], list[Finding], list[Path]]:
    """Examinations of one file a sequence, what is wrong with them, and their files."""
    stems: dict[Path, dict[str, list[tuple[str, Path]]]] = {}
    for name, _, files in sorted(os.walk(root, followlinks=True)):
        for file in sorted(files):
            if (match := _RAW.fullmatch(file)) and file[0] != ".":
                folder = Path(name)
                part = _PART[match[2].lower()]
                stems.setdefault(folder, {}).setdefault(match[1] or "", []).append((part, folder / file))

    found: dict[str, Examination] = {}
    findings: list[Finding] = []
    for folder, by_stem in stems.items():
        for stem, parts in by_stem.items():
            alone = len(by_stem) == 1
            name = (ALONE if folder == root else folder.name) if alone else stem or folder.name
            examination, wrong = _examination(name, parts, folder, root)
            if name in found:
                message = f"expected {name} once, found it in two folders; rename or remove one"
                findings.append(Finding("error", "twice", name, relative(folder, root), message))
                continue
            found[name] = examination
            findings += wrong
    paths = [path for by_stem in stems.values() for parts in by_stem.values() for _, path in parts]
    return sorted(found.values(), key=lambda one: natural(one.name)), findings, paths


def _examination(
    name: str, parts: list[tuple[str, Path]], folder: Path, root: Path
) -> tuple[Examination, list[Finding]]:
    where, findings = relative(folder, root), []
    by_part: dict[str, list[Path]] = {}
    for part, path in parts:
        by_part.setdefault(part, []).append(path)
    for part in SEQUENCES:
        if part not in by_part:
            names = ", ".join(f"_{ending}" for ending in ENDINGS[part])
            message = f"expected a {part} sequence (a name that ends in {names}), found none"
            findings.append(Finding("error", "sequence", name, where, message))
    for part, paths in by_part.items():
        if len(paths) > 1:
            message = f"expected one {part}, found {paths[0].name} and {paths[1].name}; keep one"
            findings.append(Finding("error", "doubled", name, where, message))
    whole = all(len(by_part.get(part, ())) == 1 for part in SEQUENCES)
    if whole and "mask" not in by_part:
        message = "expected a mask (a name that ends in _seg), found none"
        findings.append(Finding("error", "unlabelled", name, where, message))
    images = tuple(by_part[part][0] for part in SEQUENCES) if whole else ()
    label = by_part.get("mask", [None])[0]
    return Examination(name, patient_of(name), images, label), findings


def _no_data(root: Path, found: str) -> NoDataError:
    return NoDataError(
        f"expected {TASK} with imagesTr and labelsTr, or examinations of four files (X_flair, X_t1, X_t1ce"
        f" and X_t2, or X-t2f, X-t1n, X-t1c and X-t2w, .nii or .nii.gz), in {root}, found {found}; get it"
        " with: featherseg download brain_tumour, and a phantom is made with: featherseg phantom brain_tumour"
        " --out data/brain_tumour"
    )

"""The two layouts of `dce_us` on disk: which file is whose image or mask, and who its patient is."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from pipelines.datasets import masks, phantoms, repeats
from pipelines.datasets.checking import Finding, natural, relative
from pipelines.errors import DataError

CLASSES = ("benign", "malignant", "normal")  # the folders of BUSI; a normal image has an empty mask
GROUPS = "groups.csv"

_VIEW = re.compile(r"(.+)_img\d+")
_VIEW_MASK = re.compile(r"(.+_img\d+)_(\d+)")  # a second lesion's
_MASK = re.compile(r"(.+)_mask(?:_(\d+))?")


class Case(NamedTuple):
    """One image with its masks; `kind` is the folder in BUSI, else ""; `patient` is "" until it is known."""

    name: str
    patient: str
    kind: str
    image: Path | None
    labels: tuple[Path, ...]


def discover(root: Path) -> tuple[list[Case], list[Finding]]:
    """Find the cases of a dataset.

    Returns:
        Every case with its files, sorted, and what is missing, there twice, without a patient or beside a
        phantom.

    Raises:
        DataError: where there is no data, or data in both layouts, or `groups.csv` cannot be read.
    """
    if not root.is_dir():
        raise _no_data(root, "no such folder")
    place, files = _layout(root)
    listing = place.parent / GROUPS

    findings: list[Finding] = []
    parts: dict[tuple[str, str], dict[str, Path]] = defaultdict(dict)
    for kind, name, part, path in files:
        if first := parts[kind, name].get(part):
            message = f"expected {name} once, found {relative(first, root)} and {relative(path, root)}"
            findings.append(Finding("error", "twice", name, relative(first, root), message))
        parts[kind, name].setdefault(part, path)
    cases = []
    for (kind, name), have in parts.items():
        image = have.pop("image", None)
        labels = tuple(have[part] for part in sorted(have, key=natural))
        view = None if kind else _VIEW.fullmatch(name)
        cases.append(Case(name, view[1] if view else "" if kind else name, kind, image, labels))
        file = relative(image or labels[0], root)
        if not (kind or view):
            message = f"expected a name such as Patient012_img1, which tells the patient, found {file}"
            findings.append(Finding("error", "name", name, file, message))
        if not (image and labels):
            message = f"expected {'a mask' if image else 'an image'} for {file}, found none"
            findings.append(Finding("error", "missing", name, file, message))
    cases.sort(key=lambda case: natural(case.name))
    if place.name in CLASSES and listing.is_file():
        cases, wrong = _listed(cases, listing, root)
        findings += wrong
    return cases, findings + phantoms.strangers(root, [path for *_, path in files])


def _layout(root: Path) -> tuple[Path, list[tuple[str, str, str, Path]]]:
    """The folder that tells the layout, `images` or that of a class, and the files."""
    found = []
    # One level down as well, since BUSI unpacks to Dataset_BUSI_with_GT.
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        if os.path.isdir(folder / "images"):  # False for what may not be looked into, such as lost+found
            found.append((folder / "images", _paired_files(folder)))
        if kinds := [folder / kind for kind in CLASSES if os.path.isdir(folder / kind)]:
            found.append((kinds[0], _busi_files(folder)))
    if not found:
        raise _no_data(root, "neither")
    filled = [(place, files) for place, files in found if files]
    if not filled:
        raise _no_data(root, f"no picture ({', '.join(masks.SUFFIXES)}) in its folders")
    if len(filled) > 1:
        first, second = (relative(place, root) for place, _ in filled[:2])
        raise DataError(
            f"expected one dataset in {root}, found two, with {first} and with {second}; put each into a"
            " folder of its own"
        )
    return filled[0]


def _paired_files(folder: Path) -> list[tuple[str, str, str, Path]]:
    """Kind (""), case, part ("image", "label", "label1", ...) and path of every file in the paired layout."""
    files = [("", _stem(path), "image", path) for path in _pictures(folder / "images")]
    for path in _pictures(folder / "masks"):
        more = _VIEW_MASK.fullmatch(_stem(path))
        files.append(("", more[1], f"label{more[2]}", path) if more else ("", _stem(path), "label", path))
    return files


def _busi_files(folder: Path) -> list[tuple[str, str, str, Path]]:
    """The same for BUSI."""
    files = []
    for kind in CLASSES:
        for path in _pictures(folder / kind):
            mask = _MASK.fullmatch(_stem(path))
            name = mask[1] if mask else _stem(path)
            # A case's name is its own in the whole dataset, also where the files are called 1.png, 2.png, ...
            name = name if name.startswith(kind) else f"{kind} {name}"
            files.append((kind, name, f"label{mask[2] or ''}" if mask else "image", path))
    return files


def _pictures(folder: Path) -> list[Path]:
    """The pictures of a folder, without such as the ._a.png that macOS leaves in an archive."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in masks.SUFFIXES and p.name[0] != ".")


def _stem(path: Path) -> str:
    """Composed, since macOS writes an accent as a character of its own and other systems do not."""
    return unicodedata.normalize("NFC", path.stem)


def _listed(cases: list[Case], listing: Path, root: Path) -> tuple[list[Case], list[Finding]]:
    """The cases with their groups from a `groups.csv`, and how it does not fit them."""
    groups, file, findings = repeats.read_groups(listing), relative(listing, root), []
    names = {case.name: relative(case.image, listing.parent) for case in cases if case.image}
    for name, image in names.items():
        if image not in groups:
            message = f"expected a group for {image} in {listing.name}, found none"
            findings.append(Finding("error", "group", name, file, message))
    if absent := sorted(set(groups) - set(names.values()), key=natural):
        message = f"{len(absent)} images that it lists are not there, such as {absent[0]}"
        findings.append(Finding("note", "absent", "", file, message))
    return [c._replace(patient=groups.get(names.get(c.name, ""), c.name)) for c in cases], findings


def _no_data(root: Path, found: str) -> DataError:
    return DataError(
        "expected the folders images and masks with PatientNNN_img1.png, or benign, malignant and normal with"
        f" 'benign (1).png' and 'benign (1)_mask.png', in {root}, found {found}; BUSI comes from"
        " scholar.cu.edu.eg/?q=afahmy/pages/dataset, and a phantom is made with:"
        " featherseg phantom dce_us --out data/dce_us"
    )

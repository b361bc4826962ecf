"""Breast lesions in ultrasound: how the data lies on disk, in two layouts.

The paired one (Li et al., ISBI 2021) has `images/PatientNNN_img1.png`, `images/PatientNNN_img2.png`, two
orthogonal views, and `masks/` with the same names; a second mask of a view is `PatientNNN_img1_1.png`.
The public BUSI (Al-Dhabyani et al., Data in Brief, 2020) has the folders `benign`, `malignant` and `normal`
with `benign (1).png`, `benign (1)_mask.png` and, where an image has several masks, `benign (1)_mask_1.png`
and so on. BUSI names no patients and repeats many images, so that near-identical ones form a group, which
stands for a patient: as a `groups.csv` beside the folders tells (with the columns `image`, such as
`benign/benign (1).png`, and `group`), else as `repeats` finds them.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pipelines.datasets import checking, mask_check, masks, repeats
from pipelines.datasets.checking import Finding, Report, relative
from pipelines.datasets.dce_us_layout import GROUPS, Case, discover
from pipelines.datasets.dce_us_phantom import phantom
from pipelines.datasets.reading import GREY_LEVELS
from pipelines.datasets.reading import read_picture as read
from pipelines.errors import DataError
from pipelines.folds import read_split

__all__ = ["LEVELS", "check", "index", "phantom", "read"]

LEVELS = GREY_LEVELS
SMALL = 64  # pixels; the recipe resizes to 256, and fewer than a quarter of them hold no lesion's outline
FULL = 0.9  # of the image; the largest lesion of BUSI covers half


def index(root: str | Path, labelled: bool = True, normal: bool = True) -> list[dict]:
    """The cases of a dataset as a MONAI datalist, sorted by name with numbers in their order.

    Args:
        root: the folder that holds `images` and `masks`, or `benign`, `malignant` and `normal`.
        labelled: list the images with a mask; False lists every image, without a label, and in BUSI without
            a `groups.csv` as a patient of its own, since only a split needs to know the repeats.
        normal: list BUSI's images without a lesion as well.

    Returns:
        Entries such as `{"case": "benign (1)", "patient": "benign (1)", "image": path, "label": path}`; where
        an image has several masks, `label` is a list of paths, and the lesion is their union.

    Raises:
        DataError: where there is no data, or data in both layouts or beside a phantom, a partner is missing,
            a name occurs twice or tells no patient, or `groups.csv` does not fit; in BUSI without one, where
            an image cannot be read.
    """
    root = Path(root)
    cases, findings = discover(root)
    hint = f", in {root}; see all that is wrong with: featherseg check dce_us {root}"
    for finding in findings:
        if finding.severity == "error" and (finding.kind == "twice" or labelled):
            raise DataError(finding.message + hint)
    cases = [case for case in cases if case.image]
    if labelled and not all(case.patient for case in cases):
        # Of all images, so that a group is called the same with and without the normal ones.
        cases = _with_groups(cases, repeats.group(repeats.describe_files([case.image for case in cases])))
    cases = [case for case in cases if normal or case.kind != "normal"]
    entries = [{"case": c.name, "patient": c.patient or c.name, "image": str(c.image)} for c in cases]
    if labelled:
        _check_sizes(cases)
        for entry, case in zip(entries, cases, strict=True):
            files = [str(label) for label in case.labels]
            entry["label"] = files[0] if len(files) == 1 else files
    return entries


def check(
    root: str | Path, workers: int = 2, progress: bool | None = None, split: str | Path | None = None
) -> list[Finding]:
    """Read every file to its end and list what is wrong or unusual, the worst first.

    Args:
        root: as for `index`.
        workers: how many processes read.
        progress: show a bar on standard error; None shows it on a terminal only.
        split: a split file (see `pipelines.folds`) to compare with the data.

    Raises:
        DataError: where there is no data at all or data in both layouts, or `split` or `groups.csv` is none.
    """
    root = Path(root)
    cases, findings = discover(root)
    results = checking.each(partial(_examine, root), cases, workers, progress)
    findings += [finding for found, _ in results for finding in found]
    seen = [(case, facts) for case, (_, facts) in zip(cases, results, strict=True) if facts]
    groups = repeats.group(np.stack([facts.look for _, facts in seen])) if seen else []
    if any(not case.patient for case in cases):
        found = _with_groups([case for case, _ in seen], groups)
        seen = [(case, facts) for case, (_, facts) in zip(found, seen, strict=True)]
        message = (
            f"no {GROUPS}: {len(found)} images form {len(set(groups))} groups of near-identical ones by their"
            " looks; a split keeps a group together"
        )
        findings.append(Finding("note", "groups", "", "", message))
    if normal := sum(case.kind == "normal" for case in cases):
        message = f"{normal} normal images, which show no lesion: their masks are to be empty"
        findings.append(Finding("note", "normal", "", "", message))
    findings += _compare(seen, groups)
    if split is not None:
        known = [case for case, _ in seen if case.labels]
        findings += checking.check_split(split, {case.patient for case in known})
        findings += _divided(split, [case for case, _ in seen], groups)
    return checking.ordered(findings)


def _check_sizes(cases: Iterable[Case]) -> None:
    """Compare the sizes in the headers, before a training of hours whose test set nobody has read yet."""
    for case in cases:
        sizes = []
        for file in (case.image, *case.labels):
            try:
                with Image.open(file) as picture:
                    sizes.append((picture.height, picture.width))
            except masks.READ_ERRORS as error:
                raise DataError(f"{file}: {checking.unreadable(error)}") from error
            if sizes[-1] != sizes[0]:
                raise DataError(
                    f"{file}: expected the {masks.size_text(sizes[0])} pixels of its image, found "
                    f"{masks.size_text(sizes[-1])}; a mask is never resized, draw or export it on its image"
                )


def _with_groups(cases: Sequence[Case], groups: Iterable[int]) -> list[Case]:
    """The cases, sorted, with the first of their group as their patient."""
    first: dict[int, str] = {}
    return [
        case._replace(patient=first.setdefault(int(group), case.name))
        for case, group in zip(cases, groups, strict=True)
    ]


class _Facts(NamedTuple):
    """What is compared between cases: the image's file, a hash of its pixels, and how it looks."""

    file: str
    digest: str
    look: np.ndarray


def _examine(root: Path, case: Case) -> tuple[list[Finding], _Facts | None]:
    """What is wrong with one case on its own."""
    findings, report = checking.reporting(case.name, root)
    facts = size = None
    if not case.name.isascii():
        path = case.image or case.labels[0]
        report("note", "not-ascii", path, "a name that is not ASCII, which some programs cannot open")
    if case.image:
        try:
            mask_check.verify(case.image)
            with Image.open(case.image) as stored:
                picture, mode = stored.convert("RGB"), stored.mode
        except masks.READ_ERRORS as error:
            report("error", "unreadable", case.image, checking.unreadable(error))
        else:
            _examine_image(picture, mode, case.image, report)
            size = (picture.height, picture.width)
            digest = hashlib.blake2b(repr(size).encode() + picture.tobytes(), digest_size=16).hexdigest()
            facts = _Facts(relative(case.image, root), digest, repeats.describe(picture))
    lesion = mask_check.examine(case.labels, size, report) if case.labels else None
    if lesion is not None:
        _examine_lesion(lesion, case, report)
    return findings, facts


def _examine_image(picture: Image.Image, mode: str, path: Path, report: Report) -> None:
    if mode not in ("RGB", "L"):
        severity = "note" if mode in ("RGBA", "LA", "P") else "warning"
        report(severity, "mode", path, f"expected a grey or RGB picture of 8 bits, found mode {mode}")
    if min(picture.size) < SMALL:
        size = masks.size_text(picture.size[::-1])
        report("warning", "small", path, f"expected {SMALL} pixels or more each way, found {size}")
    if all(low == high for low, high in picture.getextrema()):
        report("warning", "blank", path, "expected an image, found the same value everywhere")


def _examine_lesion(lesion: np.ndarray, case: Case, report: Report) -> None:
    """Whether there is a lesion where one is to be."""
    first, share = case.labels[0], float(lesion.mean())
    if case.kind == "normal" and share:
        report("warning", "lesion", first, "expected an empty mask of a normal image, found a lesion")
    if case.kind != "normal" and not share:
        severity = "warning" if case.kind else "note"
        report(severity, "empty", first, "an empty mask: no lesion in this image")
    if share > FULL:
        report("warning", "full", first, f"a mask that covers {share:.0%} of the image: inverted?")


def _compare(seen: list[tuple[Case, _Facts]], groups: Iterable[int]) -> list[Finding]:
    """Near-identical images of different patients or classes, or where two views are expected."""
    findings = []
    alike = defaultdict(list)
    for one, group in zip(seen, groups, strict=True):
        alike[group].append(one)
    for members in alike.values():
        for number, (case, facts) in enumerate(members):
            same = [c for c, f in members[:number] if f.digest == facts.digest and c.patient != case.patient]
            others = [c for c, _ in members[:number] if c.patient != case.patient]
            views = [c for c, _ in members[:number] if c.patient == case.patient and not case.kind]
            classes = [c for c, _ in members[:number] if c.kind != case.kind]
            if same:
                message = (
                    f"holds the same pixels as {same[0].name} of another patient: folds could share them"
                )
                findings.append(Finding("error", "duplicate", case.name, facts.file, message))
            elif others:
                message = f"looks like {others[0].name} of another patient: folds could share a lesion"
                findings.append(Finding("warning", "repeat", case.name, facts.file, message))
            if views:
                message = f"expected another view than {views[0].name}, found a near-identical image"
                findings.append(Finding("warning", "views", case.name, facts.file, message))
            if classes:
                message = f"looks like {classes[0].name}, though that is in another class"
                findings.append(Finding("warning", "classes", case.name, facts.file, message))
    return findings


def _divided(split: str | Path, cases: Sequence[Case], groups: Iterable[int]) -> list[Finding]:
    """Images of one patient, or near-identical ones, that a split puts into different folds.

    The split may name cases as well as patients; `checking.check_split` reports a patient named twice.
    """
    folds = {name: number for number, fold in enumerate(read_split(split)) for name in fold}
    together = defaultdict(list)
    for case, group in zip(cases, groups, strict=True):
        fold = folds.get(case.name, folds.get(case.patient))
        if fold is not None:
            together["patient", case.patient].append((case.name, fold))
            together["look", group].append((case.name, fold))
    return checking.divided(split, together.values())

"""What can be wrong with mammograms, the contours drawn on them, and the table that lists them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.datasets import checking
from pipelines.datasets import inbreast_contours as contours
from pipelines.datasets.checking import Finding, Report, natural, relative
from pipelines.datasets.inbreast_layout import Case, Row, discover, read_table, table_file
from pipelines.datasets.masks import size_text
from pipelines.errors import DataError
from pipelines.folds import read_split
from pipelines.mammograms import Header, OtherModality, read_mammogram

BIRADS = ("0", "1", "2", "3", "4", "4a", "4b", "4c", "5", "6")
DENSITIES = ("1", "2", "3", "4")
STRIP = 0.05  # of the width, along either edge, where the chest wall is looked for
SIDES = {"L": "left", "R": "right"}


def check(
    root: str | Path, workers: int = 2, progress: bool | None = None, split: str | Path | None = None
) -> list[Finding]:
    """Read every file to its end and list what is wrong or unusual, the worst first.

    Args:
        root: the folder that holds `AllDICOMs` and `AllXML`, or the release's with them in it.
        workers: how many processes read; each holds one image in memory at a time.
        progress: show a bar on standard error; None shows it on a terminal only.
        split: a split file (see `pipelines.folds`) to compare with the data.

    Raises:
        DataError: where there is no data at all, or `split` is not one.
    """
    root = Path(root)
    cases, findings = discover(root)
    rows, wrong = _table(root, [case for case in cases if case.image])
    findings += wrong
    items = [(case, rows.get(case.name)) for case in cases]
    results = checking.each(partial(_examine, root), items, workers, progress)
    findings += [finding for found, _ in results for finding in found]
    seen = [(case, facts) for case, (_, facts) in zip(cases, results, strict=True)]
    findings += _repeats(seen) + _summaries([facts for _, facts in seen])
    images = [case for case in cases if case.image]
    if normal := sum(case.contours is None for case in images):
        message = f"{normal} of {len(images)} images have no contours: their masks are to be empty"
        findings.append(Finding("note", "normal", "", "", message))
    if split is not None:
        findings += checking.check_split(split, {case.patient for case in images})
        findings += _divided(split, images)
    return checking.ordered(findings)


class _Facts(NamedTuple):
    """What is compared between cases, and counted over them."""

    file: str
    digest: str  # of the pixels, "" where they cannot be read
    names: Counter[str]  # of the contours
    marks: int  # contours of one or two points


def _table(root: Path, cases: Sequence[Case]) -> tuple[dict[str, Row], list[Finding]]:
    """What the table says, and how it does not fit the images."""
    path = table_file(root)
    if path is None:
        message = "expected the release's table, with side, view, density and BI-RADS, found none"
        return {}, [Finding("warning", "table", "", "INbreast.csv", message)]
    file = relative(path, root)
    try:
        rows = read_table(path)
    except DataError as error:
        return {}, [Finding("error", "table", "", file, str(error).removeprefix(f"{path}: "))]
    findings = []
    for name in sorted(set(rows) - {case.name for case in cases}, key=natural):
        message = f"lists image {name}, of which there is no mammogram"
        findings.append(Finding("warning", "absent", name, file, message))
    for case in cases:
        if case.name not in rows:
            message = f"expected a row for the image in {path.name}, found none"
            findings.append(Finding("warning", "unlisted", case.name, relative(case.image, root), message))
    for name, row in rows.items():
        if row.birads not in BIRADS:
            message = f"expected BI-RADS of {', '.join(BIRADS)}, found {row.birads or 'none'}"
            findings.append(Finding("warning", "birads", name, file, message))
    if blank := sum(row.density not in DENSITIES for row in rows.values()):
        message = f"{blank} of {len(rows)} rows give no density (ACR 1 to 4)"
        findings.append(Finding("note", "density", "", file, message))
    return rows, findings


def _examine(root: Path, item: tuple[Case, Row | None]) -> tuple[list[Finding], _Facts]:
    """What is wrong with one image and its contours."""
    case, row = item
    findings, report = checking.reporting(case.name, root)
    header, digest = None, ""
    if case.image:
        try:
            values, header = read_mammogram(case.image)
        except OtherModality as error:
            report("error", "modality", case.image, _without(error, case.image))
        except DataError as error:
            report("error", "unreadable", case.image, _without(error, case.image))
        else:
            digest = hashlib.blake2b(
                repr(header.size).encode() + values.tobytes(), digest_size=16
            ).hexdigest()
            _examine_header(case, header, report)
            _examine_pixels(case, values, report)
        if row is not None:
            _compare(case, row.side, row.view, "the table says", report)
    rois: list[contours.Roi] = []
    if case.contours:
        try:
            rois = contours.read_rois(case.contours)
        except DataError as error:
            report("error", "unreadable", case.contours, _without(error, case.contours))
        else:
            _examine_rois(rois, header, case.contours, report)
    names = Counter(roi.name for roi in rois)
    file = relative(case.image or case.contours, root)
    return findings, _Facts(file, digest, names, sum(len(roi.points) < 3 for roi in rois))


def _examine_header(case: Case, header: Header, report: Report) -> None:
    _compare(case, header.side, header.view, "its header says", report)
    if np.isnan(header.spacing).any():
        message = (
            "expected a PixelSpacing or an ImagerPixelSpacing, found neither: what depends on mm takes"
            f" {contours.PIXEL} mm"
        )
        report("warning", "spacing", case.image, message)
    if header.raw:
        message = "expected an image for presentation, found one for processing, which looks otherwise"
        report("warning", "raw", case.image, message)


def _compare(case: Case, side: str, view: str, whose: str, report: Report) -> None:
    """Side and view of the file's name with those of another source, where that has them."""
    if side and side != case.side:
        message = f"expected side {case.side}, as the file is called, but {whose} {side}"
        report("error", "side", case.image, message)
    if view and view != case.view:
        message = f"expected view {case.view}, as the file is called, but {whose} {view}"
        report("warning", "view", case.image, message)


def _examine_pixels(case: Case, values: np.ndarray, report: Report) -> None:
    edge = chest_wall(values)
    if values.min() == values.max():
        report("warning", "blank", case.image, "expected a mammogram, found the same value everywhere")
    elif edge and edge != case.side:
        message = (
            f"expected the chest wall at the {SIDES[case.side]} edge, as in side {case.side}, found it at the"
            f" {SIDES[edge]} edge: flipped, or of the other side"
        )
        report("warning", "flipped", case.image, message)


def chest_wall(values: np.ndarray) -> str:
    """The edge of a mammogram at which the breast ends: "L", "R", or "" where it does not show.

    Args:
        values: shape (height, width), brighter where tissue is denser.
    """
    lowest, highest = np.percentile(values[::4, ::4], (0, 99.9))
    tissue = values > lowest + 0.05 * (highest - lowest)
    strip = max(1, round(STRIP * values.shape[1]))
    left, right = tissue[:, :strip].mean(), tissue[:, -strip:].mean()
    return "" if abs(left - right) < 0.1 else "L" if left > right else "R"


def _examine_rois(rois: Sequence[contours.Roi], header: Header | None, path: Path, report: Report) -> None:
    if not rois:
        report("note", "empty", path, "a file without a contour, as if there were none")
    spacing = header.spacing if header else (np.nan, np.nan)
    unknown = sorted({roi.name for roi in rois if contours.label_of(roi, spacing) is None})
    if unknown:
        message = f"expected contours named {contours.known_names()}, found {', '.join(map(repr, unknown))}"
        report("error", "contour-name", path, message)
    if header is None:
        return
    height, width = header.size
    cut = 0
    for number, roi in enumerate(rois, start=1):
        inside = ((roi.points >= -0.5) & (roi.points < (width - 0.5, height - 0.5))).all(axis=1)
        # With a corner inside, something is drawn at least there.
        if not inside.any() and (wrong := _outside(roi, header)):
            report("error", "outside", path, f"contour {number}: {wrong}")
        else:
            cut += not inside.all()
    if cut:
        size = size_text(header.size)
        message = f"{cut} of {len(rois)} contours have points outside the {size} pixels: cut off there"
        report("note", "clipped", path, message)


def _outside(roi: contours.Roi, header: Header) -> str:
    """What is wrong with a contour of which nothing lies in the image, or ""."""
    from transforms.contours import contour_mask  # takes seconds to import, and few images need it
    from transforms.errors import ImageError

    try:
        contour_mask(roi.points, header.size, contours.radius(header.spacing))
    except ImageError as error:
        return str(error)
    return ""


def _without(error: DataError, path: Path) -> str:
    """The message without the file's name, which stands beside it."""
    return str(error).removeprefix(f"{path}: ")


def _repeats(seen: Iterable[tuple[Case, _Facts]]) -> list[Finding]:
    """One image that is there under two names."""
    findings = []
    first: dict[str, Case] = {}
    for case, facts in seen:
        other = first.setdefault(facts.digest, case) if facts.digest else case
        if other is case:
            continue
        if other.patient == case.patient:
            message = f"holds the same pixels as {other.name} of the same patient"
            findings.append(Finding("warning", "duplicate", case.name, facts.file, message))
        else:
            message = f"holds the same pixels as {other.name} of another patient: folds could share them"
            findings.append(Finding("error", "duplicate", case.name, facts.file, message))
    return findings


def _summaries(facts: Iterable[_Facts]) -> list[Finding]:
    """The contours by their names as spelled, and how many of them are no more than marks."""
    names, marks = Counter(), 0
    for one in facts:
        names += one.names
        marks += one.marks
    findings = []
    if names:
        listed = ", ".join(f"{name or 'without a name'} {count}" for name, count in names.most_common())
        findings.append(Finding("note", "names", "", "", f"contours by their names: {listed}"))
    if marks:
        message = f"{marks} of {names.total()} contours are one or two points: drawn as a disc at each"
        findings.append(Finding("note", "marks", "", "", message))
    return findings


def _divided(split: str | Path, cases: Sequence[Case]) -> list[Finding]:
    """Images of one patient that a split by cases puts into different folds."""
    folds = {name: number for number, fold in enumerate(read_split(split)) for name in fold}
    together = defaultdict(list)
    for case in cases:
        fold = folds.get(case.name, folds.get(case.patient))
        if fold is not None:
            together[case.patient].append((case.name, fold))
    return checking.divided(split, together.values())

"""What the integrity checks of all datasets share: findings, workers, comparisons across cases, the table."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from pipelines.errors import DataError
from pipelines.folds import read_split

if TYPE_CHECKING:
    from pipelines.datasets.nifti import Header

Item = TypeVar("Item")
Result = TypeVar("Result")

SEVERITIES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


@dataclass(frozen=True)
class Finding:
    """One thing to know about a dataset.

    Attributes:
        severity: "error" where training on it would fail or mislead, "warning" where a person should look,
            "note" where it is unusual but sound.
        kind: one word for what it is, the same in every case.
        case: the case's name, or "" where it concerns the dataset.
        file: relative to the dataset's root, or "".
        message: what was expected and what was found.
    """

    severity: str
    kind: str
    case: str
    file: str
    message: str


Report = Callable[[str, str, Path, str], None]  # takes severity, kind, file and message


def reporting(case: str, root: Path) -> tuple[list[Finding], Report]:
    """The findings of a case, none yet, and a function that adds one of a file below `root`."""
    findings: list[Finding] = []

    def report(severity: str, kind: str, path: Path, message: str) -> None:
        findings.append(Finding(severity, kind, case, relative(path, root), message))

    return findings, report


def unreadable(error: Exception) -> str:
    """What to say of a file, whose name stands beside it, for what a reader raised."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return f"cannot be read to its end; download or export it again ({reason})"


def relative(path: Path, root: Path) -> str:
    """The path from `root`, with forward slashes."""
    return Path(os.path.relpath(path, root)).as_posix()


def natural(name: str) -> list:
    """A sort key by which volume-9 comes before volume-10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """By severity, then case, then file."""
    ranks = list(SEVERITIES)
    return sorted(findings, key=lambda f: (ranks.index(f.severity), natural(f.case), natural(f.file), f.kind))


def each(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int = 2, progress: bool | None = None
) -> list[Result]:
    """`function` of every item, in order, in worker processes, with a progress bar on standard error.

    Args:
        function: a function of a module, since workers find it by its name.
        items: small ones, such as paths.
        workers: how many processes; with one, all is done in this process.
        progress: show a bar; None shows it on a terminal only.

    Raises:
        DataError: where a worker process was killed.
    """
    bar = tqdm(
        total=len(items), desc="check", unit="case", disable=None if progress is None else not progress
    )
    results = []
    with bar:
        if workers <= 1 or len(items) <= 1:
            for item in items:
                results.append(function(item))
                bar.update()
            return results
        # spawn: a fork would copy the locks of threads that torch or a notebook may have running here.
        pool = ProcessPoolExecutor(min(workers, len(items)), mp_context=get_context("spawn"))
        try:
            for result in pool.map(function, items):
                results.append(result)
                bar.update()
        except BrokenProcessPool:
            raise DataError(
                f"expected to check {len(items)} cases, but a worker process was killed after {len(results)},"
                " most often because memory ran out; try --workers 1"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
    return results


def affine_gap(first: np.ndarray, second: np.ndarray, shape: Sequence[int]) -> float:
    """How far apart two affines (4x4, mm) put a corner of the grid at most, in voxels of the first.

    The unit is the smallest spacing of the first affine.
    """
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in shape))])
    apart = np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1)
    return float(apart.max() / np.linalg.norm(first[:3, :3], axis=0).min())


def outliers(values: Mapping[str, float], factor: float) -> tuple[list[str], float]:
    """The names whose positive value lies far from the others, and the median.

    Far is more than 5 robust standard deviations (1.4826 times the median absolute deviation) from the median
    on a logarithmic scale, and more than the given factor, so that where nearly all agree not every small
    difference is an outlier. Fewer than 5 values have no outlier.
    """
    median = float(np.median(list(values.values()))) if values else 0.0
    if len(values) < 5:
        return [], median
    distance = {name: abs(np.log(value / median)) for name, value in values.items()}
    far = max(5 * 1.4826 * float(np.median(list(distance.values()))), float(np.log(factor)))
    return [name for name, d in distance.items() if d > far], median


def repeats(digests: Mapping[str, str]) -> list[list[str]]:
    """The groups of names that have the same digest."""
    groups = defaultdict(list)
    for name, digest in digests.items():
        groups[digest].append(name)
    return [names for names in groups.values() if len(names) > 1]


def duplicates(digests: Mapping[str, str], files: Mapping[str, str]) -> list[Finding]:
    """An error for each case that holds the same voxels as an earlier one; both arguments are by case."""
    findings = []
    for names in repeats(digests):
        first, *others = sorted(names, key=natural)
        for name in others:
            message = f"holds the same voxels as {files[first]}, so that folds could share them"
            findings.append(Finding("error", "duplicate", name, files[name], message))
    return findings


def far_sizes(
    sizes: Mapping[str, Mapping[str, float]], files: Mapping[str, str], factors: Mapping[str, float]
) -> list[Finding]:
    """A warning for each size of a case that is an outlier.

    Args:
        sizes: of each case, by name, as `nifti.Header.sizes` gives them.
        files: of each case.
        factors: for each size, see `outliers`.
    """
    findings = []
    for size, factor in factors.items():
        far, median = outliers({case: its[size] for case, its in sizes.items() if size in its}, factor)
        for name in far:
            message = f"{size} of {sizes[name][size]:.3g}, far from the median of {median:.3g}"
            findings.append(Finding("warning", "outlier", name, files[name], message))
    return findings


def compare_grids(image: Header, mask: Header, path: Path, report: Report) -> None:
    """Report where a mask, whose file is `path`, does not lie on its volume's grid."""
    if image.shape != mask.shape:
        report("error", "shape", path, f"expected its volume's shape {image.shape}, found {mask.shape}")
        return
    gap = affine_gap(image.affine, mask.affine, image.shape)
    if gap > 1:
        message = f"expected its volume's affine, found one that puts a corner {gap:.1f} voxels away"
        report("error", "affine", path, message)
    elif gap > 1e-3:
        message = f"its affine differs from its volume's by {gap:.3f} voxels at a corner"
        report("warning", "affine", path, message)


def check_split(path: str | Path, patients: Collection[str]) -> list[Finding]:
    """What is wrong between a split file and the patients of a dataset.

    Raises:
        DataError: where the file is not of the form that `folds.read_split` reads.
    """
    folds = read_split(path)
    name = Path(path).name
    findings = []
    for patient, count in Counter(p for fold in folds for p in fold).items():
        if count > 1:
            where = ", ".join(str(i) for i, fold in enumerate(folds) if patient in fold)
            message = f"expected patient {patient} in one fold, found in folds {where}"
            findings.append(Finding("error", "two-folds", patient, name, message))
        if patient not in patients:
            message = f"expected a labelled case of patient {patient}, whom the split names, found none"
            findings.append(Finding("error", "absent", patient, name, message))
    left_out = sorted(set(patients) - set().union(*folds), key=natural)
    if left_out:
        some = ", ".join(left_out[:5]) + (", ..." if len(left_out) > 5 else "")
        message = f"expected every patient in a fold, found {len(left_out)} in none: {some}"
        findings.append(Finding("error", "no-fold", "", name, message))
    return findings


def divided(split: str | Path, groups: Iterable[Sequence[tuple[str, int]]]) -> list[Finding]:
    """What belongs together, but lies in different folds; `check_split` tells of a name that is there twice.

    Args:
        split: the split's file, to name it.
        groups: names of one patient, or of images that look alike, each with its fold.
    """
    findings = {}
    for (first, fold), *others in groups:
        for name, its in others:
            if its != fold and name != first:
                message = (
                    "expected images of one patient, or near-identical ones, in one fold, found"
                    f" {first} in fold {fold} and {name} in fold {its}"
                )
                findings[first, name] = Finding("error", "divided", name, Path(split).name, message)
    return list(findings.values())


def summary(findings: Iterable[Finding]) -> str:
    """Such as "1 error, 0 warnings, 3 notes"."""
    counts = Counter(f.severity for f in findings)
    return ", ".join(f"{counts[s]} {s}{'' if counts[s] == 1 else 's'}" for s in SEVERITIES)


def table(findings: Iterable[Finding]) -> Table:
    """The findings as a table for a terminal, in the given order."""
    result = Table("severity", "case", "file", "finding")
    result.columns[0].no_wrap = result.columns[1].no_wrap = True
    result.columns[2].overflow = "fold"  # a name cut short with an ellipsis could not be found
    for f in findings:
        # Text, since a square bracket in a file's name is markup in a plain string.
        result.add_row(Text(f.severity, SEVERITIES[f.severity]), Text(f.case), Text(f.file), Text(f.message))
    return result

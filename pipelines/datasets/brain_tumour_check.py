"""What is wrong with a dataset of brain tumours: `featherseg check brain_tumour`."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.datasets import brain_tumour_codings as codings
from pipelines.datasets import brain_tumour_evidence as evidence
from pipelines.datasets import checking, decathlon, mr_grids, nifti
from pipelines.datasets.brain_tumour_layout import SEQUENCES, TASK, Examination, discover
from pipelines.datasets.checking import Finding, Report, relative, unreadable

# How many times larger or smaller than the median is worth a warning: raw cases of one hospital differ.
SIZES = {"width": 1.6, "depth": 1.6, "slice count": 8, "pixel spacing": 1.6, "slice spacing": 8}

STRIPPED = 0.25  # of a volume is background at least, once the skull is taken off: a tight box has a half
OUTSIDE = (0.01, 0.1)  # of a tumour outside the brain: a warning, an error
NAMES = {"t1": "t1w", "t1ce": "t1gd", "t2": "t2w"}  # for what dataset.json may call a channel


class Part(NamedTuple):
    """One sequence of an examination, or its mask, as read."""

    name: str
    path: Path
    header: nifti.Header
    voxels: np.ndarray


class Facts(NamedTuple):
    """What is compared between cases: a hash of each sequence, sizes, and what anatomy says of the labels."""

    case: str
    files: dict[str, str]  # by sequence
    digests: dict[str, str]  # by sequence
    sizes: dict[str, float]
    labels: frozenset[int]
    faces: dict[int, int]
    order: str | None


def check(
    root: str | Path,
    workers: int = 2,
    progress: bool | None = None,
    split: str | Path | None = None,
    label_coding: str = "msd",
) -> list[Finding]:
    """Read every file to its end and list what is wrong or unusual, the worst first.

    Args:
        root: as for `index`.
        workers: how many processes read; each holds one examination in memory at a time.
        progress: show a bar on standard error; None shows it on a terminal only.
        split: a split file (see `pipelines.folds`) to compare with the data.
        label_coding: of the masks, see `brain_tumour_codings`; where their values or most cases' anatomy
            contradict it, that is an error.

    Raises:
        DataError: where there is no data at all, the split file is not one, or the coding is unknown.
    """
    root = Path(root)
    codings.labels(label_coding)
    cases, findings = discover(root)
    findings += _check_listing(root)
    if split is not None:
        findings += checking.check_split(split, [c.patient for c in cases if c.images and c.label])
    results = checking.each(partial(_examine, root, label_coding), cases, workers, progress)
    findings += [finding for found, _ in results for finding in found]
    facts = [fact for _, fact in results if fact]
    return checking.ordered(findings + _compare(facts, label_coding))


def _check_listing(root: Path) -> list[Finding]:
    """Whether the Decathlon's dataset.json names the channels in the order that is expected."""
    folder = decathlon.find(root, TASK)
    named = decathlon.modalities(folder) if folder else ()
    if not named or [NAMES.get(name.lower(), name.lower()) for name in named] == [
        s.lower() for s in SEQUENCES
    ]:
        return []
    message = f"expected the channels {', '.join(SEQUENCES)}, found {', '.join(named)}"
    return [Finding("error", "order", "", relative(folder / decathlon.LISTING, root), message)]


def _examine(root: Path, coding: str, case: Examination) -> tuple[list[Finding], Facts | None]:
    """What is wrong with one case on its own."""
    findings, report = checking.reporting(case.name, root)
    parts = _sequences(case, report)
    mask = _read("mask", case.label, report) if case.label else None
    for part in parts:
        _examine_sequence(part, report)
    _examine_background(parts, report)
    digests = {part.name: _digest(part) for part in parts if np.ptp(part.voxels) > 0}
    for names in checking.repeats(digests):
        message = f"expected four sequences, found the same voxels as {' and as '.join(names)}"
        report("error", "repeated", next(part.path for part in parts if part.name == names[-1]), message)
    if len(parts) == len(SEQUENCES):
        _examine_grids(parts, report)
    labels = None
    if mask and len(mask.header.shape) != 3:
        report("error", "not-3d", case.label, f"expected a mask of 3 axes, found shape {mask.header.shape}")
    elif mask:
        labels = np.rint(np.nan_to_num(mask.voxels)).astype(np.int64)
        sound = _examine_labels(mask, coding, report)
        labels = labels if sound else None
    reference = next((part for part in parts if part.name == mr_grids.REFERENCE), None)
    if reference and mask and len(mask.header.shape) == 3:
        checking.compare_grids(reference.header, mask.header, case.label, report)
    seen, faces, order = frozenset(), {}, None
    if labels is not None and reference and labels.shape == reference.voxels.shape:
        seen = frozenset(np.unique(labels).tolist())
        if _examine_place(labels, parts, case.label, report):
            faces = evidence.outer_faces(labels)
            order = _order(labels, parts, coding) if len(digests) == len(SEQUENCES) else None
    if not parts:
        return findings, None
    files = {part.name: relative(part.path, root) for part in parts}
    sizes = reference.header.sizes() if reference else {}
    return findings, Facts(case.name, files, digests, sizes, seen, faces, order)


def _sequences(case: Examination, report: Report) -> list[Part]:
    """The sequences that can be read, with three axes each."""
    if len(case.images) != 1:
        found = [_read(*one, report) for one in zip(SEQUENCES, case.images, strict=False)]
        for part in filter(None, found):
            if len(part.header.shape) != 3:
                message = f"expected a sequence of 3 axes, found shape {part.header.shape}"
                report("error", "not-3d", part.path, message)
        return [part for part in found if part and len(part.header.shape) == 3]
    whole = _read("image", case.images[0], report)
    if whole is None:
        return []
    shape = whole.header.shape
    if len(shape) != 4 or shape[-1] != len(SEQUENCES):
        message = f"expected {', '.join(SEQUENCES)} as the last of four axes, found shape {shape}"
        report("error", "channels", whole.path, message)
        return []
    header = nifti.Header(shape[:3], whole.header.affine)
    return [Part(name, whole.path, header, whole.voxels[..., n]) for n, name in enumerate(SEQUENCES)]


def _read(name: str, path: Path, report: Report) -> Part | None:
    try:
        return Part(name, path, *nifti.read_voxels(path))
    except nifti.READ_ERRORS as error:
        report("error", "unreadable", path, unreadable(error))
        return None


def _examine_sequence(part: Part, report: Report) -> None:
    bad = part.voxels.size - np.count_nonzero(np.isfinite(part.voxels))
    if bad:
        message = f"expected grey values, found {bad} voxels of {part.name} that are NaN or infinite"
        report("error", "nonfinite", part.path, message)
        return
    low, high = float(part.voxels.min()), float(part.voxels.max())
    if low == high:
        report("error", "empty", part.path, f"expected a brain in {part.name}, found nothing but {low:g}")
        return


def _examine_background(parts: Sequence[Part], report: Report) -> None:
    """Whether the skull was taken off, leaving 0; said once a case, of the first sequence that differs."""
    for part in parts:
        corners = np.unique(part.voxels[np.ix_(*((0, -1),) * 3)])
        zeros = np.count_nonzero(part.voxels == 0) / part.voxels.size
        if len(corners) == 1 and corners[0] != 0:
            message = (
                f"expected 0 outside the brain, found {corners[0]:g} in the corners of {part.name}: rescaled?"
            )
            return report("warning", "background", part.path, message)
        if zeros < STRIPPED:
            message = f"expected a brain without skull and 0 around it, found {zeros:.0%} of {part.name} 0"
            return report("warning", "skull", part.path, message)
    return None


def _examine_grids(parts: Sequence[Part], report: Report) -> None:
    """What of a raw case has to be registered, and what cannot be."""
    grids = [mr_grids.Grid(part.path, part.header.shape, part.header.affine) for part in parts]
    number = mr_grids.number_of(mr_grids.REFERENCE)
    said = mr_grids.registration(grids, number)
    if said:
        message = f"expected one grid for all sequences, found several, so that they are {said}"
        report("warning", "grids", grids[number].file, message)
    for name, grid in zip(SEQUENCES, grids, strict=True):
        if not (mr_grids.same(grids[number], grid) or mr_grids.seen(grids[number], grid).any()):
            message = f"expected {name} where {mr_grids.REFERENCE} lies, found that they do not overlap"
            report("error", "apart", grid.file, message)


def _examine_labels(mask: Part, coding: str, report: Report) -> bool:
    """Whether the labels are of the coding; what is said of others, and of none."""
    values = np.unique(mask.voxels)
    known = codings.known_labels(coding)
    strange = [float(value) for value in values if not np.isclose(value, known, rtol=0, atol=1e-3).any()]
    if strange:
        fitting = [
            name
            for name in codings.CODINGS
            if all(np.isclose(value, codings.known_labels(name), rtol=0, atol=1e-3).any() for value in values)
        ]
        said = ", ".join(f"{value:g}" for value in strange[:5]) + (", ..." if len(strange) > 5 else "")
        message = f"expected labels {', '.join(map(str, known))} of the coding {coding}, found {said} as well"
        if fitting:
            message += f", which fits the coding {' or '.join(fitting)}; choose it with --label-coding"
        report("error", "coding" if fitting else "labels", mask.path, message)
    elif not np.rint(values).any():
        report("warning", "no-lesion", mask.path, "expected a tumour, found none in the whole mask")
    return not strange


def _examine_place(labels: np.ndarray, parts: Sequence[Part], path: Path, report: Report) -> bool:
    """Whether the tumour lies in the brain, nearly all of it: where any sequence of its shape is not 0."""
    brain = np.any([part.voxels != 0 for part in parts if part.voxels.shape == labels.shape], axis=0)
    tumour = labels != 0
    share = np.count_nonzero(tumour & ~brain) / max(1, np.count_nonzero(tumour))
    if share > OUTSIDE[0]:
        message = f"expected the tumour in the brain, found {share:.0%} of it where all sequences are 0"
        report("error" if share > OUTSIDE[1] else "warning", "outside", path, message)
    return share <= OUTSIDE[1]


def _order(labels: np.ndarray, parts: Sequence[Part], coding: str) -> str | None:
    """See `evidence.wrong_order`; sequences on grids of their own are not judged."""
    fixed = parts[0].header
    if any(
        part.header.shape != fixed.shape or not np.allclose(part.header.affine, fixed.affine, atol=1e-2)
        for part in parts
    ):
        return None
    enhancing = next(label for label, msd in codings.labels(coding).items() if msd == codings.ENHANCING)
    return evidence.wrong_order([part.voxels for part in parts], labels != 0, labels == enhancing)


def _compare(facts: list[Facts], coding: str) -> list[Finding]:
    """What is only seen between cases: copies, far sizes, and what most cases say of coding and order."""
    reference = {f.case: f.files.get(mr_grids.REFERENCE, next(iter(f.files.values()))) for f in facts}
    findings = _copies(facts)
    findings += checking.far_sizes({f.case: f.sizes for f in facts}, reference, SIZES)

    against, judged = evidence.contradicts_coding(coding, [f.faces for f in facts])
    if evidence.mostly(against, judged):
        others = " or ".join(_interchanged(coding, frozenset().union(*(f.labels for f in facts))))
        message = (
            f"expected edema about the core, as the coding {coding} has it, found it the other way about in"
            f" {against} of {judged} cases; choose {others} with --label-coding"
        )
        findings.append(Finding("error", "coding", "", "", message))

    doubted = [f for f in facts if f.order]
    judged = sum(f.order is not None for f in facts)
    if evidence.mostly(len(doubted), judged):
        message = (
            f"expected the sequences {', '.join(SEQUENCES)} in this order, found it contradicted in"
            f" {len(doubted)} of {judged} cases, as in {doubted[0].case}, where {doubted[0].order}"
        )
        return [*findings, Finding("error", "order", "", reference[doubted[0].case], message)]
    for fact in doubted:
        message = f"expected {', '.join(SEQUENCES)} in this order, but {fact.order}: are two interchanged?"
        findings.append(Finding("warning", "order", fact.case, reference[fact.case], message))
    return findings


def _copies(facts: list[Facts]) -> list[Finding]:
    """An error for each case of which a sequence is another case's too."""
    found: dict[str, Finding] = {}
    for sequence in SEQUENCES:
        files = {f.case: f.files[sequence] for f in facts if sequence in f.digests}
        digests = {f.case: f.digests[sequence] for f in facts if sequence in f.digests}
        for finding in checking.duplicates(digests, files):
            found.setdefault(finding.case, finding)
    return list(found.values())


def _interchanged(coding: str, seen: Collection[int]) -> list[str]:
    """The codings in which edema and core have each other's labels, and which have all labels seen."""
    meant = {msd: label for label, msd in codings.labels(coding).items()}
    edema, core = meant[codings.EDEMA], meant[codings.CORE]
    return [
        name
        for name, labels in codings.CODINGS.items()
        if labels.get(core) == codings.EDEMA
        and labels.get(edema) == codings.CORE
        and set(seen) <= {0, *labels}
    ]


def _digest(part: Part) -> str:
    digest = hashlib.blake2b(repr(part.header.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(part.voxels, "<f4"))
    return digest.hexdigest()

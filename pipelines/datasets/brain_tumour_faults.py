"""Broken cases of `brain_tumour`: one for each error that its check knows, and for its warnings."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import nibabel as nib
import numpy as np

from pipelines.datasets.brain_tumour_layout import SEQUENCES
from pipelines.datasets.brain_tumour_writers import Written
from pipelines.folds import write_split

T1, T1GD, T2 = (SEQUENCES.index(name) for name in ("T1w", "T1gd", "T2w"))


def write_faults(
    folder: Path, first: int, save: Callable[[int], Written], sound: Written, patients: list[str]
) -> list[dict]:
    """Write the broken cases and a broken split.

    Args:
        folder: the dataset's root.
        first: the number of the first broken case; the others follow.
        save: writes a number's sound case.
        sound: a case that stays as it is, of which a copy is made.
        patients: of the sound cases.

    Returns:
        For each fault the severity, kind, case and file (relative to `folder`) of the finding to expect.
    """
    faults: list[dict] = []
    cases = map(save, count(first))

    def expect(kind: str, case: Written, file: Path, severity: str = "error") -> None:
        where = file.relative_to(folder).as_posix()
        faults.append({"severity": severity, "kind": kind, "case": case.name, "file": where})

    _broken_files(cases, expect)
    _broken_voxels(cases, expect)
    _broken_masks(cases, expect)
    case = next(cases)
    for source, copy in zip((*sound.images, sound.label), (*case.images, case.label), strict=True):
        shutil.copyfile(source, copy)
    expect("duplicate", case, case.file(0))
    if len(sound.images) > 1:
        _broken_examinations(cases, expect, folder)
    write_split(folder / "split.json", [patients, [patients[0], "9999"]])
    return faults


def _broken_files(cases: map, expect: Callable) -> None:
    """Cut short, empty, absent, and of other axes."""
    case = next(cases)
    os.truncate(case.file(T2), case.file(T2).stat().st_size * 6 // 10)
    expect("unreadable", case, case.file(T2))

    case = next(cases)
    os.truncate(case.label, 0)
    expect("unreadable", case, case.label)

    case = next(cases)
    case.label.unlink()
    several = len(case.images) > 1
    expect("unlabelled" if several else "missing", case, case.label.parent if several else case.label)

    case = next(cases)
    image, voxels = _load(case.file(0))
    _save(image, voxels[None] if several else np.moveaxis(voxels, -1, 0), case.file(0))
    expect("not-3d" if several else "channels", case, case.file(0))


def _broken_voxels(cases: map, expect: Callable) -> None:
    """Sequences that hold what they should not."""
    case = next(cases)
    holes = _sequence(case, T1).astype(np.float32)
    holes[:2, :2, :2] = np.nan
    _put(case, T1, holes)
    expect("nonfinite", case, case.file(T1))

    case = next(cases)
    _put(case, T2, np.zeros_like(_sequence(case, T2)))
    expect("empty", case, case.file(T2))

    case = next(cases)
    _put(case, T1GD, _sequence(case, T1))
    expect("repeated", case, case.file(T1GD))

    case = next(cases)
    plain, contrast = _sequence(case, T1), _sequence(case, T1GD)
    _put(case, T1, contrast)
    _put(case, T1GD, plain)
    expect("order", case, case.file(T1GD), "warning")

    case = next(cases)
    _put(case, 0, _sequence(case, 0) - np.float32(100))
    expect("background", case, case.file(0), "warning")

    case = next(cases)
    head = _sequence(case, 0).copy()
    head[1:-1] += 20
    _put(case, 0, head)
    expect("skull", case, case.file(0), "warning")

    case = next(cases)
    for file in {*case.images, case.label}:
        image, voxels = _load(file)
        nib.save(nib.Nifti1Image(voxels, image.affine @ np.diag((1, 1, 30, 1))), file)
    expect("outlier", case, case.file(T1GD), "warning")


def _broken_masks(cases: map, expect: Callable) -> None:
    """Masks of another size, place or meaning."""

    def mask(
        kind: str, edit: Callable[[np.ndarray], np.ndarray], severity: str = "error", shift: float = 0
    ) -> None:
        case = next(cases)
        image, labels = _load(case.label)
        affine = image.affine.copy()
        affine[0, 3] += shift  # mm
        nib.save(nib.Nifti1Image(edit(labels), affine), case.label)
        expect(kind, case, case.label, severity)

    def other_coding(labels: np.ndarray) -> np.ndarray:
        """Enhancing tumour as 4 where it is 3, and the other way about."""
        return np.where(labels > 2, 7 - labels, labels).astype(np.uint8)

    def partly_outside(labels: np.ndarray) -> np.ndarray:
        strays = labels.copy()
        strays[:2, :2].flat[: max(3, np.count_nonzero(labels) // 30)] = 1
        return strays

    mask("shape", lambda labels: labels[:, :, :-1])
    mask("affine", lambda labels: labels, shift=40)
    mask("labels", lambda labels: np.where(labels > 0, 255, 0).astype(np.uint8))
    mask("coding", other_coding)
    mask("outside", lambda labels: np.roll(labels, labels.shape[0] // 2, axis=0))
    mask("affine", lambda labels: labels, "warning", shift=0.2)
    mask("outside", partly_outside, "warning")
    mask("no-lesion", np.zeros_like, "warning")


def _broken_examinations(cases: map, expect: Callable, folder: Path) -> None:
    """What can be wrong where each sequence is a file of its own."""
    case = next(cases)
    case.file(T2).unlink()
    expect("sequence", case, case.label.parent)

    case = next(cases)
    image, voxels = _load(case.file(T1))
    _save(image, voxels, case.file(T1).with_name(case.file(T1).name.removesuffix(".gz")))
    expect("doubled", case, case.label.parent)

    case = next(cases)
    image, voxels = _load(case.file(T1))
    far = image.affine.copy()
    far[2, 3] += 1000
    nib.save(nib.Nifti1Image(voxels, far), case.file(T1))
    expect("apart", case, case.file(T1))
    expect("grids", case, case.file(T1GD), "warning")

    case = next(cases)
    twin = folder / "again" / case.name
    shutil.copytree(case.label.parent, twin)
    expect("twice", case, twin)


def _sequence(case: Written, channel: int) -> np.ndarray:
    voxels = _load(case.file(channel))[1]
    return voxels if len(case.images) > 1 else voxels[..., channel]


def _put(case: Written, channel: int, voxels: np.ndarray) -> None:
    """Write one sequence of a case, leaving the others."""
    image, whole = _load(case.file(channel))
    if len(case.images) > 1:
        whole = voxels
    else:
        whole = whole.astype(voxels.dtype)
        whole[..., channel] = voxels
    _save(image, whole, case.file(channel))


def _load(path: Path) -> tuple[nib.Nifti1Image, np.ndarray]:
    image = nib.load(path)
    return image, np.asarray(image.dataobj).copy()


def _save(image: nib.Nifti1Image, voxels: np.ndarray, path: Path) -> None:
    nib.save(nib.Nifti1Image(voxels, image.affine), path)

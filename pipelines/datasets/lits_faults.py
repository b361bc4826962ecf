"""Broken LiTS cases: one for each error that `lits.check` knows, and for its warnings."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from pipelines.folds import write_split

Pair = tuple[nib.Nifti1Image, nib.Nifti1Image]
FOLDER = "Training Batch 2"


def write_faults(folder: Path, first: int, make_case: Callable[[int], Pair], original: str) -> list[dict]:
    """Write the broken cases and a broken split.

    Args:
        folder: the dataset's root.
        first: the number of the first broken case; the others follow.
        make_case: gives the sound volume and segmentation of a number.
        original: a sound volume in `folder`, of which a duplicate is made.

    Returns:
        For each fault the severity, kind, case and file (relative to `folder`) of the finding to expect.
    """
    faults: list[dict] = []
    number = first

    def volume(suffix: str = ".nii.gz") -> Path:
        return folder / FOLDER / f"volume-{number}{suffix}"

    def segmentation(suffix: str = ".nii.gz") -> Path:
        return folder / FOLDER / f"segmentation-{number}{suffix}"

    def expect(kind: str, file: Path, severity: str = "error") -> None:
        nonlocal number
        faults.append(
            {
                "severity": severity,
                "kind": kind,
                "case": f"volume-{number}",
                "file": file.relative_to(folder).as_posix(),
            }
        )
        number += 1

    def save(image: nib.Nifti1Image | None, label: nib.Nifti1Image | None, suffix: str = ".nii.gz") -> None:
        for part, path in ((image, volume(suffix)), (label, segmentation(suffix))):
            path.parent.mkdir(parents=True, exist_ok=True)
            if part is not None:
                nib.save(part, path)

    for suffix in (".nii.gz", ".nii"):
        save(*make_case(number), suffix)
        os.truncate(volume(suffix), volume(suffix).stat().st_size * 6 // 10)
        expect("unreadable", volume(suffix))

    save(*make_case(number))
    os.truncate(segmentation(), 0)
    expect("unreadable", segmentation())

    save(make_case(number)[0], None)
    expect("missing", volume())

    save(None, make_case(number)[1])
    expect("missing", segmentation())

    image, label = make_case(number)
    save(image, label.slicer[:, :, :-1])
    expect("shape", segmentation())

    image, label = make_case(number)
    save(image, _like(label, np.where(_array(label) > 0, 255, 0).astype(np.uint8)))
    expect("labels", segmentation())

    image, label = make_case(number)
    holes = _array(image).astype(np.float32)
    holes[:2, :2, :2] = np.nan
    save(_like(image, holes), label)
    expect("nonfinite", volume())

    image, label = make_case(number)
    save(nib.Nifti1Image(_array(image)[:, :, 0], image.affine), label)
    expect("not-3d", volume())

    shutil.copyfile(folder / original, volume("".join(Path(original).suffixes)))
    sound = (folder / original).with_name(Path(original).name.replace("volume", "segmentation"))
    shutil.copyfile(sound, segmentation("".join(sound.suffixes)))
    expect("duplicate", volume("".join(Path(original).suffixes)))

    image, label = make_case(number)
    save(image, nib.Nifti1Image(label.dataobj, _shifted(label.affine, 40)))
    expect("affine", segmentation())

    save(*make_case(number))
    shutil.copyfile(volume(), folder / f"volume-{number}.nii.gz")
    expect("twice", volume())

    image, label = make_case(number)
    save(image, nib.Nifti1Image(label.dataobj, _shifted(label.affine, 0.2)))
    expect("affine", segmentation(), "warning")

    image, label = make_case(number)
    save(_like(image, (_array(image).clip(-1024, 1024) / 2048 + 0.5).astype(np.float32)), label)
    expect("intensity", volume(), "warning")

    image, label = make_case(number)
    save(image, _like(label, np.zeros_like(_array(label))))
    expect("no-liver", segmentation(), "warning")

    image, label = make_case(number)
    far = image.affine @ np.diag((1, 1, 30, 1))
    save(nib.Nifti1Image(image.dataobj, far), nib.Nifti1Image(label.dataobj, far))
    expect("outlier", volume(), "warning")

    patients = [str(n) for n in range(first)]
    write_split(folder / "split.json", [patients, [patients[0], "9999"]])
    return faults


def _array(image: nib.Nifti1Image) -> np.ndarray:
    return np.asarray(image.dataobj)


def _like(image: nib.Nifti1Image, array: np.ndarray) -> nib.Nifti1Image:
    return nib.Nifti1Image(array, image.affine)


def _shifted(affine: np.ndarray, distance: float) -> np.ndarray:
    """The affine moved by a distance in mm along x."""
    moved = np.array(affine)
    moved[0, 3] += distance
    return moved

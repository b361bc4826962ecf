"""Broken DCE-US patients: one for each fault that a pair of image and mask can have."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image


def write_faults(folder: Path, first: int, save: Callable[[int], tuple[Path, Path]]) -> list[dict]:
    """Write the broken patients; only the first view of each has the fault, but for the name.

    In this order: the mask of another size; the image cut short; the mask empty; no mask; no image; a name
    that is not ASCII (both views); the lesion in two masks, `PatientNNN_img1.png` and `_img1_1.png`; image
    and mask of Patient001; a mask with the grey values of JPEG.

    Args:
        folder: the dataset's root, with a sound Patient001.
        first: the number of the first broken patient; the others follow.
        save: writes a number's sound patient and returns the paths of the first view's image and mask.

    Returns:
        For each fault the severity, kind, case and file (relative to `folder`) of the finding to expect.
    """
    faults: list[dict] = []
    patients = map(save, count(first))

    def expect(severity: str, kind: str, file: Path) -> None:
        file = file.relative_to(folder)
        faults.append({"severity": severity, "kind": kind, "case": file.stem, "file": file.as_posix()})

    _, mask = next(patients)
    lesion = _read(mask)
    lesion.resize((lesion.width // 2, lesion.height // 2), Image.Resampling.NEAREST).save(mask)
    expect("error", "size", mask)

    image, _ = next(patients)
    os.truncate(image, image.stat().st_size * 6 // 10)
    expect("error", "unreadable", image)

    _, mask = next(patients)
    Image.new("L", _read(mask).size).save(mask)
    expect("note", "empty", mask)

    image, mask = next(patients)
    mask.unlink()
    expect("error", "missing", image)

    image, mask = next(patients)
    image.unlink()
    expect("error", "missing", mask)

    image, _ = next(patients)
    for path in sorted(folder.glob(f"*/{image.name.split('_')[0]}_*")):
        path = path.rename(path.with_name(path.name.replace("Patient", "Patiënt")))
        if path.parent == image.parent:
            expect("note", "not-ascii", path)

    _, mask = next(patients)
    lesion = np.asarray(_read(mask))
    left = np.arange(lesion.shape[1]) < round(np.nonzero(lesion)[1].mean())
    Image.fromarray(lesion * left).save(mask)
    Image.fromarray(lesion * ~left).save(mask.with_stem(f"{mask.stem}_1"))
    expect("note", "several", mask)

    image, mask = next(patients)
    for path in (image, mask):
        shutil.copyfile(path.with_name("Patient001_img1.png"), path)
    expect("error", "duplicate", image)

    _, mask = next(patients)
    jpeg = io.BytesIO()
    _read(mask).save(jpeg, "JPEG", quality=50)
    Image.open(jpeg).save(mask)
    expect("note", "grey", mask)
    return faults


def _read(mask: Path) -> Image.Image:
    with Image.open(mask) as stored:
        return stored.convert("L")

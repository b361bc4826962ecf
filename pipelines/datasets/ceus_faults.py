"""Broken CEUS patients: one for each fault that a clip, its mask or the two together can have."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image

CLIP = "clip.dcm"


def write_faults(folder: Path, first: int, save: Callable[..., Path]) -> list[dict]:
    """Write the broken patients.

    In this order: the mask of another size; the clip cut short; a picture cut short; the mask empty; full; on
    the B-mode panel; no mask; no clip; two clips; a name that is not ASCII; the lesion in two masks; the mask
    saved as JPEG; another modality; no timing; a single panel; a single frame; the clip of the first patient;
    the same, darker and without its last second.

    Args:
        folder: the dataset's root.
        first: the number of the first broken patient; the others follow.
        save: writes a number's sound patient as the form and the file that are given, and returns its folder.
            `like` is the number of another patient to draw, `change` is applied to what is drawn.

    Returns:
        For each fault the severity, kind, case and file (relative to `folder`) of the finding to expect.
    """
    faults: list[dict] = []
    numbers = count(first)

    def patient(form: str = "rgb", file: str = CLIP, **options: Any) -> Path:
        return save(next(numbers), form=form, file=file, **options)

    def expect(severity: str, kind: str, file: Path) -> None:
        place = file.relative_to(folder)
        faults.append({"severity": severity, "kind": kind, "case": place.parts[0], "file": place.as_posix()})

    mask = patient() / "mask.png"
    lesion = _read(mask)
    lesion.resize((lesion.width // 2, lesion.height // 2), Image.Resampling.NEAREST).save(mask)
    expect("error", "size", mask)

    for file in (patient() / CLIP, patient("png", "") / "frame-12.png"):
        os.truncate(file, file.stat().st_size * 6 // 10)
        expect("error", "unreadable", file)

    for kind, value in (("empty", 0), ("full", 255)):
        mask = patient() / "mask.png"
        Image.new("L", _read(mask).size, value).save(mask)
        expect("warning", kind, mask)

    expect("error", "outside", patient(change=_on_the_bmode_panel) / "mask.png")

    where = patient()
    (where / "mask.png").unlink()
    expect("error", "unlabelled", where)

    where = patient()
    (where / CLIP).unlink()
    expect("error", "missing", where)

    where = patient()
    (where / "clip 2.dcm").write_bytes((where / CLIP).read_bytes())
    expect("error", "clips", where)

    where = patient()
    expect("note", "not-ascii", where.rename(where.with_name(f"{where.name} Müller")))

    mask = patient() / "mask.png"
    lesion = np.asarray(_read(mask))
    left = np.arange(lesion.shape[1]) < round(np.nonzero(lesion)[1].mean())
    Image.fromarray(lesion * left).save(mask)
    Image.fromarray(lesion * ~left).save(mask.with_name("mask_1.png"))
    expect("note", "several", mask)

    mask = patient() / "mask.png"
    _read(mask).save(mask.with_suffix(".jpg"), quality=50)
    mask.unlink()
    expect("note", "grey", mask.with_suffix(".jpg"))

    clip = patient() / CLIP
    _edit(clip, Modality="MR")
    expect("error", "modality", clip)

    clip = patient() / CLIP
    _edit(clip, FrameTime=None, FrameIncrementPointer=None)
    expect("error", "timing", clip)

    expect("error", "panels", patient(change=_one_panel) / CLIP)
    expect("warning", "short", patient(change=_one_frame) / CLIP)
    clip = patient(like=1) / CLIP
    original = next(file for file in (folder / "P001").iterdir() if file.stem != "mask")
    clip.write_bytes(original.read_bytes())
    expect("error", "duplicate", clip)

    expect("warning", "repeat", patient(like=1, change=_darker) / CLIP)
    return faults


def _read(mask: Path) -> Image.Image:
    with Image.open(mask) as stored:
        return stored.convert("L")


def _edit(clip: Path, **elements: str | None) -> None:
    """Change elements of a DICOM file, or remove those that are None."""
    dataset = pydicom.dcmread(clip)
    for keyword, value in elements.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(clip)


def _on_the_bmode_panel(drawn: Any) -> Any:
    move = drawn.boxes["bmode"][1] - drawn.boxes["contrast"][1]
    return drawn._replace(lesion=np.roll(drawn.lesion, move, axis=1))


def _one_panel(drawn: Any) -> Any:
    top, left, height, width = drawn.boxes["contrast"]
    part = np.s_[top : top + height, left : left + width]
    return drawn._replace(frames=(frame[part] for frame in drawn.frames), lesion=drawn.lesion[part])


def _one_frame(drawn: Any) -> Any:
    frames = list(drawn.frames)
    return drawn._replace(frames=[frames[len(frames) // 2]])


def _darker(drawn: Any) -> Any:
    return drawn._replace(frames=(frame // 4 * 3 for frame in list(drawn.frames)[:-2]))

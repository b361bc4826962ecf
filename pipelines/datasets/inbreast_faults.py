"""Broken INbreast patients: one for each error that `inbreast_check` knows, and for its warnings."""

from __future__ import annotations

import os
import plistlib
import shutil
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Protocol

import numpy as np
import pydicom

from pipelines.datasets.inbreast_layout import RELEASE, TABLE
from pipelines.datasets.inbreast_writers import write_contours, write_mammogram
from pipelines.folds import write_split
from pipelines.mammograms import read_mammogram


class Saved(Protocol):
    """The files of one sound image, and its row of the table."""

    image: Path
    contours: Path | None
    row: tuple[str, ...]


def write_faults(
    folder: Path, first: int, rows: list[tuple[str, ...]], save: Callable[[int], Sequence[Saved]]
) -> list[dict]:
    """Write the broken patients; of each only the first image that has contours keeps, with the fault.

    Args:
        folder: the dataset's root.
        first: the number of the first broken patient; the others follow.
        rows: of the table, to which those of the broken patients are added.
        save: writes a number's sound patient.

    Returns:
        For each fault the severity, kind, case and file (relative to `folder`) of the finding to expect.
    """
    faults: list[dict] = []
    numbers = count(first)
    table = f"{RELEASE}/{TABLE}"

    def expect(severity: str, kind: str, case: str, file: Path | str) -> None:
        file = file if isinstance(file, str) else file.relative_to(folder).as_posix()
        faults.append({"severity": severity, "kind": kind, "case": case, "file": file})

    def one() -> tuple[str, Path, Path]:
        """A sound image with contours: its id, its file and theirs."""
        chosen, *others = sorted(save(next(numbers)), key=lambda files: files.contours is None)
        for other in others:
            other.image.unlink()
            if other.contours:
                other.contours.unlink()
        rows.append(chosen.row)
        return chosen.row[3], chosen.image, chosen.contours

    case, image, _ = one()
    os.truncate(image, image.stat().st_size * 6 // 10)
    expect("error", "unreadable", case, image)

    case, image, _ = one()
    _alter(image, NumberOfFrames=2)
    expect("error", "unreadable", case, image)

    case, image, _ = one()
    _alter(image, Modality="CR")
    expect("error", "modality", case, image)

    case, image, _ = one()
    _alter(image, PresentationIntentType="FOR PROCESSING")
    expect("warning", "raw", case, image)

    case, image, _ = one()
    _alter(image, ImagerPixelSpacing=None)
    expect("warning", "spacing", case, image)

    case, image, _ = one()
    view = "CC" if rows[-1][1] == "MLO" else "MLO"
    _alter(image, ViewPosition=view)
    expect("warning", "view", case, image)

    case, image, _ = one()
    side = rows[-1][0]
    image = image.rename(str(image).replace(f"_MG_{side}_", f"_MG_{'LR'[side == 'L']}_"))
    expect("error", "side", case, image)

    case, image, _ = one()
    _redraw(image, lambda levels: levels[:, ::-1])
    expect("warning", "flipped", case, image)

    case, image, _ = one()
    _redraw(image, np.zeros_like)
    expect("warning", "blank", case, image)

    case, image, _ = one()
    copy = f"99{case[2:]}"
    parts = image.name.split("_")
    again = image.with_name("_".join([copy, parts[1][::-1], *parts[2:]]))
    shutil.copyfile(image, again)
    rows.append((*rows[-1][:3], copy, *rows[-1][4:]))
    expect("error", "duplicate", copy, again)

    _, image, outlines = one()
    image = image.rename(image.with_name("mammogram.dcm"))
    expect("error", "name", "mammogram", image)
    expect("error", "missing", outlines.stem, outlines)

    case, image, outlines = one()
    image.unlink()
    expect("error", "missing", case, outlines)
    expect("warning", "absent", case, table)

    case, image, _ = one()
    rows.pop()
    expect("warning", "unlisted", case, image)

    case, _, _ = one()
    rows[-1] = (*rows[-1][:5], "7")
    expect("warning", "birads", case, table)

    case, _, outlines = one()
    os.truncate(outlines, outlines.stat().st_size * 6 // 10)
    expect("error", "unreadable", case, outlines)

    case, _, outlines = one()
    _change(outlines, lambda roi: roi.update(NumberOfPoints=roi["NumberOfPoints"] + 1))
    expect("error", "unreadable", case, outlines)

    case, _, outlines = one()
    _change(outlines, lambda roi: roi.update(Name="Lump"))
    expect("error", "contour-name", case, outlines)

    case, _, outlines = one()
    away = ["(-40.000000, -30.000000)", "(-20.000000, -30.000000)", "(-20.000000, -10.000000)"]
    _change(outlines, lambda roi: roi.update(Point_px=away, NumberOfPoints=3))
    expect("error", "outside", case, outlines)

    case, _, outlines = one()
    write_contours(outlines, [])
    expect("note", "empty", case, outlines)

    patients = sorted({path.name.split("_")[1] for path in image.parent.glob("*_MG_*")})
    write_split(folder / "split.json", [[patients[0], "absent"], patients])
    expect("error", "two-folds", patients[0], "split.json")
    expect("error", "absent", "absent", "split.json")
    return faults


def _alter(image: Path, **elements: object) -> None:
    """Set elements of a DICOM file, or remove those that are None."""
    dataset = pydicom.dcmread(image)
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(image, enforce_file_format=True)


def _redraw(image: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Write a mammogram again with other levels, uncompressed."""
    levels, header = read_mammogram(image)
    write_mammogram(image, change(levels), header.side, header.view, header.spacing[0], bits=14)


def _change(outlines: Path, change: Callable[[dict], None]) -> None:
    """Change the first contour of a file."""
    content = plistlib.loads(outlines.read_bytes())
    change(content["Images"][0]["ROIs"][0])
    outlines.write_bytes(plistlib.dumps(content, sort_keys=False))

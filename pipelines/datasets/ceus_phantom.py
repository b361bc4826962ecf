"""A phantom of contrast-enhanced ultrasound: for each patient a clip with contrast and B-mode panel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from pipelines.datasets.ceus_anatomy import (
    HYPER,
    HYPO,
    ISOECHOIC,
    ISOECHOIC_HYPO,
    ISOENHANCING,
    RIM,
    Kind,
)
from pipelines.datasets.ceus_faults import write_faults
from pipelines.datasets.ceus_scan import Scan
from pipelines.datasets.ceus_screen import Box, Layout, Screen
from pipelines.datasets.ceus_writers import write_clip
from pipelines.datasets.phantoms import check_options, write_phantom

GENERATOR = 1  # counts up with every change of what is drawn
SECONDS = 25


class Traits(NamedTuple):
    """What a patient is whatever the seed, so that every phantom of a dozen patients holds every trap."""

    kind: Kind
    layout: Layout
    form: str  # how the clip is stored, see `ceus_writers`
    file: str  # its name; "" for pictures
    mask: str = "L"  # the mask's mode
    width: float = 1.0  # of a panel, as a share of the size
    height: float = 0.85  # as a share of its width
    rate: float = 3.0  # frames a second
    suffix: str = ""  # of the patient's folder


TRAITS = (
    Traits(HYPER, Layout(logo=True), "jpeg", "IM_0001"),
    Traits(HYPO, Layout("right", bar=True), "mp4", "bolus.mp4", "1", height=0.8),
    Traits(ISOENHANCING, Layout(header=False, margin=0.05, gap=0.08, line=True), "rgb", "clip.dcm", rate=2),
    Traits(RIM, Layout("right", "grey", logo=True), "avi", "Loop 1.avi", "RGB", 1.125, suffix="达峰"),
    Traits(ISOECHOIC, Layout(margin=0.08, bar=True, column=True), "png", "", height=0.9, rate=1),
    Traits(ISOENHANCING, Layout("right", gap=0.1, ruler=False), "palette", "1.2.826.0.1", "1", rate=2),
    Traits(HYPO, Layout(tint="grey", bar=True, logo=True), "ybr", "A0007.dcm", rate=2),
    Traits(ISOECHOIC_HYPO, Layout("right", margin=0.05, logo=True), "mp4", "clip.mp4", "RGB", height=0.95),
    Traits(HYPER, Layout("right", header=False, gap=0.08, line=True), "jpg", "", "1", 0.9, 0.8, 1),
    Traits(RIM, Layout(ruler=False, column=True), "avi", "bolus.avi", height=0.95),
    Traits(ISOENHANCING, Layout("right", "grey", margin=0.06, bar=True), "jpeg", "clip", "RGB", 1.25, 0.75),
    Traits(ISOECHOIC, Layout(header=False, bar=True, gap=0.015), "palette", "IM_0012", "1", 0.9375, rate=2),
)


class Clip(NamedTuple):
    """What is drawn of a patient.

    Attributes:
        frames: one at a time, uint8 (H, W, 3).
        lesion: on the contrast panel where the probe is at rest, bool (H, W), in one piece.
        boxes: of the panels "contrast" and "bmode", (top, left, height, width).
    """

    frames: Iterable[np.ndarray]
    lesion: np.ndarray
    boxes: dict[str, Box]


def phantom(
    root: str | Path,
    cases: int = 12,
    seed: int = 0,
    size: int = 128,
    faults: bool = False,
    progress: bool | None = None,
) -> bool:
    """Write `P001`, `P002`, ... with a clip of 25 seconds, or its frames, and a `mask.png` each.

    A patient depends on the seed, the size and its own number only. The same arguments give the same bytes
    where the same versions of the codecs do; what the clips show may differ by a grey level or two elsewhere.

    Args:
        root: the folder to make.
        cases: how many patients. Every dozen has all kinds of lesions, screens and ways to store a clip.
        seed: not negative.
        size: about a panel's width in pixels; patients differ by up to a quarter.
        faults: add a patient for each fault of `ceus_faults`, listed in PHANTOM.json under "faults" with the
            finding to expect.
        progress: show a bar; None shows it on a terminal only.

    Returns:
        True where the phantom was written, False where the same one was there.

    Raises:
        DataError: for an option out of range, or where `root` holds anything but an earlier phantom.
    """
    check_options(cases, seed, size, least=64, largest=512)

    def make(folder: Path) -> dict:
        quiet = None if progress is None else not progress
        for number in tqdm(range(1, cases + 1), desc="phantom", unit="case", disable=quiet):
            _save(folder, number, seed, size)
        if not faults:
            return {}
        save = partial(_save, folder, seed=seed, size=size, suffix="")
        return {"faults": write_faults(folder, cases + 1, save)}

    parameters = {"dataset": "ceus", "generator": GENERATOR, "cases": cases, "seed": seed, "size": size}
    return write_phantom(root, {**parameters, "faults": faults}, make)


def _save(
    root: Path,
    number: int,
    seed: int,
    size: int,
    like: int | None = None,
    change: Callable[[Clip], Clip] | None = None,
    **stored: str,
) -> Path:
    """Write a patient; returns its folder.

    Args:
        root: the dataset's root.
        number: of the patient, from 1.
        seed: not negative.
        size: about a panel's width in pixels.
        like: the number of the patient who is drawn instead.
        change: applied to what is drawn.
        stored: the traits `form`, `file` and `suffix`, instead of the patient's own.
    """
    traits = _traits(like or number)._replace(**stored)
    folder = root / f"P{number:03d}{traits.suffix}"
    folder.mkdir()
    clip = draw(like or number, seed, size)
    clip = change(clip) if change else clip
    write_clip(folder / traits.file, clip.frames, traits.rate, traits.form)
    mask = Image.fromarray(clip.lesion.astype(np.uint8) * 255)
    mask.convert(traits.mask, dither=Image.Dither.NONE).save(folder / "mask.png")
    return folder


def _traits(number: int) -> Traits:
    return TRAITS[(number - 1) % len(TRAITS)]


def draw(number: int, seed: int = 0, size: int = 128) -> Clip:
    """One patient's clip, lesion and panels.

    Args:
        number: of the patient, from 1.
        seed: not negative.
        size: about a panel's width in pixels.
    """
    traits = _traits(number)
    width = round(size * traits.width)
    shape = (round(width * traits.height), width)
    gain = 0.0 if traits.layout.tint == "amber" else -4.0
    scan = Scan(np.random.default_rng([seed, number]), shape, traits.kind, gain)
    title = f"CEUS {number:03d}  L12-5  MI 0.07  {traits.rate:g}Hz"
    screen = Screen(traits.layout, shape, scan.pixel, title)
    lesion = np.zeros(screen.size, bool)
    top, left, height, width = screen.boxes["contrast"]
    lesion[top : top + height, left : left + width] = scan.lesion
    times = np.arange(round(SECONDS * traits.rate)) / traits.rate
    return Clip((screen.show(*scan.at(time)) for time in times), lesion, screen.boxes)

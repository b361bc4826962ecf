from __future__ import annotations

import numpy as np
import pydicom
import pytest
from PIL import Image

from pipelines.clips import read_clip
from pipelines.datasets.ceus_screen import tint
from pipelines.datasets.ceus_writers import DICOM, FORMS, IDENTITY, write_clip

RAMP = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8)
FRAMES = [np.concatenate((tint(RAMP + 20 * n, "amber"), tint(RAMP + 20 * n, "grey")), 1) for n in range(5)]
COLOURS = {
    "rgb": "RGB",
    "ybr": "YBR_FULL",
    "jpeg": "YBR_FULL_422",
    "palette": "PALETTE COLOR",
}


def write(folder, form):
    folder.mkdir(exist_ok=True)
    path = folder if form in ("png", "jpg") else folder / f"clip.{form}"
    write_clip(path, iter(FRAMES), 2.5, form)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_a_clip_reads_back_as_it_was_drawn(tmp_path, form):
    found = list(read_clip(write(tmp_path / "a", form), 2.5 if form in ("png", "jpg") else None))
    assert [frame.time for frame in found] == pytest.approx([0, 0.4, 0.8, 1.2, 1.6])
    off = np.array([np.abs(a.image.astype(int) - b) for a, b in zip(found, FRAMES, strict=True)])
    assert off.mean() < (1e-9 if form in ("rgb", "png") else 2.5)
    if form in ("ybr", "palette"):
        assert off.max() <= 6


@pytest.mark.parametrize("form", FORMS)
def test_the_same_frames_give_the_same_bytes(tmp_path, form):
    first, again = (write(tmp_path / name, form) for name in "ab")
    if first.is_dir():
        first, again = first / "frame-3.png", again / "frame-3.png"
        first, again = (path.with_suffix(f".{form}") for path in (first, again))
    assert first.read_bytes() == again.read_bytes()


def test_dicom_files_name_a_made_up_patient_and_hold_their_colours(tmp_path):
    assert COLOURS.keys() == DICOM.keys()
    for form, colours in COLOURS.items():
        header = pydicom.dcmread(write(tmp_path / form, form))
        assert header.PhotometricInterpretation == colours
        assert header.Modality == "US"
        assert header.NumberOfFrames == 5
        assert {keyword: str(header.get(keyword)) for keyword in IDENTITY} == IDENTITY


def test_pictures_are_numbered_without_zeros(tmp_path):
    folder = write(tmp_path / "a", "png")
    assert {path.name for path in folder.iterdir()} == {f"frame-{n}.png" for n in range(5)}
    with Image.open(folder / "frame-4.png") as picture:
        assert np.array_equal(np.asarray(picture), FRAMES[4])

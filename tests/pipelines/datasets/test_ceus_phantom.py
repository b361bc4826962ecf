from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pipelines.clips import read_clip
from pipelines.datasets import ceus, masks
from pipelines.datasets.ceus_phantom import TRAITS, draw, phantom
from pipelines.errors import DataError

NUMBERS = range(1, 13)
CLIPS = {
    "P001": "IM_0001",
    "P002": "bolus.mp4",
    "P003": "clip.dcm",
    "P004达峰": "Loop 1.avi",
    "P005": None,
    "P006": "1.2.826.0.1",
    "P007": "A0007.dcm",
    "P008": "clip.mp4",
    "P009": None,
    "P010": "bolus.avi",
    "P011": "clip",
    "P012": "IM_0012",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "ceus"
    assert phantom(folder, size=64)
    return folder


@pytest.fixture(scope="module")
def listed(root, tmp_path_factory):
    return ceus.index(root, frames_dir=tmp_path_factory.mktemp("frames"))


def digests(root):
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_patient_has_a_clip_or_frames_and_a_mask(root):
    assert {path.name for path in root.iterdir()} == {*CLIPS, "PHANTOM.json"}
    for name, clip in CLIPS.items():
        files = {path.name for path in (root / name).iterdir()}
        ending = "png" if name == "P005" else "jpg"
        frames = {f"frame-{n}.{ending}" for n in range(25)}
        assert files == {"mask.png"} | ({clip} if clip else frames)


def test_clips_last_about_25_seconds_and_show_what_was_drawn(root):
    for number, (name, clip) in enumerate(CLIPS.items(), 1):
        if clip is None:
            continue
        shown = list(read_clip(root / name / clip))
        drawn = list(draw(number, size=64).frames)
        assert len(shown) == len(drawn) >= 50
        assert 24 <= shown[-1].time < 25
        off = [np.abs(a.image.astype(int) - b).mean() for a, b in zip(shown, drawn, strict=True)]
        assert max(off) < 5


def test_masks_lie_on_the_contrast_panel_and_have_the_size_of_a_frame(root):
    modes = []
    for number, name in enumerate(CLIPS, 1):
        clip = draw(number, size=64)
        with Image.open(root / name / "mask.png") as picture:
            modes.append(picture.mode)
            mask = masks.decode(picture)
        assert np.array_equal(mask, clip.lesion)
        assert mask.shape == next(iter(clip.frames)).shape[:2]
        top, left, height, width = clip.boxes["contrast"]
        assert mask[top : top + height, left : left + width].sum() == mask.sum() > 30
        assert ndimage.label(mask)[1] == 1
    assert {mode: modes.count(mode) for mode in set(modes)} == {"1": 4, "L": 5, "RGB": 3}


def test_a_dozen_holds_every_kind_of_screen():
    layouts = [traits.layout for traits in TRAITS]
    assert {layout.contrast for layout in layouts} == {"left", "right"}
    assert {layout.tint for layout in layouts} == {"amber", "grey"}
    for name in ("header", "ruler", "bar", "logo", "line", "column"):
        assert {getattr(layout, name) for layout in layouts} == {True, False}
    assert {"rgb", "ybr", "jpeg", "palette", "avi", "mp4", "png", "jpg"} == {t.form for t in TRAITS}
    assert len({traits.kind for traits in TRAITS}) == 6
    sizes = {next(iter(draw(number, size=64).frames)).shape for number in NUMBERS}
    assert len(sizes) > 8
    assert all(height % 2 == width % 2 == 0 for height, width, _ in sizes)


def assert_panels_are_those_drawn(entries, numbers, size):
    for number in numbers:
        boxes = draw(number, size=size).boxes
        patient = next(entry for entry in entries if entry["patient"].startswith(f"P{number:03d}"))
        for name, (top, left, height, width) in boxes.items():
            found = np.array(patient["panels"][name])
            sides = found[0], found[1], found[0] + found[2], found[1] + found[3]
            off = np.abs(np.subtract(sides, (top, left, top + height, left + width)))
            assert off.max() <= 2, (number, name, off)


def test_panels_are_found_where_they_were_drawn(listed):
    assert_panels_are_those_drawn(listed, NUMBERS, 64)


def test_panels_are_found_at_another_size(tmp_path):
    phantom(tmp_path / "data", size=128)
    found = ceus.index(tmp_path / "data", frames_dir=tmp_path / "frames")
    assert_panels_are_those_drawn(found, NUMBERS, 128)


def best_band(images, truths):
    """The mean Dice of the fixed band of greys, from one level to another, that finds the lesions best."""
    total = np.zeros((256, 256))
    for image, truth in zip(images, truths, strict=True):
        all_below, hit_below = (
            np.concatenate(([0], np.cumsum(np.bincount(values.ravel(), minlength=256))))
            for values in (image, image[truth])
        )
        inside, hit = (below[None, 1:] - below[:-1, None] for below in (all_below, hit_below))
        total += np.triu(2 * hit / np.maximum(inside + truth.sum(), 1))
    return total.max() / len(images)


def test_no_band_of_greys_finds_the_lesions_in_either_panel(listed):
    images, truths = {"contrast": [], "bmode": []}, []
    for entry in listed:
        with Image.open(entry["image"]) as picture:
            grey = np.asarray(picture.convert("L"))
        for name, (top, left, height, width) in entry["panels"].items():
            images[name].append(grey[top : top + height, left : left + width])
        top, left, height, width = entry["panels"]["contrast"]
        truths.append(masks.read(entry["label"])[top : top + height, left : left + width])
    for panel in images.values():
        smooth = [ndimage.gaussian_filter(image, 2) for image in panel]
        assert 0.08 < best_band(panel, truths) < 0.3
        assert 0.08 < best_band(smooth, truths) < 0.3
    marked = [np.where(t, 100, image).astype(np.uint8) for t, image in zip(truths, panel, strict=True)]
    assert best_band(marked, truths) > 0.8  # the search works


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        phantom(tmp_path / name, cases=2, seed=seed, size=64)
    first, again, other = (digests(tmp_path / name) for name in "abc")
    assert first == again
    assert not set(first.values()) & set(other.values())


def test_a_patient_does_not_depend_on_how_many_there_are(tmp_path, root):
    phantom(tmp_path / "few", cases=2, size=64)
    few, many = digests(tmp_path / "few"), digests(root)
    shared = [path for path in few if path.name != "PHANTOM.json"]
    assert len(shared) == 4
    assert all(few[path] == many[path] for path in shared)


def test_the_same_request_again_does_nothing(tmp_path):
    assert phantom(tmp_path / "a", cases=1, size=64)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert not phantom(tmp_path / "a", cases=1, size=64)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert phantom(tmp_path / "a", cases=1, size=64, seed=1)


@pytest.mark.parametrize("options", [{"cases": 0}, {"seed": -1}, {"size": 63}, {"size": 513}])
def test_options_out_of_range_are_refused(tmp_path, options):
    with pytest.raises(DataError, match="expected at least 1 case"):
        phantom(tmp_path / "a", **options)
    assert not (tmp_path / "a").exists()


def test_faults_are_added_behind_the_sound_patients(tmp_path):
    phantom(tmp_path / "broken", cases=1, size=64, faults=True)
    marker = json.loads((tmp_path / "broken/PHANTOM.json").read_text("utf-8"))
    assert {fault["case"][:4] for fault in marker["faults"]} == {f"P{n:03d}" for n in range(2, 20)}
    phantom(tmp_path / "sound", cases=1, size=64)
    sound, broken = digests(tmp_path / "sound"), digests(tmp_path / "broken")
    assert {path: broken[path] for path in sound if path.suffix != ".json"}.items() <= sound.items()
    assert "faults" not in json.loads((tmp_path / "sound/PHANTOM.json").read_text("utf-8"))

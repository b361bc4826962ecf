from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.datasets import ceus_frames
from pipelines.datasets.ceus_frames import Options, find_boxes, key_frames, watch
from pipelines.datasets.ceus_writers import write_clip
from pipelines.errors import DataError
from tests.transforms.panel_frames import Layout, draw

LAYOUT = Layout(size=(96, 112), header=16, margin=4)
STEP = 40


def clip_frames(layout=LAYOUT, jumps=(3, 7), count=10):
    """A frame a second; its header's brightness changes at the jumps and nowhere else."""
    drawn = draw(layout)
    frames = []
    for number in range(count):
        frame = drawn.image.transpose(1, 2, 0).copy()
        frame[:6, -40:] = STEP * sum(number >= jump for jump in jumps)
        frames.append(frame)
    return frames, drawn


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "Müller.dcm"
    write_clip(path, clip_frames()[0], 1, "rgb")
    return path


def boxes(drawn):
    return {"contrast": drawn.contrast, "bmode": drawn.bmode}


def assert_near(found, truth):
    assert found.keys() == truth.keys()
    for name, box in truth.items():
        assert np.abs(np.array(found[name]) - box).max() <= 2


def test_key_frames_of_a_file_are_written_without_loss(clip, tmp_path):
    frames, drawn = clip_frames()
    found = key_frames(clip, Options(2, candidates=2), tmp_path / "out")
    assert [frame.index for frame in found] == [3, 7]
    for frame in found:
        with Image.open(frame.picture) as picture:
            assert np.array_equal(np.asarray(picture), frames[frame.index])
        assert frame.picture.is_relative_to(tmp_path / "out")
        assert_near(frame.panels, boxes(drawn))


def test_key_frames_that_are_pictures_stay_where_they_are(tmp_path):
    frames, drawn = clip_frames()
    write_clip(tmp_path, frames, 1, "png")
    files = tuple(tmp_path / f"frame-{n}.png" for n in range(10))
    found = key_frames(files, Options(2, 2), tmp_path / "out")
    assert [(frame.index, frame.picture) for frame in found] == [(3, files[3]), (7, files[7])]
    assert_near(found[0].panels, boxes(drawn))
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["found.json"]


def test_the_second_call_reads_no_clip(clip, tmp_path, monkeypatch):
    first = key_frames(clip, Options(), tmp_path / "out")
    monkeypatch.setattr(ceus_frames, "read_clip", lambda *_: pytest.fail("the clip was read again"))
    assert key_frames(clip, Options(), tmp_path / "out") == first


def test_another_clip_or_option_is_read_anew(clip, tmp_path):
    folders = set()
    for options in (Options(), Options(count=3), Options(candidates=5), Options(seed=1)):
        folders.add(key_frames(clip, options, tmp_path / "out")[0].picture.parent)
    os.utime(clip, (1, 1))
    folders.add(key_frames(clip, Options(), tmp_path / "out")[0].picture.parent)
    assert len(folders) == 5


def test_a_clip_has_the_same_key_frames_wherever_it_lies(clip, tmp_path):
    elsewhere = shutil.copy(clip, tmp_path / "another name")

    def found(file, seed=0):
        return tuple(frame.index for frame in key_frames(Path(file), Options(seed=seed), tmp_path / "out"))

    assert found(clip) == found(elsewhere)
    assert len({found(clip, seed) for seed in range(9)}) > 1


@pytest.mark.parametrize("lost", ["frame", "found.json"])
def test_what_was_lost_is_written_again_and_nothing_else_is_touched(clip, tmp_path, lost):
    first = key_frames(clip, Options(), tmp_path / "out")
    files = {path: path.read_bytes() for path in first[0].picture.parent.iterdir()}
    assert len(files) == 3
    for path in files:
        os.utime(path, (1, 1))
    gone = next(path for path in files if path.name.startswith(lost))
    gone.unlink()
    assert key_frames(clip, Options(), tmp_path / "out") == first
    assert {path: path.read_bytes() for path in first[0].picture.parent.iterdir()} == files
    assert [path for path in files if path.stat().st_mtime != 1] == [gone]


def test_a_note_that_is_cut_short_is_written_again(clip, tmp_path):
    first = key_frames(clip, Options(), tmp_path / "out")
    note = first[0].picture.with_name("found.json")
    content = note.read_text()
    note.write_text(content[:9])
    assert key_frames(clip, Options(), tmp_path / "out") == first
    assert note.read_text() == content


def test_key_frames_by_hand(tmp_path):
    """40 frames at 2 a second; at full seconds the level jumps by 10 at 3, 4 and 11 s, and by 1 elsewhere."""
    level, frames = 0, []
    for number in range(40):
        if number % 2 == 0:
            level += 10 if number // 2 in (3, 4, 11) else 1
        noise = 100 if number % 2 else 0  # between the seconds, which nobody looks at
        frames.append(np.full((32, 40, 3), level + noise, np.uint8))
    clip, panels = tmp_path / "clip.dcm", tmp_path / "panels.json"
    write_clip(clip, frames, 2, "rgb")
    panels.write_text('{"contrast": [0, 0, 32, 20], "bmode": [0, 20, 32, 20]}')
    seen = {frame.index: frame for frame in watch(clip).frames}
    found = key_frames(clip, Options(3, candidates=3), tmp_path / "out", panels)
    assert [frame.index for frame in found] == [6, 8, 22]
    assert [seen[frame.index].time for frame in found] == pytest.approx([3, 4, 11])
    assert [seen[frame.index].change for frame in found] == pytest.approx([10, 10, 10], abs=1e-3)
    for frame in found:
        with Image.open(frame.picture) as picture:
            assert np.array_equal(np.asarray(picture), frames[frame.index])
    two = key_frames(clip, Options(2, candidates=3), tmp_path / "out", panels)
    assert len(two) == 2
    assert {frame.index for frame in two} < {6, 8, 22}


def test_nothing_that_is_written_names_the_patient(clip, tmp_path):
    key_frames(clip, Options(), tmp_path / "out")
    for path in (tmp_path / "out").rglob("*"):
        assert "Müller" not in path.name
        if path.suffix == ".json":
            text = path.read_text("utf-8")
            assert not any(word in text for word in ("Jane", "Müller", "Mustermann", "4711"))


def test_given_panels_go_before_those_found(clip, tmp_path):
    panels = tmp_path / "panels.json"
    given = {"contrast": [0, 0, 50, 60], "bmode": [0, 70, 50, 60]}
    panels.write_text(json.dumps(given))
    key_frames(clip, Options(), tmp_path / "out")
    assert key_frames(clip, Options(), tmp_path / "out", panels)[0].panels == given


def test_a_single_panel_is_an_error_until_panels_are_given(tmp_path):
    clip, panels = tmp_path / "clip.dcm", tmp_path / "panels.json"
    write_clip(clip, (frame[:, :120] for frame in clip_frames()[0]), 1, "rgb")
    for _ in range(2):  # the second time as the first one found it
        with pytest.raises(DataError, match=r"clip\.dcm: expected .* give both in panels\.json: .*, in /"):
            key_frames(clip, Options(), tmp_path / "out")
    panels.write_text('{"contrast": [0, 0, 50, 50], "bmode": [0, 60, 50, 50]}')
    assert len(key_frames(clip, Options(), tmp_path / "out", panels)) == 2


def test_a_clip_too_small_for_panels_asks_for_them(tmp_path):
    clip = tmp_path / "clip.dcm"
    write_clip(clip, [np.zeros((20, 40, 3), np.uint8)] * 3, 1, "rgb")
    with pytest.raises(DataError, match=r"give both panels in panels\.json"):
        key_frames(clip, Options(), tmp_path / "out")


def test_the_maximum_and_the_darkest_frames_are_kept(tmp_path):
    levels = [90, 10, 80, 20, 70, 30, 60]
    frames = [np.full((32, 40, 3), level, np.uint8) for level in levels]
    for number, frame in enumerate(frames):
        frame[number, 0] = 100 + number
    write_clip(tmp_path / "clip.dcm", frames, 1, "rgb")
    seen = watch(tmp_path / "clip.dcm")
    assert [frame.change for frame in seen.frames] == pytest.approx([80, 80, 70, 60, 50, 40, 30], abs=0.5)
    assert np.array_equal(seen.maximum, np.max(frames, 0))
    assert np.array_equal(seen.darkest, np.max([frames[n] for n in (1, 3, 5)], 0))


def test_a_grey_contrast_panel_as_bright_as_the_other_is_told_by_the_dark_frames(tmp_path):
    layout = LAYOUT._replace(contrast="dark grey", side="right", ruler=True)
    frames, drawn = clip_frames(layout)
    top, left, height, width = drawn.contrast
    bright = draw(layout._replace(side="left"), 5)  # a B-mode image on the right
    for frame in frames[4:]:
        image = bright.image.transpose(1, 2, 0)
        frame[top : top + height, left : left + width] = image[top : top + height, left : left + width]
    write_clip(tmp_path / "clip.dcm", frames, 1, "rgb")
    seen = watch(tmp_path / "clip.dcm")
    assert find_boxes(seen._replace(darkest=seen.maximum))[0] is None
    assert_near(find_boxes(seen)[0], boxes(drawn))

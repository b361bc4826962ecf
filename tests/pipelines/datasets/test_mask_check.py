from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipelines.datasets import mask_check, masks
from pipelines.datasets.checking import reporting

SIZE = (40, 60)  # (height, width)


def drawn(path, left, right, value=255, size=SIZE):
    mask = np.zeros(size, np.uint8)
    mask[10:20, left:right] = value
    Image.fromarray(mask).save(path, quality=90)
    return path


@pytest.fixture
def examined(tmp_path):
    """What is found of the masks that are given by their arguments of `drawn`, by name."""

    def examine(size=SIZE, change=None, **given):
        paths = [drawn(tmp_path / f"{name}.png", *arguments) for name, arguments in given.items()]
        if change:
            change(paths)
        findings, report = reporting("P1", tmp_path)
        lesion = mask_check.examine(paths, size, report)
        return lesion, [(f.severity, f.kind, f.file) for f in findings], [f.message for f in findings]

    return examine


def test_a_sound_mask_is_the_lesion(examined):
    lesion, findings, _ = examined(a=(5, 15))
    assert lesion.dtype == bool
    assert np.argwhere(lesion).min(0).tolist() == [10, 5]
    assert lesion.sum() == 100
    assert findings == []


def test_several_masks_are_joined(examined):
    lesion, findings, _ = examined(a=(5, 15), b=(10, 20))
    assert lesion.sum() == 150
    assert findings == [("note", "several", "a.png")]


def test_each_mask_of_another_size_is_named_and_none_is_resized(examined):
    lesion, findings, messages = examined(a=(5, 15, 255, (40, 61)), b=(5, 15), c=(5, 15, 255, (20, 30)))
    assert lesion is None
    assert findings == [("error", "size", "a.png"), ("error", "size", "c.png")]
    assert "expected its image's 60x40 pixels, found 61x40" in messages[0]


def test_without_an_image_the_first_mask_tells_the_size(examined):
    lesion, findings, messages = examined(None, a=(5, 15), b=(5, 15, 255, (41, 60)))
    assert lesion is None
    assert findings == [("error", "size", "b.png")]
    assert "expected its image's 60x40 pixels, found 60x41" in messages[0]


def test_a_mask_of_no_known_coding(examined, tmp_path):
    lesion, findings, messages = examined(a=(5, 15, 100))
    assert lesion is None
    assert findings == [("error", "labels", "a.png")]
    assert str(tmp_path) not in messages[0]


@pytest.mark.parametrize("at", [0, 30, -20])
def test_a_file_that_is_cut_off_or_damaged(examined, at):
    def change(paths):
        content = bytearray(paths[0].read_bytes())
        content[at] ^= 1
        paths[0].write_bytes(content if at == -20 else content[:at])

    lesion, findings, messages = examined(change=change, a=(5, 15), b=(5, 15))
    assert lesion is None
    assert findings == [("error", "unreadable", "a.png")]
    assert messages[0].startswith("cannot be read to its end; ")


def test_a_mask_that_was_a_jpeg_is_a_note(tmp_path):
    findings, report = reporting("P1", tmp_path)
    lesion = mask_check.examine([drawn(tmp_path / "a.jpg", 5, 15)], SIZE, report)
    assert 90 <= lesion.sum() <= 110
    assert [(f.severity, f.kind) for f in findings] == [("note", "grey")]


def test_verify_raises_what_the_readers_do(tmp_path):
    path = drawn(tmp_path / "a.png", 5, 15)
    mask_check.verify(path)
    path.write_bytes(b"no picture")
    with pytest.raises(masks.READ_ERRORS):
        mask_check.verify(path)

from __future__ import annotations

import numpy as np
import pytest

from pipelines.datasets.ceus_screen import Layout, Screen, tint

SHAPE = (90, 110)
RNG = np.random.default_rng(0)
CONTRAST, BMODE = RNG.integers(0, 60, SHAPE, np.uint8), RNG.integers(60, 256, SHAPE, np.uint8)
LAYOUTS = [
    Layout(header=False, ruler=False),
    Layout("right", margin=0.1, gap=0.2, logo=True),
    Layout("left", "grey", bar=True, column=True),
    Layout("right", "grey", header=False, line=True, bar=True, logo=True, column=True),
]


def cut(frame, box):
    top, left, height, width = box
    return frame[top : top + height, left : left + width]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_images_lie_in_their_boxes(layout):
    screen = Screen(layout, SHAPE, 0.3, "CEUS")
    frame = screen.show(CONTRAST, BMODE)
    assert frame.dtype == np.uint8
    assert frame.shape == (*screen.size, 3)
    assert screen.size[0] % 2 == screen.size[1] % 2 == 0
    shown = {
        "contrast": (cut(frame, screen.boxes["contrast"]) == tint(CONTRAST, layout.tint)).all(-1),
        "bmode": (cut(frame, screen.boxes["bmode"]) == BMODE[..., None]).all(-1),
    }
    for same in shown.values():
        assert same.shape == SHAPE
        assert same.mean() > 0.8  # but for what is burned in
        assert same[:, : SHAPE[1] * 3 // 4].mean() > 0.95
    order = screen.boxes["contrast"][1] < screen.boxes["bmode"][1]
    assert order == (layout.contrast == "left")
    plain = not (layout.ruler or layout.bar or layout.logo)
    assert all(same.all() for same in shown.values()) == plain


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_panels_do_not_overlap_and_are_parted_by_black_or_a_line(layout):
    screen = Screen(layout, SHAPE, 0.3, "CEUS")
    first, second = sorted(screen.boxes.values(), key=lambda box: box[1])
    assert second[1] - first[1] - first[3] >= 2
    gap = screen.show(CONTRAST, BMODE)[first[0] : first[0] + SHAPE[0], first[1] + first[3] : second[1]]
    assert (gap == 0).all() != layout.line


def test_a_header_a_margin_and_a_column_of_text_lie_around_the_panels():
    bare = Screen(Layout(header=False), SHAPE, 0.3, "CEUS")
    full = Screen(Layout(header=True, margin=0.1, column=True), SHAPE, 0.3, "CEUS")
    assert bare.boxes["contrast"][:2] == (0, 0)
    assert full.boxes["contrast"][0] > 20
    assert full.boxes["contrast"][1] == 11
    assert full.size[1] > bare.size[1] + 40
    frame = full.show(CONTRAST, BMODE)
    assert frame[:15].max() > 100
    assert frame[:, full.boxes["bmode"][1] + SHAPE[1] + 6 :].max() > 100


def test_amber_is_red_before_green_before_blue_and_grows_with_the_grey():
    levels = np.arange(256, dtype=np.uint8)
    amber = tint(levels, "amber").astype(int)
    assert amber.shape == (256, 3)
    assert (np.diff(amber, axis=0) >= 0).all()
    assert (amber[20:, 0] > amber[20:, 1]).all()
    assert (amber[20:, 1] > amber[20:, 2]).all()
    assert np.array_equal(amber[:, 0], levels)
    assert np.array_equal(tint(levels, "grey"), np.stack([levels] * 3, axis=-1))

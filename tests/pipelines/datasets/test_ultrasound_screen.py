from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from pipelines.datasets.ultrasound_screen import BLUE, calipers, grey_bar, ruler, write


def drawn(function, *args, shape=(240, 320)):
    """What a function draws on a black screen, uint8 (H, W, 3)."""
    picture = Image.new("RGB", shape[::-1])
    function(ImageDraw.Draw(picture), *args)
    return np.asarray(picture)


def extent(rgb):
    """First and last row and column of what is not black."""
    return [(int(where.min()), int(where.max())) for where in np.nonzero(rgb.any(-1))]


def test_text_has_its_colour_begins_at_its_corner_and_grows_with_the_size():
    heights = []
    for size in (240, 480, 960):
        rgb = drawn(write, (30, 20), "HE", size, BLUE)
        (top, bottom), (left, right) = extent(rgb)
        assert 20 <= top < 20 + size / 24
        assert 30 <= left < 30 + size / 48
        assert right - left > bottom - top  # two letters, one beside the other
        assert (np.abs(rgb - rgb[..., 2:] / 255 * BLUE) <= 1).all()  # smooth edges have the same hue
        heights.append(bottom - top + 1)
    assert (rgb == BLUE).all(-1).sum() > 50
    assert heights[-1] == pytest.approx(0.7 * 40, abs=2)  # capitals have 0.7 of a font's height
    assert np.array(heights) / heights[0] == pytest.approx([1, 2, 4], rel=0.2)


def test_text_is_grey_unless_told_and_stays_legible():
    rgb = drawn(write, (0, 0), "HE", 24)
    assert (rgb.max(-1) == rgb.min(-1)).all()
    (top, bottom), _ = extent(rgb)
    assert 3 <= bottom - top <= 6


def test_the_ruler_has_a_tick_every_5_mm_and_a_long_one_every_10():
    rgb = drawn(ruler, 300, (20, 229), 0.25, 256)  # 52 mm
    rows, columns = np.nonzero(rgb.any(-1))
    assert sorted(set(rows)) == list(range(20, 221, 20))
    assert set(columns[(rows - 20) % 40 == 0]) == set(range(300, 305))
    assert set(columns[(rows - 20) % 40 == 20]) == {300, 301}
    assert extent(drawn(ruler, 300, (20, 229), 0.25, 512))[1] == (300, 309)


def test_the_grey_bar_fades_from_white_to_black_in_the_upper_third():
    rgb = drawn(grey_bar, (310, 317), (30, 240))
    assert extent(rgb) == [(30, 99), (310, 317)]
    bar = rgb[30:100, 310:318].astype(int)
    assert (bar == bar[:, :1, :1]).all()
    shades = bar[:, 0, 0]
    assert shades[0] == 255
    assert shades[-1] < 8
    assert set(np.diff(shades)) <= {-3, -4}  # 255 shades over 70 rows


@pytest.mark.parametrize("turn", [0, 25, 70, 120])
def test_calipers_mark_an_ellipses_axes(turn):
    """A long half axis of 50 pixels and a short one of 24, so that their ends are known."""
    centre, angle = np.array((110, 150)), np.deg2rad(turn)
    long, short = np.array((np.sin(angle), np.cos(angle))), np.array((np.cos(angle), -np.sin(angle)))
    offsets = np.stack(np.mgrid[:240, :320], -1) - centre
    lesion = np.hypot(offsets @ long / 50, offsets @ short / 24) < 1
    marks = calipers(lesion, 256)

    cross = np.zeros((9, 9))
    cross[4], cross[:, 4] = 1, 1
    found = np.argwhere(ndimage.binary_erosion(marks, cross))
    ends = [centre + 50 * long, centre - 50 * long, centre + 24 * short, centre - 24 * short]
    assert len(found) == 4
    for end in ends:
        assert np.linalg.norm(found - end, axis=1).min() < 2

    away = np.min([np.linalg.norm(offsets + centre - end, axis=-1) for end in ends], axis=0)
    dots = marks & (away > 8)  # what belongs to no cross
    beside = np.minimum(np.abs(offsets @ long), np.abs(offsets @ short))
    assert beside[dots].max() < 2
    assert 25 < dots.sum() < 45  # 148 pixels of lines less the crosses, a dot every 3


def test_crosses_and_gaps_grow_with_the_size():
    lesion = np.zeros((400, 400), bool)
    lesion[150:250, 100:300] = True
    small, large = calipers(lesion, 256), calipers(lesion, 1024)
    assert extent(small[..., None])[1] == (96, 303)  # arms of 4 pixels
    assert extent(large[..., None])[1] == (84, 315)  # of 16
    dots = [marks[:, 130:180].sum() for marks in (small, large)]
    assert 3.5 < dots[0] / dots[1] < 4.5  # every 3 and every 12 pixels

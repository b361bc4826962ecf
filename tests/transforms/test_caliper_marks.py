import numpy as np
import pytest

from tests.transforms.caliper_drawings import dashes, dots, plus, speckle, x_sign
from transforms.caliper_marks import Row, find_crosses, find_rows, place

SHAPE = (80, 100)
MARKS = [((30, 25), 3), ((50, 70), 7)]


def blank():
    return np.zeros(SHAPE, bool)


def layer(drawn, ground=0.25, ink=1.0):
    return np.where(drawn, ink, ground)


def at(crosses, y, x):
    """The cross within a pixel of a place."""
    (found,) = (cross for cross in crosses if np.abs(cross.centre - (y, x)).max() <= 1)
    return found


@pytest.mark.parametrize(("sign", "turned"), [(plus, False), (x_sign, True)], ids=["plus", "x"])
def test_crosses_are_found_where_they_are_with_their_arms_and_brightness(sign, turned):
    drawn = blank()
    for (y, x), arm in MARKS:
        sign(drawn, y, x, arm, 1)
    crosses = [cross for cross in find_crosses(layer(drawn)) if cross.turned == turned]
    for (y, x), arm in MARKS:
        cross = at(crosses, y, x)
        assert np.array_equal(cross.centre, (y, x))
        assert cross.arm == arm and cross.regular
        assert cross.level == 1 and cross.contrast == pytest.approx(0.75)
    assert sum(cross.regular for cross in crosses) == len(MARKS)


def test_thick_crosses_are_found_at_half_the_resolution():
    drawn = blank()
    plus(drawn, 40, 50, 10, 4)  # rows 39 to 42, columns 49 to 52
    assert not any(cross.regular for cross in find_crosses(layer(drawn)))
    (cross,) = find_crosses(layer(drawn), scale=2)
    assert cross.centre == pytest.approx((40.5, 50.5), abs=1)
    assert cross.arm == pytest.approx(11.5, abs=2) and cross.scale == 2


def test_a_corner_a_junction_an_edge_and_an_arm_too_long_make_no_regular_cross():
    drawn = blank()
    drawn[10, 10:30] = drawn[10:30, 10] = True  # a corner
    drawn[10, 60:81] = drawn[10:30, 70] = True  # three arms
    drawn[60:, :] = True
    assert not find_crosses(layer(drawn))
    drawn = blank()
    plus(drawn, 30, 50, 4, 1)
    drawn[30:45, 50] = True
    assert not any(cross.regular for cross in find_crosses(layer(drawn)) if not cross.turned)


@pytest.mark.parametrize("end", [(40, 85), (70, 60), (12, 10)], ids=["level", "oblique", "back"])
@pytest.mark.parametrize("pitch", [4, 6])
def test_a_row_of_dots_is_found_from_end_to_end(end, pitch):
    start, end = np.array([40.0, 15.0]), np.array(end, float)
    drawn = blank()
    dots(drawn, start, end, pitch, 1)
    (row,) = find_rows(layer(drawn))
    length = np.linalg.norm(end - start)
    count = len(np.arange(0, length, pitch))
    last = start + (end - start) * (count - 1) * pitch / length
    found = sorted([tuple(row.start), tuple(row.end)])
    assert np.abs(np.array(found) - sorted([tuple(start), tuple(last)])).max() <= 1
    assert row.dots == count and row.pitch == pytest.approx(pitch, abs=0.1)
    assert row.contrast > 0.3


def test_a_row_with_two_dots_missing_is_one_and_dashes_are_rows_at_half_the_resolution():
    drawn = blank()
    dots(drawn, (20, 10), (20, 90), 4, 1)
    drawn[20, 50:58] = False
    (row,) = find_rows(layer(drawn))
    assert row.dots == 18 and row.pitch == pytest.approx(4, abs=0.1)
    drawn = blank()
    dashes(drawn, (20, 4), (20, 96), 5, 4, 2)
    (row,) = find_rows(layer(drawn), scale=2)
    assert row.pitch == pytest.approx(9, abs=0.3) and row.scale == 2
    assert {*np.rint([row.start[0], row.end[0]])} <= {20, 21}


def test_four_dots_a_solid_line_and_uneven_dots_are_no_rows():
    drawn = blank()
    dots(drawn, (10, 10), (10, 26), 4, 1)
    drawn[30, 10:90] = True
    drawn[np.arange(40, 70), np.arange(10, 70, 2)] = True  # an oblique line, in steps
    drawn[np.arange(40, 70), np.arange(11, 71, 2)] = True
    for column in (10, 13, 19, 22, 29, 33, 41, 44, 52, 56, 63):
        drawn[75, column] = True
    assert not find_rows(layer(drawn))


def test_speckle_has_few_candidates_and_none_that_is_stark_or_long():
    grey = speckle(seed=11) / 255
    assert all(cross.contrast < 0.3 for cross in find_crosses(grey))
    assert all(row.dots < 9 for row in find_rows(grey))


def test_where_a_point_lies_along_a_row_and_beside_it():
    row = Row(np.array([0.0, 0.0]), np.array([3.0, 4.0]), 5, 1.25, 1.0, 1)
    along, beside, length = place(np.array([[3.0, 4.0], [4.0, -3.0]]), row)
    assert length == 5
    assert along == pytest.approx([5, 0]) and np.abs(beside) == pytest.approx([0, 5])

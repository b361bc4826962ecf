from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.draw import polygon

from transforms import ContoursToMask, ImageError, contour_mask

SIZE = (40, 50)  # height, width


def by_skimage(points, size=SIZE):
    mask = np.zeros(size, bool)
    rows, columns = polygon([y for _, y in points], [x for x, _ in points], size)
    mask[rows, columns] = True
    return mask


def drawn(text):
    """A mask from lines of dots and crosses."""
    return np.array([[mark == "x" for mark in line] for line in text.split()])


def test_a_polygon_by_hand():
    """The right triangle y <= (x - 1) / 2 + 1 of the corners (1, 1), (5, 1) and (5, 3)."""
    expected = drawn("""
        .......
        .xxxxx.
        ...xxx.
        .....x.
        .......""")
    np.testing.assert_array_equal(contour_mask([(1, 1), (5, 1), (5, 3)], expected.shape), expected)


def test_x_goes_to_the_right_and_y_down_from_the_top():
    mask = contour_mask([(1.4, 0.2), (4.6, 0.2), (4.6, 1.8), (1.4, 1.8)], (4, 7))
    np.testing.assert_array_equal(mask, drawn("....... ..xxx.. ....... ......."))


@pytest.mark.parametrize("seed", range(20))
def test_it_equals_the_polygon_of_skimage_within_the_image_and_beyond(seed):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 40)))
    reach = rng.uniform(4, 18, len(angles))
    centre = rng.uniform(0, 1, 2) * (SIZE[1], SIZE[0])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * reach[:, None] + centre
    expected = by_skimage(points)
    assert expected.any()
    np.testing.assert_array_equal(contour_mask(points, SIZE), expected)


@pytest.mark.parametrize(
    ("radius", "expected"),
    [(1, ".x. xxx .x."), (1.5, "xxx xxx xxx"), (0, "... .x. ...")],
)
def test_a_point_becomes_a_disc(radius, expected):
    np.testing.assert_array_equal(contour_mask([(1, 1)], (3, 3), radius), drawn(expected))


def test_a_point_between_pixels_marks_those_around_and_never_none():
    np.testing.assert_array_equal(contour_mask([(1.5, 1.5)], (4, 4), 0.8), drawn(".... .xx. .xx. ...."))
    assert np.argwhere(contour_mask([(1.5, 1.4)], (4, 4), 0.1)).tolist() == [[1, 2]]


def test_two_points_become_two_discs_that_are_not_joined():
    np.testing.assert_array_equal(contour_mask([(1, 1), (5, 1)], (3, 7)), drawn(".x...x. xxx.xxx .x...x."))


def test_an_outline_around_no_pixel_is_marked_instead():
    sliver = [(2.3, 1.3), (2.6, 1.3), (2.6, 1.6)]
    assert not by_skimage(sliver).any()
    assert contour_mask(sliver, SIZE)[1:3, 2:4].any()


def test_what_lies_outside_is_cut_off():
    mask = contour_mask([(-10, 5), (3, 5), (3, 8), (-10, 8)], SIZE)
    assert np.argwhere(mask).min(axis=0).tolist() == [5, 0]
    assert mask.sum() == 4 * 4
    corner = contour_mask([(-0.4, -0.4)], SIZE, 2)
    assert np.argwhere(corner).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert contour_mask([(3, 3), (-20, 3)], SIZE).sum() == 5


@pytest.mark.parametrize(
    "points", [[(-9, -9), (-5, -9), (-5, -5)], [(49, 60)], [(-30, 5), (-20, 5)], [(60, 1), (80, 30), (90, 3)]]
)
def test_a_contour_that_lies_wholly_outside_is_an_error_that_says_where(points):
    with pytest.raises(ImageError, match=r"within the image of 50x40 pixels, found one from x .* and y "):
        contour_mask(points, SIZE)


@pytest.mark.parametrize("points", [[], [1, 2], [(1, 2, 3)], [(1, np.nan)], [(np.inf, 2)] * 40])
def test_what_is_no_contour_is_an_error(points):
    with pytest.raises(ImageError, match=r"expected a contour of points \(x, y\)") as caught:
        contour_mask(points, SIZE)
    assert len(str(caught.value)) < 200


def test_later_contours_lie_over_earlier_ones():
    square = [(2, 2), (12, 2), (12, 12), (2, 12)]
    label = ContoursToMask(radius=2)([(1, square), (2, [(7, 7)])], SIZE)
    assert label.dtype == torch.uint8
    assert label.shape == (1, *SIZE)
    assert torch.equal(label.unique(), torch.tensor([0, 1, 2], dtype=torch.uint8))
    assert label[0, 7, 7] == 2
    assert (label == 2).sum() == 13
    covered = ContoursToMask()([(2, [(7, 7)]), (1, square)], SIZE)
    np.testing.assert_array_equal(covered[0] == 1, by_skimage(square))


def test_columns_first_is_the_transpose_and_nothing_drawn_is_background():
    contours = [(3, [(1, 2), (20, 2), (20, 9)])]
    assert torch.equal(
        ContoursToMask(columns_first=True)(contours, SIZE), ContoursToMask()(contours, SIZE).mT
    )
    assert not ContoursToMask()([], SIZE).any()


def test_the_contour_at_fault_is_counted():
    with pytest.raises(ImageError, match="contour 2: expected a contour within"):
        ContoursToMask()([(1, [(1, 1)]), (1, [(-50, 1)])], SIZE)

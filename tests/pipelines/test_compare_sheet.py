from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

from pipelines import compare_sheet
from pipelines.compare_sheet import choose, sheet
from pipelines.errors import DataError
from pipelines.report import PREDICTION, TRUTH
from pipelines.shown import Shown
from tests.pipelines.test_compare_pictures import assert_whole


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures that were drawn, still as objects."""
    drawn = []
    save = compare_sheet.save
    monkeypatch.setattr(compare_sheet, "save", lambda one, path: (drawn.append(one), save(one, path)))
    return drawn


def case(shape=(12, 16), truth=(2, 5, 9, 13), prediction=(3, 6, 9, 13), grey=100) -> Shown:
    """A picture with rectangles: first row, row after the last, first column, column after the last."""
    masks = []
    for top, bottom, left, right in (truth, prediction):
        masks.append(np.zeros(shape, bool))
        masks[-1][top:bottom, left:right] = True
    return Shown(np.full(shape, grey, np.uint8), *masks)


def outlines(axes: Axes) -> dict[tuple, list[float]]:
    """Colour -> first and last row and column of its outline."""
    found = {}
    for one in axes.collections:
        corners = np.concatenate([path.vertices for path in one.get_paths()])
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
        found[to_rgba(one.get_edgecolor()[0])] = [top, bottom, left, right]
    return found


def test_cases_are_the_worst_median_and_best():
    dice = {"a": 0.9, "b": 0.1, "c": 0.5, "d": 0.7, "e": 0.3, "f": 0.6, "g": 0.4, "h": 0.8}
    assert list(choose(dice).items()) == [
        ("b", "worst"),
        ("e", "worst"),
        ("c", "median"),
        ("f", "median"),
        ("h", "best"),
        ("a", "best"),
    ]


@pytest.mark.parametrize(
    ("dice", "chosen"),
    [
        ({"a": 0.5}, {"a": "worst"}),
        ({"a": 0.5, "b": 0.4}, {"b": "worst", "a": "best"}),
        ({"a": 0.5, "b": 0.4, "c": 0.9, "d": 0.8, "e": 0.7}, {"b": "worst", "e": "median", "c": "best"}),
        ({"a10": 0.0, "a9": 0.0, "a11": 0.0}, {"a9": "worst", "a10": "median", "a11": "best"}),
    ],
)
def test_few_cases_are_shown_once(dice, chosen):
    assert list(choose(dice).items()) == list(chosen.items())


def test_columns_are_cases_and_rows_are_networks(tmp_path, figures):
    names = ["Miller 10", "Miller 9", "Jones"]
    pictures = {"Miller 10": case(grey=10), "Miller 9": case(grey=20), "Jones": case(grey=30)}
    dice = {
        "NetA": {"Miller 10": 0.111, "Miller 9": 0.9, "Jones": 0.5},
        "NetB": {"Miller 10": 0.3, "Miller 9": 0.1, "Jones": 0.95},
    }
    sheet({"NetA": pictures, "NetB": pictures}, dice, tmp_path / "sheet.png")
    assert_whole(tmp_path / "sheet.png")
    texts = [text.get_text() for text in figures[0].findobj(Text)]
    assert not any(name in text for name in names for text in texts)
    # Means of 0.2055, 0.5 and 0.725; in natural order Jones is 1, Miller 9 is 2, Miller 10 is 3.
    grid = np.array(figures[0].axes).reshape(2, 3)
    assert [axes.get_title() for axes in grid[0]] == ["worst\ncase 3", "median\ncase 2", "best\ncase 1"]
    assert [[axes.texts[0].get_text() for axes in row] for row in grid] == [
        ["0.111", "0.900", "0.500"],
        ["0.300", "0.100", "0.950"],
    ]
    assert [[int(axes.images[0].get_array()[0, 0]) for axes in row] for row in grid] == [[10, 20, 30]] * 2
    heights = {text.get_text(): text.get_position()[1] for text in figures[0].texts}
    for name, row in zip(("NetA", "NetB"), grid, strict=True):
        assert row[0].get_position(original=True).y0 < heights[name] < row[0].get_position(original=True).y1


def test_outlines_run_along_the_masks(tmp_path, figures):
    shown = case(truth=(2, 5, 9, 13), prediction=(0, 4, 0, 6))
    sheet({"net": {"a": shown}}, {"net": {"a": 0.2}}, tmp_path / "sheet.png")
    (axes,) = figures[0].axes
    assert outlines(axes) == {
        to_rgba(TRUTH): [1.5, 4.5, 8.5, 12.5],
        to_rgba(PREDICTION): [-0.5, 3.5, -0.5, 5.5],
    }
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 15.5), (11.5, -0.5))
    assert axes.images[0].get_clim() == (0, 255)


def test_missed_lesions_and_colours_and_other_shapes(tmp_path, figures):
    empty = np.zeros((30, 10), bool)
    colour = Shown(np.zeros((8, 20, 3), np.uint8) + np.uint8([200, 0, 0]), *[np.eye(8, 20, dtype=bool)] * 2)
    shown = {"tall": Shown(np.zeros((30, 10), np.uint8), empty, empty), "wide": colour}
    sheet({"net": shown}, {"net": {"tall": 0.0, "wide": 1.0}}, tmp_path / "sheet.png")
    assert_whole(tmp_path / "sheet.png")
    tall, wide = figures[0].axes
    assert not tall.collections and len(wide.collections) == 2
    assert wide.images[0].get_array()[0, 0].tolist() == [200, 0, 0]
    for axes, ratio in ((tall, 3), (wide, 0.4)):
        assert axes.bbox.height / axes.bbox.width == pytest.approx(ratio, rel=0.01)


def test_of_many_networks_the_first_twelve_are_drawn(tmp_path, figures):
    labels = [f"MONAI BasicUNet features=(32,32,64,128,256,32), without calipers {n}" for n in range(13)]
    dice = {label: {"a": 0.5, "b": 0.6} for label in labels}
    sheet({label: {"a": case(), "b": case()} for label in labels}, dice, tmp_path / "sheet.png")
    assert_whole(tmp_path / "sheet.png")
    assert len(figures[0].axes) == 24
    assert figures[0].legends[0].get_title().get_text() == "the first 12 of 13 networks"
    boxes = [text.get_window_extent() for text in figures[0].texts]
    assert len(boxes) == 12
    assert not any(one.overlaps(other) for one, other in pairwise(boxes))
    assert all(box.x1 < figures[0].axes[0].bbox.x0 for box in boxes)


def test_only_cases_that_all_have_are_shown(tmp_path, figures):
    shown = {"NetA": {"a": case(), "b": case()}, "NetB": {"b": case(), "c": case()}, "without": {}}
    dice = {label: {"a": 0.5, "b": 0.6, "c": 0.7} for label in shown}
    sheet(shown, dice, tmp_path / "sheet.png")
    assert [axes.get_title() for axes in figures[0].axes] == ["worst\ncase 2", ""]


@pytest.mark.parametrize("shown", [{}, {"NetA": {"a": case()}, "NetB": {"b": case()}}])
def test_no_case_in_common_is_an_error(tmp_path, shown):
    dice = {label: {"a": 0.5, "b": 0.6} for label in ("NetA", "NetB")}
    with pytest.raises(DataError, match=f"found none for {len(shown)} networks; evaluate"):
        sheet(shown, dice, tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())

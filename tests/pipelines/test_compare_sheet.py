from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

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


def pictures(figure: Figure) -> list[tuple[AxesImage, Bbox]]:
    """The pictures, and where they are in inches from the upper left corner, row by row."""
    found = [
        (one, Bbox.from_extents(*np.array(one.get_extent())[[0, 3, 1, 2]])) for one in figure.axes[0].images
    ]
    return sorted(found, key=lambda one: (round(one[1].y0, 3), one[1].x0))


def outlines(figure: Figure) -> dict[tuple, list[float]]:
    """Colour -> first and last row and column of its outlines, in pixels of the only picture."""
    ((image, box),) = pictures(figure)
    found = {}
    for one in figure.axes[0].collections:
        pixel = box.width / image.get_array().shape[1]
        lines = [(path.vertices - box.min) / pixel - 0.5 for path in one.get_paths()]
        (left, top), (right, bottom) = np.concatenate(lines).min(axis=0), np.concatenate(lines).max(axis=0)
        found[to_rgba(one.get_edgecolor()[0])] = [top, bottom, left, right]
    return found


def said(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """Text -> where it stands, in inches from the upper left corner."""
    found: dict[str, list[tuple[float, float]]] = {}
    for text in figure.axes[0].texts:
        found.setdefault(text.get_text(), []).append(text.get_position())
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
    shown = {"Miller 10": case(grey=10), "Miller 9": case(grey=20), "Jones": case(grey=30)}
    dice = {
        "NetA": {"Miller 10": 0.111, "Miller 9": 0.9, "Jones": 0.5},
        "NetB": {"Miller 10": 0.3, "Miller 9": 0.1, "Jones": 0.95},
    }
    sheet({"NetA": shown, "NetB": shown}, dice, tmp_path / "sheet.png")
    assert_whole(tmp_path / "sheet.png")
    texts = [text.get_text() for text in figures[0].findobj(Text)]
    assert not any(name in text for name in names for text in texts)
    # Means of 0.2055, 0.5 and 0.725; in natural order Jones is 1, Miller 9 is 2, Miller 10 is 3.
    cells = pictures(figures[0])
    assert [int(image.get_array()[0, 0]) for image, _ in cells] == [10, 20, 30] * 2
    words = said(figures[0])
    for (_, box), heading in zip(cells[:3], ("worst\ncase 3", "median\ncase 2", "best\ncase 1"), strict=True):
        ((x, y),) = words[heading]
        assert x == pytest.approx((box.x0 + box.x1) / 2) and y < box.y0
    for (_, box), score in zip(cells, ("0.111", "0.900", "0.500", "0.300", "0.100", "0.950"), strict=True):
        ((x, y),) = words[score]
        assert x == pytest.approx((box.x0 + box.x1) / 2) and box.y1 < y < box.y1 + 0.1
    for name, (_, box) in zip(("NetA", "NetB"), cells[::3], strict=True):
        ((x, y),) = words[name]
        assert x < box.x0 and box.y0 < y < box.y1


def test_outlines_run_along_the_masks(tmp_path, figures):
    shown = case(truth=(2, 5, 9, 13), prediction=(0, 4, 0, 6))
    sheet({"net": {"a": shown}}, {"net": {"a": 0.2}}, tmp_path / "sheet.png")
    found = outlines(figures[0])
    assert found.keys() == {to_rgba(TRUTH), to_rgba(PREDICTION)}
    assert found[to_rgba(TRUTH)] == pytest.approx([1.5, 4.5, 8.5, 12.5])
    assert found[to_rgba(PREDICTION)] == pytest.approx([-0.5, 3.5, -0.5, 5.5])
    assert figures[0].axes[0].images[0].get_clim() == (0, 255)


def test_a_pixel_is_seen_where_it_is(tmp_path, figures):
    """Upright and not mirrored, and the outline around it."""
    mask = np.zeros((12, 16), bool)
    mask[2, 13] = True
    sheet(
        {"net": {"a": Shown(np.uint8(255 * mask), mask, mask)}}, {"net": {"a": 1.0}}, tmp_path / "sheet.png"
    )
    figures[0].axes[0].collections[0].set_visible(False)
    figures[0].axes[0].collections[1].set_visible(False)
    figures[0].savefig(tmp_path / "plain.png", dpi=200)
    with Image.open(tmp_path / "plain.png") as drawn:
        grey = np.array(drawn.convert("L"))
    ((_, box),) = pictures(figures[0])
    left, top, right, bottom = (round(200 * value) for value in (box.x0, box.y0, box.x1, box.y1))
    cell = grey[top + 2 : bottom - 2, left + 2 : right - 2] > 128
    rows, columns = np.flatnonzero(cell.any(axis=1)), np.flatnonzero(cell.any(axis=0))
    pixel = 200 * box.width / 16
    assert rows.mean() + 2.5 == pytest.approx(2.5 * pixel, abs=1.5)
    assert columns.mean() + 2.5 == pytest.approx(13.5 * pixel, abs=1.5)
    assert outlines(figures[0])[to_rgba(TRUTH)] == pytest.approx([1.5, 2.5, 12.5, 13.5])


def test_missed_lesions_and_colours_and_other_shapes(tmp_path, figures):
    empty = np.zeros((30, 10), bool)
    colour = Shown(np.zeros((8, 20, 3), np.uint8) + np.uint8([200, 0, 0]), *[np.eye(8, 20, dtype=bool)] * 2)
    shown = {"tall": Shown(np.zeros((30, 10), np.uint8), empty, empty), "wide": colour}
    sheet({"net": shown}, {"net": {"tall": 0.0, "wide": 1.0}}, tmp_path / "sheet.png")
    assert_whole(tmp_path / "sheet.png")
    (_, tall), (wide, flat) = pictures(figures[0])
    assert wide.get_array()[0, 0].tolist() == [200, 0, 0]
    assert tall.y0 == flat.y0
    assert (tall.height / tall.width, flat.height / flat.width) == pytest.approx((3, 0.4))
    for lines in figures[0].axes[0].collections:
        points = np.concatenate([path.vertices for path in lines.get_paths()])
        assert (flat.min - 1e-6 < points).all() and (points < flat.max + 1e-6).all()


def test_of_many_networks_the_first_twelve_are_drawn(tmp_path, figures):
    labels = [f"MONAI BasicUNet features=(32,32,64,128,256,32), without calipers {n}" for n in range(13)]
    dice = {label: {"a": 0.5, "b": 0.6} for label in labels}
    sheet({label: {"a": case(), "b": case()} for label in labels}, dice, tmp_path / "sheet.png")
    assert_whole(tmp_path / "sheet.png")
    assert len(pictures(figures[0])) == 24
    assert figures[0].legends[0].get_title().get_text() == "the first 12 of 13 networks"
    boxes = [text.get_window_extent() for text in figures[0].axes[0].texts if text.get_ha() == "right"]
    assert len(boxes) == 12
    assert not any(one.overlaps(other) for one, other in pairwise(boxes))
    assert all(box.x1 < figures[0].axes[0].bbox.x0 for box in boxes)


def test_only_cases_that_all_have_are_shown(tmp_path, figures):
    shown = {"NetA": {"a": case(), "b": case()}, "NetB": {"b": case(), "c": case()}, "without": {}}
    dice = {label: {"a": 0.5, "b": 0.6, "c": 0.7} for label in shown}
    sheet(shown, dice, tmp_path / "sheet.png")
    assert len(pictures(figures[0])) == 2
    assert [text for text in said(figures[0]) if "case" in text] == ["worst\ncase 2"]


@pytest.mark.parametrize("shown", [{}, {"NetA": {"a": case()}, "NetB": {"b": case()}}])
def test_no_case_in_common_is_an_error(tmp_path, shown):
    dice = {label: {"a": 0.5, "b": 0.6} for label in ("NetA", "NetB")}
    with pytest.raises(DataError, match=f"found none for {len(shown)} networks; evaluate"):
        sheet(shown, dice, tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())

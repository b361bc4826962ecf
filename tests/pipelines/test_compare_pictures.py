from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from PIL import Image

from pipelines import compare_pictures
from pipelines.compare_pictures import Point
from pipelines.errors import DataError

LONG = "MONAI BasicUNet features=(32,32,64,128,256,32), without calipers"


def assert_whole(path: Path) -> None:
    """A picture fit for print, with nothing cut at its border."""
    with Image.open(path) as picture:
        assert min(picture.info["dpi"]) >= 150
        pixels = np.asarray(picture.convert("L"))
    border = np.concatenate([pixels[:4].ravel(), pixels[-4:].ravel(), pixels[:, :4].ravel()])
    assert (np.concatenate([border, pixels[:, -4:].ravel()]) == 255).all()
    assert (pixels < 128).any()


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures that were drawn, still as objects."""
    drawn = []
    save = compare_pictures.save
    monkeypatch.setattr(compare_pictures, "save", lambda one, path: (drawn.append(one), save(one, path)))
    return drawn


def numbers(figure: Figure) -> dict[str, Annotation]:
    found = [one for one in figure.axes[0].texts if isinstance(one, Annotation)]
    return {one.get_text(): one for one in found}


def test_points_front_and_bars(tmp_path, figures):
    points = [
        Point("slow and good", 300, 0.80, 0.02, 17_000_000),
        Point("fast and poor", 20, 0.70, 0.03, 2_000_000),
        Point("slower and no better", 400, 0.79, 0.01, 9_000_000),
        Point("middle", 90, 0.75, 0.04, 4_000_000),
        Point("not measured", None, 0.9, 0.01, 1),
        Point("nor this", math.nan, 0.9, 0.01, 1),
    ]
    compare_pictures.pareto(points, tmp_path / "plot.png")
    assert_whole(tmp_path / "plot.png")
    axes = figures[0].axes[0]
    (front,) = (line for line in axes.lines if line.get_linestyle() == "--")
    assert front.get_xydata().tolist() == [[20, 0.70], [90, 0.75], [300, 0.80]]
    assert front.get_drawstyle() == "steps-post"  # up only where the better network begins
    bars, dots = axes.collections
    ends = {(round(low[0]), round(low[1], 3), round(high[1], 3)) for low, high in bars.get_segments()}
    assert ends == {(300, 0.78, 0.82), (20, 0.67, 0.73), (400, 0.78, 0.80), (90, 0.71, 0.79)}
    assert dots.get_array().tolist() == [17e6, 9e6, 4e6, 2e6]
    assert axes.get_xscale() == "log"
    key, note = (text.get_text() for text in figures[0].texts)
    lines = [line.replace("\u2007", "").strip() for line in key.splitlines()]
    assert lines[1:3] == ["1  slow and good, 17,000,000", "2  slower and no better, 9,000,000"]
    assert len(lines) == 5
    assert note == "Without latency, left out: not measured; nor this."
    assert numbers(figures[0])["1"].xy == (300, 0.80)


def test_axis_of_latency_is_linear_within_a_decade(tmp_path, figures):
    compare_pictures.pareto([Point("a", 20, 0.7, 0, 1), Point("b", 200, 0.8, 0, 9)], tmp_path / "a.png")
    assert figures[0].axes[0].get_xscale() == "linear"
    assert len(figures[0].texts) == 1  # nothing was left out


def test_numbers_hide_neither_each_other_nor_a_point(tmp_path, figures):
    rng = np.random.default_rng(0)
    points = [Point(f"twin {n}", 80.0, 0.75, 0.01, 3_000_000) for n in range(4)]
    points += [
        Point(f"{LONG} {n}", 80 + rng.normal(0, 3), 0.75 + rng.normal(0, 0.002), 0.01, 2) for n in range(8)
    ]
    points.append(Point("far", 900, 0.9, math.nan, 60_000_000))
    compare_pictures.pareto(points, tmp_path / "plot.png")
    assert_whole(tmp_path / "plot.png")
    figure = figures[0]
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    labels = numbers(figure)
    assert len(labels) == 13
    boxes = [Text.get_window_extent(one, renderer) for one in labels.values()]  # without the leader
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    places = figure.axes[0].transData.transform([(p.latency_ms, p.dice) for p in points])
    assert not any(box.contains(*place) for box in boxes for place in places)


def test_one_point_without_a_spread(tmp_path, figures):
    compare_pictures.pareto([Point("alone", 20.0, 0.7, math.nan, 2_000_000)], tmp_path / "plot.png")
    assert_whole(tmp_path / "plot.png")
    assert list(numbers(figures[0])) == ["1"]


def test_no_latency_is_an_error(tmp_path):
    with pytest.raises(DataError, match="with a latency to draw, found none of 1; measure it"):
        compare_pictures.pareto([Point("a", None, 0.7, 0.1, 5)], tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())


def history(losses, dices) -> list[dict]:
    pairs = zip(losses, dices, strict=True)
    return [
        {"epoch": n, "train_loss": loss, "val_dice": d, "lr": 1e-3} for n, (loss, d) in enumerate(pairs, 1)
    ]


def test_curves_are_means_and_ranges_of_the_runs(tmp_path, figures):
    runs = [history([1.0, 0.6, 0.4], [0.2, None, 0.6]), history([0.8, 0.4], [0.4, math.nan])]
    compare_pictures.curves({"net": runs}, tmp_path / "curves.png")
    loss, dice = figures[0].axes
    assert [axes.get_title() for axes in (loss, dice)] == ["Training loss", "Validation Dice"]
    full, pale = loss.lines
    assert np.allclose(full.get_ydata(), [0.9, 0.5, math.nan], equal_nan=True)
    assert np.allclose(pale.get_xydata(), [[1, 0.9], [2, 0.5], [3, 0.4]])
    assert pale.get_alpha() < 0.5 and full.get_alpha() is None
    (band,) = loss.collections
    corners = {(x, round(y, 6)) for x, y in band.get_paths()[0].vertices}
    assert corners == {(1, 1.0), (1, 0.8), (2, 0.6), (2, 0.4), (3, 0.4)}
    assert np.allclose(dice.lines[1].get_xydata(), [[1, 0.3], [3, 0.6]])
    assert "pale" in figures[0].get_suptitle()
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["net (2 runs)"]


def test_validation_loss_has_a_panel_where_there_is_one(tmp_path, figures):
    with_loss = [{**epoch, "val_loss": 0.5} for epoch in history([0.9, 0.8], [0.1, 0.2])]
    compare_pictures.curves({"a": [with_loss], "b": [history([0.7], [0.3])]}, tmp_path / "curves.png")
    assert_whole(tmp_path / "curves.png")
    panels = {axes.get_title(): axes for axes in figures[0].axes}
    assert list(panels) == ["Training loss", "Validation loss", "Validation Dice"]
    (line,) = panels["Validation loss"].lines
    assert line.get_xydata().tolist() == [[1, 0.5], [2, 0.5]]
    assert "pale" not in figures[0].get_suptitle()
    assert panels["Training loss"].lines[1].get_marker() == "o"  # of a single epoch


def test_twelve_networks_can_be_told_apart(tmp_path, figures):
    histories = {f"{LONG} {n}": [history([0.9, 0.8 - n / 100], [0.1, 0.2 + n / 100])] for n in range(12)}
    compare_pictures.curves(histories, tmp_path / "curves.png")
    assert_whole(tmp_path / "curves.png")
    (legend,) = figures[0].legends
    looks = {(line.get_color(), line.get_linestyle()) for line in legend.get_lines()}
    assert len(looks) == 12
    for axes in figures[0].axes:
        assert [(one.get_color(), one.get_linestyle()) for one in axes.lines] == [
            (one.get_color(), one.get_linestyle()) for one in legend.get_lines()
        ]
        assert axes.bbox.height > 2.5 * figures[0].dpi  # inches that the legend leaves
        assert not legend.get_window_extent().overlaps(axes.bbox)


def test_runs_without_an_epoch_are_an_error(tmp_path):
    for histories in ({}, {"a": []}, {"a": [[]]}, {"a": [[{"epoch": 1, "lr": 0.1, "val_dice": None}]]}):
        with pytest.raises(DataError, match="found none; train for an epoch"):
            compare_pictures.curves(histories, tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("heading", "rows"),
    [
        (["a"], [["b"]]),
        (["network", "n", "Dice"], [[LONG, "3", "0.781 ± 0.012"], ["x", "12", "-"]]),
        (["", "a heading longer than any of its cells"], [["WWWWWWWWWW", "iiii"]]),
    ],
)
def test_table_has_room_for_each_of_its_texts(tmp_path, figures, heading, rows):
    compare_pictures.table(heading, rows, tmp_path / "table.png")
    assert_whole(tmp_path / "table.png")
    figure = figures[0]
    FigureCanvasAgg(figure).draw()
    renderer = figure.canvas.get_renderer()
    cells = figure.axes[0].tables[0].get_celld()
    written = [
        [cells[row, column].get_text().get_text() for column in range(len(heading))]
        for row in range(len(rows) + 1)
    ]
    assert written == [heading, *rows]
    for cell in cells.values():
        if cell.get_text().get_text():
            room, text = cell.get_window_extent(renderer), cell.get_text().get_window_extent(renderer)
            assert room.x0 - 1 <= text.x0 and text.x1 <= room.x1 + 1
            assert room.y0 <= text.y0 and text.y1 <= room.y1


def test_an_empty_table_is_an_error(tmp_path):
    with pytest.raises(DataError, match="expected a table with rows"):
        compare_pictures.table(["a"], [], tmp_path / "table.png")

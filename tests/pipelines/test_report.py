from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from pipelines import report
from pipelines.errors import DataError
from pipelines.scoring import score_case, summarize


def coloured(path: Path, colour: str) -> np.ndarray:
    """The (row, column) of the pixels of a picture that have a colour, give or take what smoothing does."""
    pixels = np.asarray(Image.open(path).convert("RGB")) / 255
    return np.argwhere(np.abs(pixels - to_rgb(colour)).max(axis=-1) < 0.12)


def panel(path: Path) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of the part of a picture that is not its white margin and writing."""
    dark = np.asarray(Image.open(path).convert("L")) < 128
    profiles = (dark.sum(axis=axis) for axis in (1, 0))
    rows, columns = (np.flatnonzero(profile > profile.max() / 2) for profile in profiles)
    return rows[0], rows[-1], columns[0], columns[-1]


def ball(shape: tuple[int, ...], centre: tuple[int, ...], radius: float) -> np.ndarray:
    axes = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    return sum((axis - middle) ** 2 for axis, middle in zip(axes, centre, strict=True)) <= radius**2


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures that were drawn, still as objects."""
    drawn = []
    save = report._save
    monkeypatch.setattr(report, "_save", lambda figure, path: (drawn.append(figure), save(figure, path)))
    return drawn


@pytest.fixture
def rows() -> list[dict]:
    lesion = ball((20, 20, 10), (10, 10, 5), 4)
    empty = np.zeros_like(lesion)
    pairs = {"a | b": (lesion, lesion), "shifted": (np.roll(lesion, 2, 0), lesion)}
    pairs |= {"gone": (empty, lesion), "ghost": (lesion, empty)}
    return [{"case": case, **score_case(*pair, (1, 1, 1))} for case, pair in pairs.items()]


def test_volume_is_shown_as_radiologists_do(tmp_path):
    shape = (60, 50, 7)
    # High on axis 0 is the patient's right, high on axis 1 the front: the upper left of the picture.
    truth, prediction = ball(shape, (50, 42, 3), 4), ball(shape, (10, 8, 3), 4)
    path = tmp_path / "pictures" / "overlay.png"
    report.overlay(np.zeros(shape), truth, prediction, path, title="case 3", spacing=(1, 1, 5))
    top, bottom, left, right = panel(path)
    for colour, row, column in ((report.TRUTH, 0.15, 0.15), (report.PREDICTION, 0.83, 0.83)):
        where = coloured(path, colour)
        inside = where[(where[:, 0] > top) & (where[:, 0] < bottom)]
        first = inside[inside[:, 1] < (right - left) / 3 + left]  # of the three panels, the first
        middle = (first.mean(axis=0) - (top, left)) / (bottom - top, (right - left) / 3)
        assert middle == pytest.approx((row, column), abs=0.04)
    assert [file.name for file in path.parent.iterdir()] == ["overlay.png"]


def test_marks_right_and_left(tmp_path, figures):
    report.overlay(np.zeros((9, 8, 1)), None, None, tmp_path / "a.png")
    report.overlay(np.zeros((9, 8)), None, None, tmp_path / "b.png")
    volume, picture = ({text.get_text(): text.get_position()[0] for text in f.axes[0].texts} for f in figures)
    assert volume["R"] < 0.5 < volume["L"]
    assert picture == {}


def test_picture_of_two_axes_is_upright(tmp_path):
    truth = ball((60, 40), (50, 8), 4)  # far along axis 0, which goes right, and little along axis 1, down
    report.overlay(np.zeros((60, 40)), truth, None, tmp_path / "a.png")
    top, bottom, left, right = panel(tmp_path / "a.png")
    where = coloured(tmp_path / "a.png", report.TRUTH)
    row, column = where[where[:, 0] < bottom].mean(axis=0)
    assert (row - top) / (bottom - top) == pytest.approx(8.5 / 40, abs=0.03)
    assert (column - left) / (right - left) == pytest.approx(50.5 / 60, abs=0.03)
    assert len(coloured(tmp_path / "a.png", report.PREDICTION)) == 0


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1, 3, 9), (2, 0.5, 1)])
def test_proportions_follow_the_spacing(tmp_path, spacing):
    report.overlay(np.zeros((40, 30, 1)), None, None, tmp_path / "a.png", spacing=spacing)
    top, bottom, left, right = panel(tmp_path / "a.png")
    assert (bottom - top) / (right - left) == pytest.approx(30 * spacing[1] / (40 * spacing[0]), rel=0.03)


def test_outline_of_a_lesion_at_the_border_is_closed_and_moves_nothing(tmp_path, figures):
    truth = np.zeros((30, 20, 1), bool)
    truth[:5, :5] = True
    report.overlay(np.zeros(truth.shape), truth, None, tmp_path / "a.png")
    axes = figures[0].axes[0]
    assert (axes.get_xlim(), axes.get_ylim()) == ((29.5, -0.5), (-0.5, 19.5))
    (outline,) = axes.collections[0].get_paths()
    assert np.allclose(outline.vertices[0], outline.vertices[-1])
    assert outline.vertices.min() == -0.5 and outline.vertices.max() == 4.5


@pytest.mark.parametrize(
    ("truth", "prediction", "slices"),
    [
        (
            {4: 1, 6: 3, 10: 2},
            {0: 9},
            [4, 6, 10],
        ),  # truth decides; between its lesions there is nothing to see
        ({2: 1, 3: 1, 4: 1, 5: 1, 6: 3, 7: 1, 8: 2, 9: 1, 10: 1}, {0: 9}, [4, 6, 8]),
        ({6: 3}, {0: 9}, [6]),
        ({}, {1: 1, 2: 4}, [1, 2]),  # no lesion: where the false alarm is
        (None, {7: 1}, [7]),
        ({}, {}, [6]),
        (None, None, [6]),
    ],
)
def test_shows_the_slices_that_tell(tmp_path, figures, truth, prediction, slices):
    def mask(areas: dict[int, int] | None) -> np.ndarray | None:
        if areas is None:
            return None
        volume = np.zeros((10, 10, 12), np.uint8)
        for index, area in areas.items():
            volume[:area, 0, index] = 1
        return volume

    report.overlay(np.zeros((10, 10, 12)), mask(truth), mask(prediction), tmp_path / "a.png")
    assert [axes.get_title() for axes in figures[0].axes] == [f"slice {index}" for index in slices]
    names = [text.get_text() for legend in figures[0].legends for text in legend.get_texts()]
    assert names == [n for n, m in (("truth", truth), ("prediction", prediction)) if m is not None]


def test_grey_levels_are_those_of_the_whole_volume(tmp_path, figures):
    image = np.zeros((5, 5, 3))
    image[..., 0], image[..., 2] = -1, 7
    report.overlay(image, None, None, tmp_path / "a.png", title="case 3")
    assert figures[0].axes[0].images[0].get_clim() == (-1, 7)
    assert figures[0].get_suptitle() == "case 3"


def test_overlay_says_what_is_wrong(tmp_path):
    image = np.zeros((5, 5, 3))
    with pytest.raises(DataError, match=r"truth of the image's shape \(5, 5, 3\), found \(5, 5, 2\)"):
        report.overlay(image, image[..., :2], None, tmp_path / "a.png")
    with pytest.raises(DataError, match="2 or 3 axes"):
        report.overlay(image[None], None, None, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_curves_draw_every_number_of_the_history(tmp_path, figures):
    history = [
        {"epoch": 1, "train_loss": 0.9, "val_dice": 0.1, "val_iou": 0.05, "lr": 1e-3, "gpu_memory": 3.0},
        {"epoch": 2, "train_loss": 0.5, "val_dice": None, "val_iou": float("nan"), "lr": 1e-4},
        {"epoch": 3, "train_loss": 0.4, "val_dice": 0.6, "val_iou": 0.5, "val_hd95": 8.0, "lr": 1e-5},
    ]
    report.curves(history, tmp_path / "curves.png")
    panels = {axes.get_title(): axes for axes in figures[0].axes}
    assert list(panels) == ["Loss", "Overlap", "HD95", "Learning rate", "gpu_memory"]
    lines = {line.get_label(): line.get_xydata().tolist() for axes in figures[0].axes for line in axes.lines}
    assert lines["train_loss"] == [[1, 0.9], [2, 0.5], [3, 0.4]]
    assert lines["val_dice"] == [[1, 0.1], [3, 0.6]]
    assert lines["val_iou"] == [[1, 0.05], [3, 0.5]]
    assert lines["val_hd95"] == [[3, 8]]
    assert panels["Learning rate"].get_yscale() == "log"
    assert panels["Overlap"].get_ylim() == (0, 1)


def test_curves_of_one_epoch_and_of_none(tmp_path, figures):
    report.curves([{"epoch": 1, "train_loss": 0.9}], tmp_path / "curves.png")
    (axes,) = figures[0].axes
    assert [tick for tick in axes.get_xticks() if 0.5 <= tick <= 1.5] == [1]
    pixels = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"))
    point = coloured(tmp_path / "curves.png", "#1f77b4")
    middle = point[point[:, 0] > pixels.shape[0] / 4].mean(axis=0) / pixels.shape[:2]
    assert middle == pytest.approx((0.5, 0.5), abs=0.1)
    for history in ([], [{"epoch": 1}]):
        with pytest.raises(DataError, match="found none"):
            report.curves(history, tmp_path / "none.png")


def test_chart_marks_missed_and_false_alarm_cases(tmp_path, figures, rows):
    report.case_chart(rows, tmp_path / "cases.png")
    axes = figures[0].axes[0]
    assert [bar.get_height() for bar in axes.patches] == sorted((row["dice"] for row in rows), reverse=True)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3", "4"]
    marks = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
    assert marks["missed (1)"] == [2] and marks["false alarm (1)"] == [3]
    assert f"mean {np.mean([row['dice'] for row in rows]):.3f}" in marks
    assert len(coloured(tmp_path / "cases.png", report.ALARM)) > 20
    with pytest.raises(DataError, match="found none"):
        report.case_chart([], tmp_path / "none.png")


def test_report_holds_facts_scores_cases_and_pictures(tmp_path, rows):
    picture = tmp_path / "run 1" / "pictures" / "case chart.png"
    report.case_chart(rows, picture)
    facts = {"network": "ReducedUNet", "parameters": 2035559, "seed": 0}
    summary = summarize(rows)
    path = report.write_report(
        tmp_path / "run 1", "lits, fold 0", summary, rows, facts, {"Dice per case": picture}, unit="pixels"
    )
    assert path == tmp_path / "run 1" / "report.md"
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# lits, fold 0\n")
    assert "| network | ReducedUNet |" in text and "| parameters | 2035559 |" in text
    for name, key in (("Dice", "dice"), ("IoU", "iou"), ("HD95 (pixels)", "hd95")):
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {name} |"))
        mean, spread = (float(number) for number in line.split(" | ")[1].split(" ± "))
        assert (mean, spread) == pytest.approx((summary[f"{key}_mean"], summary[f"{key}_std"]), abs=0.051)
        assert line.endswith("| 1 of 4 | 1 of 4 |")
    assert "| 3 | 2 | 1 | 1 | 0.667 | 0.25 |" in text
    (link,) = re.findall(r"!\[Dice per case\]\((.*)\)", text)
    assert link == "pictures/case%20chart.png"
    assert "| 1 | a \\| b | 1.000 | 1.000 | 0.0 | 1 | 0 | 0 |  |" in text
    assert re.search(r"\| 3 \| gone \| 0\.000 .* missed \|", text)
    assert re.search(r"\| 4 \| ghost \| 0\.000 .* false alarm \|", text)
    # Markdown needs as many cells in a line as its table has columns, and an empty line before a table.
    tables = [part for part in text.split("\n\n") if part.startswith("|")]
    assert len(tables) == 4
    assert sum(len(table.splitlines()) for table in tables) == text.count("\n|")
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_report_does_not_link_to_nothing(tmp_path, rows):
    with pytest.raises(DataError, match="expected a picture at"):
        report.write_report(tmp_path, "run", summarize(rows), rows, {}, {"curves": tmp_path / "curves.png"})
    assert not (tmp_path / "report.md").exists()

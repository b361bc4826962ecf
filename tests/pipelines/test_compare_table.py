from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipelines import compare_table
from pipelines.compare_groups import grouped
from pipelines.significance import Comparison
from tests.pipelines.test_compare_groups import run


def groups_of(*runs):
    groups, _ = grouped(runs, ())
    return groups


def test_a_row_has_the_figures_of_its_group():
    (group,) = groups_of(
        run([0.5, 0.0], seed=0, minutes=90, metrics={"images_per_second": 12.34}),
        run([0.7, 0.2], seed=1, minutes=60),
    )
    heading, rows = compare_table.table([group], {"Plain": 12.345})
    assert dict(zip(heading, rows[0], strict=True)) == {
        "network": "Plain",
        "parameters": "760",
        "GMACs": "0.50",
        "seeds x folds": "2 x 1",
        "Dice": "0.350 ± 0.141",  # of 0.25 and 0.45
        "HD95 (pixels)": "6.5 ± 1.4",
        "missed cases": "1/4",
        "missed lesions": "1/4",
        "false lesions a case": "2.00",
        "false alarms": "0",
        "latency, ms": "12.3",
        "images/s": "12.3",
        "training, min": "75.0",
    }


def test_iou_of_slices_is_told_where_all_have_it():
    one, other = run([0.5, 0.7], seed=0), run([0.5, 0.9], seed=1)
    for row, iou in zip((*one.rows, *other.rows), (0.2, 0.4, 0.4, 0.6), strict=True):
        row["slice_iou"] = iou
    heading, (row,) = compare_table.table(groups_of(one, other), {})
    assert heading[6:8] == ["IoU of slices", "missed cases"] and row[6] == "0.400 ± 0.141"
    heading, _ = compare_table.table(groups_of(one, other, run([0.5], network="Other")), {})
    assert "IoU of slices" not in heading


def test_what_is_not_known_is_a_dash():
    (group,) = groups_of(run([0.5], params={"unit": "mm"}))
    _, (row,) = compare_table.table([group], {})
    assert row[4:6] == ["0.500", "5.0"]
    assert row[-3:-1] == ["-", "-"]
    assert compare_table.plain(group, {})["dice_std"] is None


def test_missing_runs_and_units_that_differ_are_seen():
    groups = groups_of(
        run([0.5], seed=0, fold=0),
        run([0.5], seed=0, fold=1),
        run([0.5], seed=1, fold=0),
        run([0.5], network="CT", params={"unit": "mm"}),
    )
    heading, rows = compare_table.table(groups, {})
    assert rows[0][3] == "3 of 2 x 2"
    assert heading[5] == "HD95 (mm or pixels)"
    assert [row[5] for row in rows] == ["5.0 ± 0.0 pixels", "5.0 mm"]


def test_tests_are_seen_from_the_best():
    groups = groups_of(run([0.9], network="A"), run([0.5], network="B"), run([0.4], network="C"))
    found = [
        Comparison("B", "A", 30, -0.4, -0.5, -0.1, 0.0001, 0.0002, "A better"),
        Comparison("A", "C", 30, 0.5, 0.2, 0.6, 0.02, 0.04, "A better"),
        Comparison("B", "C", 30, 0.1, -0.2, 0.3, 0.5, 0.5, "no difference shown"),
    ]
    _, rows = compare_table.against_best(groups, found)
    assert rows == [
        ["B", "30", "0.400 (0.100 to 0.500)", "< 0.001", "A better"],
        ["C", "30", "0.500 (0.200 to 0.600)", "0.040", "A better"],
    ]


@pytest.mark.parametrize("label", ["Plain [red]", "LighterUNet group_size=16, max_epochs=20"])
def test_the_terminal_shows_every_cell(label):
    groups = groups_of(run([0.9], network=label), run([0.5], network="Other"))
    text = io.StringIO()
    tested = [Comparison(label, "Other", 1, 0.4, float("nan"), float("nan"), 1, 1, "no difference shown")]
    latencies = {label: 1234.5, "Other": 1}
    compare_table.show(groups, tested, Console(file=text, width=170), latencies, "What it means.")
    lines = text.getvalue().splitlines()
    (row,) = (line for line in lines if line.lstrip().startswith(label))
    for cell in compare_table.table(groups, latencies)[1][0]:
        assert cell in row
    (row,) = (line for line in lines if "no difference shown" in line and "Other" in line)
    assert "0.400 (- to -)" in row
    assert "What it means." in text.getvalue()

from __future__ import annotations

import io
import math
import os

import numpy as np
import pytest
from rich.console import Console

from pipelines.datasets import checking
from pipelines.datasets.checking import Finding
from pipelines.errors import DataError


def finding(severity="error", kind="kind", case="volume-1", file="a", message="m"):
    return Finding(severity, kind, case, file, message)


def test_copies_and_far_sizes_name_their_files():
    files = {name: f"{name}.nii" for name in ("x_2", "x_10", "x_3", "x_4", "x_5", "x_6")}
    (copy,) = checking.duplicates({"x_10": "a", "x_2": "a", "x_3": "b"}, files)
    assert (copy.severity, copy.kind, copy.case, copy.file) == ("error", "duplicate", "x_10", "x_10.nii")
    assert "x_2.nii" in copy.message
    sizes = {name: {"width": 100.0} for name in files} | {"x_5": {"width": 260.0}, "x_6": {}}
    (far,) = checking.far_sizes(sizes, files, {"width": 2, "depth": 2})
    assert (far.severity, far.kind, far.case, far.file) == ("warning", "outlier", "x_5", "x_5.nii")
    assert far.message == "width of 260, far from the median of 100"
    assert checking.far_sizes(sizes, files, {"width": 3}) == []


def test_order_is_by_severity_then_number():
    given = [
        finding("note"),
        finding("error", case="volume-10"),
        finding("error", case="volume-9"),
        finding("warning"),
    ]
    assert [(f.severity, f.case) for f in checking.ordered(given)] == [
        ("error", "volume-9"),
        ("error", "volume-10"),
        ("warning", "volume-1"),
        ("note", "volume-1"),
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_each_keeps_the_order(workers):
    assert checking.each(math.sqrt, [1, 4, 9, 16], workers) == [1, 2, 3, 4]


def test_each_lets_an_error_of_the_function_through():
    with pytest.raises(ValueError, match="math domain"):
        checking.each(math.sqrt, [1, -1, 4], 2)


def test_a_killed_worker_is_told_in_one_line():
    with pytest.raises(DataError, match="--workers 1"):
        checking.each(os._exit, [3, 3], 2)


def test_each_shows_a_bar_on_standard_error(capsys):
    checking.each(math.sqrt, [1, 4], 1, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "2/2" in err


def test_affine_gap_of_a_shift_and_of_a_wrong_spacing():
    first = np.diag((2.0, 2, 5, 1))
    shifted = first.copy()
    shifted[:3, 3] = (3, 0, 4)  # 5 mm, 2.5 voxels of 2 mm
    assert checking.affine_gap(first, shifted, (10, 10, 10)) == pytest.approx(2.5)
    stretched = np.diag((2.0, 2, 6, 1))  # 1 mm more in each of the 9 steps to the last slice
    assert checking.affine_gap(first, stretched, (10, 10, 10)) == pytest.approx(4.5)


def test_outliers_need_both_the_factor_and_the_deviation():
    values = {"a": 1.0, "b": 1.1, "c": 0.9, "d": 1.0, "e": 1.05}
    assert checking.outliers(values | {"far": 10.0}, 2)[0] == ["far"]
    assert checking.outliers(values | {"near": 1.9}, 2)[0] == []
    spread = {str(i): 2.0**i for i in range(10)}
    assert checking.outliers(spread | {"wide": 2.0**11}, 2)[0] == []
    assert checking.outliers({"a": 1.0, "b": 1.0, "c": 100.0}, 2)[0] == []


def test_outliers_also_lie_below_and_name_the_median():
    names, median = checking.outliers({"a": 4.0, "b": 4.0, "c": 4.0, "d": 4.0, "thin": 0.4}, 2)
    assert names == ["thin"]
    assert median == 4


def test_repeats_are_grouped():
    assert checking.repeats({"a": "1", "b": "2", "c": "1", "d": "3"}) == [["a", "c"]]


def test_split_is_compared_with_the_patients(tmp_path):
    path = tmp_path / "split.json"
    path.write_text('{"folds": [["1", 2], ["3", "2"], ["99"]]}')
    found = {(f.severity, f.kind, f.case) for f in checking.check_split(path, ["1", "2", "3", "4"])}
    assert found == {
        ("error", "two-folds", "2"),
        ("error", "absent", "99"),
        ("error", "no-fold", ""),
    }


def test_a_sound_split_gives_no_finding(tmp_path):
    path = tmp_path / "split.json"
    path.write_text('{"folds": [["1", "2"], ["3"]]}')
    assert checking.check_split(path, ["3", "2", "1"]) == []


@pytest.mark.parametrize("content", [None, "{", "[]", '{"folds": 3}', '{"folds": ["12"]}'])
def test_a_file_that_is_no_split_is_told_in_one_line(tmp_path, content):
    path = tmp_path / "split.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"expected .*split\.json") as error:
        checking.check_split(path, ["1"])
    assert "\n" not in str(error.value)


def test_what_belongs_together_is_told_once_where_folds_divide_it():
    groups = [
        [("a", 0), ("b", 0), ("c", 1)],
        [("a", 0), ("c", 1)],  # by looks as well
        [("d", 0), ("d", 1)],  # as `check_split` tells
        [("e", 2)],
    ]
    (found,) = checking.divided("runs/split.json", groups)
    assert (found.severity, found.kind, found.case, found.file) == ("error", "divided", "c", "split.json")
    assert found.message.endswith("found a in fold 0 and c in fold 1")


def test_what_is_reported_is_of_the_case_and_below_the_root(tmp_path):
    findings, report = checking.reporting("P1", tmp_path)
    report("note", "grey", tmp_path / "P1" / "mask.png", "m")
    assert findings == [Finding("note", "grey", "P1", "P1/mask.png", "m")]


def test_what_a_reader_raised_is_one_line():
    assert checking.unreadable(OSError("cut\noff")).endswith("(cut)")
    assert checking.unreadable(EOFError()).endswith("(EOFError)")


def test_summary_counts_by_severity():
    given = [finding("error"), finding("note"), finding("note")]
    assert checking.summary(given) == "1 error, 0 warnings, 2 notes"


def test_table_shows_whole_names_even_with_brackets():
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(checking.table([finding(file="[red]batch[1]/volume.nii.gz", message="what it is")]))
    cells = [line.split("│")[3].strip() for line in console.export_text().splitlines() if "│" in line]
    assert "".join(cells) == "[red]batch[1]/volume.nii.gz"

from __future__ import annotations

from pathlib import Path

from pipelines.datasets.checking import Finding
from pipelines.datasets.pairs import Case, pair

ROOT = Path("data")


def files(*parts):
    return [(case, part, ROOT / part / f"{case}.nii") for case, part in parts]


def test_cases_are_sorted_by_number_and_tests_come_last():
    listed = files(("x_10", "image"), ("x_3", "test"), ("x_10", "label"), ("x_9", "label"), ("x_9", "image"))
    cases, findings = pair(listed, [], ROOT)
    assert findings == []
    assert cases[0] == Case("x_9", "9", ROOT / "image/x_9.nii", ROOT / "label/x_9.nii")
    assert [(case.name, case.test, case.label is None) for case in cases] == [
        ("x_9", False, False),
        ("x_10", False, False),
        ("x_3", True, True),
    ]


def test_a_test_that_begins_to_count_again_is_another_patient():
    cases, _ = pair(files(("test-volume-3", "test")), [], ROOT)
    assert cases[0].patient == "test-3"


def test_what_is_missing_or_twice_is_said_once():
    listed = files(("x_1", "image"), ("x_2", "label"), ("x_3", "image"), ("x_3", "image"), ("x_4", "image"))
    known = Finding("error", "missing", "x_4", "label/x_4.nii", "expected x_4, which dataset.json lists")
    _, findings = pair(listed, [known], ROOT)
    assert findings[0] == known
    assert sorted((f.kind, f.case, f.message) for f in findings[1:]) == [
        ("missing", "x_1", "expected a segmentation for image/x_1.nii, found none"),
        ("missing", "x_2", "expected a volume for label/x_2.nii, found none"),
        ("missing", "x_3", "expected a segmentation for image/x_3.nii, found none"),
        ("twice", "x_3", "expected x_3 once, found image/x_3.nii and image/x_3.nii"),
    ]

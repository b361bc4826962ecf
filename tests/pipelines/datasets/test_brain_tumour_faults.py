from __future__ import annotations

import json

import pytest

from pipelines.datasets import brain_tumour
from pipelines.datasets.brain_tumour_phantom import phantom

# Written down here and not read from the phantom, so that a fault left out of it is seen.
BOTH = {
    "error": [
        *(
            "unreadable",
            "unreadable",
            "nonfinite",
            "empty",
            "repeated",
            "shape",
            "affine",
            "labels",
            "coding",
        ),
        *("outside", "duplicate"),
    ],
    "warning": ["order", "background", "skull", "outlier", "affine", "outside", "no-lesion"],
}
ONLY = {
    "decathlon": {"error": ["missing", "channels", "order"], "warning": []},
    "raw": {
        "error": ["unlabelled", "not-3d", "sequence", "doubled", "apart", "twice"],
        "warning": ["grids"] * 5,
    },
}


@pytest.fixture(scope="module", params=["decathlon", "raw"])
def faulty(request, tmp_path_factory):
    """Layout, folder, coding and findings of a phantom with faults; the raw one in the coding of BraTS."""
    root = tmp_path_factory.mktemp("faults") / "brain_tumour"
    coding = "msd" if request.param == "decathlon" else "brats"
    phantom(root, cases=5, size=40, faults=True, layout=request.param, coding=coding)
    return request.param, root, coding, brain_tumour.check(root, workers=1, label_coding=coding)


@pytest.mark.parametrize("severity", ["error", "warning"])
def test_check_finds_each_fault_and_nothing_else(faulty, severity):
    layout, *_, findings = faulty
    found = sorted(f.kind for f in findings if f.severity == severity)
    assert found == sorted(BOTH[severity] + ONLY[layout][severity])
    assert {f.severity for f in findings} == {"error", "warning"}


def test_the_marker_lists_the_faults(faulty):
    _, root, _, findings = faulty
    listed = json.loads((root / "PHANTOM.json").read_text())["faults"]
    found = {(f.severity, f.kind, f.case, f.file) for f in findings}
    expected = {(fault["severity"], fault["kind"], fault["case"], fault["file"]) for fault in listed}
    assert expected <= found
    assert {kind for _, kind, *_ in found - expected} <= {"grids"}  # of sound cases and a copy of one


def test_every_finding_is_one_line_about_a_file_of_its_case(faulty):
    _, root, _, findings = faulty
    for finding in findings:
        assert "\n" not in finding.message
        assert finding.case in finding.file
        assert (root / finding.file).exists() or finding.kind == "missing"


def test_the_split_has_a_patient_in_two_folds_and_an_absent_one(faulty):
    layout, root, coding, _ = faulty
    found = brain_tumour.check(root, workers=1, split=root / "split.json", label_coding=coding)
    first = {"decathlon": "001", "raw": "BraTS20_Training_001"}[layout]
    assert {(f.kind, f.case) for f in found if f.file == "split.json"} == {
        ("no-fold", ""),
        ("two-folds", first),
        ("absent", "9999"),
    }

from __future__ import annotations

import json

import pytest

from pipelines.datasets import lits
from pipelines.datasets.lits_phantom import phantom

# Written down here and not read from the phantom, so that a fault left out of it is seen.
ERRORS = {
    ("unreadable", "volume-6.nii.gz"),
    ("unreadable", "volume-7.nii"),
    ("unreadable", "segmentation-8.nii.gz"),
    ("missing", "volume-9.nii.gz"),
    ("missing", "segmentation-10.nii.gz"),
    ("shape", "segmentation-11.nii.gz"),
    ("labels", "segmentation-12.nii.gz"),
    ("nonfinite", "volume-13.nii.gz"),
    ("not-3d", "volume-14.nii.gz"),
    ("duplicate", "volume-15.nii.gz"),
    ("affine", "segmentation-16.nii.gz"),
    ("twice", "volume-17.nii.gz"),
}
WARNINGS = {
    ("affine", "segmentation-18.nii.gz"),
    ("intensity", "volume-19.nii.gz"),
    ("no-liver", "segmentation-20.nii.gz"),
    ("outlier", "volume-21.nii.gz"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults") / "lits"
    phantom(folder, cases=6, size=48, faults=True)
    return folder


@pytest.fixture(scope="module")
def findings(root):
    return lits.check(root, workers=2)


@pytest.mark.parametrize(("severity", "expected"), [("error", ERRORS), ("warning", WARNINGS)])
def test_check_finds_each_fault_and_nothing_else(findings, severity, expected):
    found = [(f.kind, f.file.rsplit("/")[-1]) for f in findings if f.severity == severity]
    assert sorted(found) == sorted(expected)


def test_every_finding_names_an_existing_file_and_its_case(root, findings):
    for finding in findings:
        assert (root / finding.file).exists()
        assert finding.case.split("-")[-1] in finding.file
        assert "\n" not in finding.message


def test_the_marker_lists_the_faults(root, findings):
    listed = json.loads((root / "PHANTOM.json").read_text())["faults"]
    found = {(f.severity, f.kind, f.case) for f in findings if f.severity != "note"}
    assert {(fault["severity"], fault["kind"], fault["case"]) for fault in listed} == found
    assert len(listed) == len(ERRORS) + len(WARNINGS)


def test_the_split_has_a_patient_in_two_folds_and_an_absent_one(root):
    found = lits.check(root, workers=1, split=root / "split.json")
    assert [(f.kind, f.case) for f in found if f.file == "split.json"] == [
        ("no-fold", ""),
        ("two-folds", "0"),
        ("absent", "9999"),
    ]

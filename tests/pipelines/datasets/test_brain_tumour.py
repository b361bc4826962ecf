from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from pipelines.datasets import brain_tumour
from pipelines.datasets.brain_tumour_phantom import phantom
from pipelines.datasets.fingerprint import fingerprint
from pipelines.errors import DataError
from pipelines.folds import held_out_cases, split
from tests.conftest import SHARED


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    folder = tmp_path_factory.mktemp("brain_tumour")
    phantom(folder / "decathlon", cases=3, size=40)
    phantom(folder / "raw", cases=3, size=40, layout="raw", coding="brats")
    return folder


def test_entries_of_the_decathlon_and_of_raw_cases(roots):
    task = roots / "decathlon" / "Task01_BrainTumour"
    assert brain_tumour.index(roots / "decathlon")[0] == {
        "case": "BRATS_001",
        "patient": "001",
        "image": str(task / "imagesTr" / "BRATS_001.nii.gz"),
        "label": str(task / "labelsTr" / "BRATS_001.nii.gz"),
        "label_coding": "msd",
    }
    folder = roots / "raw" / "BraTS20_Training_001"
    files = [
        str(folder / f"BraTS20_Training_001_{end}.nii.gz") for end in ("flair", "t1", "t1ce", "t2", "seg")
    ]
    assert brain_tumour.index(roots / "raw", label_coding="brats")[0] == {
        "case": "BraTS20_Training_001",
        "patient": "BraTS20_Training_001",
        "image": files[:4],
        "label": files[4],
        "label_coding": "brats",
    }


def test_without_labels_all_are_listed_and_nothing_is_said_of_masks(roots):
    found = brain_tumour.index(roots / "decathlon", labelled=False)
    assert [case["case"] for case in found] == [f"BRATS_00{number}" for number in range(1, 6)]
    assert all(set(case) == {"case", "patient", "image"} for case in found)


def test_what_else_is_done_with_cases_takes_four_files(roots):
    cases = brain_tumour.index(roots / "raw", label_coding="brats")
    assert len(fingerprint(cases)) == 16
    folds = split(cases, 3)
    assert [len(held_out_cases(cases, folds, fold)) for fold in range(3)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("lacks", "unlabelled", "message"),
    [
        ("t1ce", True, r"BraTS20_Training_001: expected a T1gd sequence .* featherseg check brain_tumour"),
        ("seg", False, r"BraTS20_Training_001: expected a mask .* featherseg check brain_tumour"),
    ],
)
def test_a_missing_sequence_is_always_an_error_and_a_missing_mask_where_labels_are_wanted(
    tmp_path, lacks, unlabelled, message
):
    phantom(tmp_path / "raw", cases=2, size=32, layout="raw", coding="brats")
    (tmp_path / f"raw/BraTS20_Training_001/BraTS20_Training_001_{lacks}.nii.gz").unlink()
    with pytest.raises(DataError, match=message):
        brain_tumour.index(tmp_path / "raw")
    if unlabelled:
        with pytest.raises(DataError, match=message):
            brain_tumour.index(tmp_path / "raw", labelled=False)
    else:
        assert len(brain_tumour.index(tmp_path / "raw", labelled=False)) == 2


def test_tests_alone_are_no_training_data_and_an_unknown_coding_is_none(tmp_path):
    folder = tmp_path / "imagesTs"
    (tmp_path / "imagesTr").mkdir()
    folder.mkdir()
    (folder / "BRATS_485.nii.gz").touch()
    with pytest.raises(DataError, match="only tests, which have no mask"):
        brain_tumour.index(tmp_path)
    with pytest.raises(DataError, match="label coding of msd"):
        brain_tumour.index(tmp_path, label_coding="brats21")


def test_data_beside_a_phantom_is_no_part_of_it(roots, tmp_path):
    phantom(tmp_path / "data", cases=2, size=32, layout="raw")
    (tmp_path / "data" / "TCGA-00-0001").rename(tmp_path / "data" / "P1")
    with pytest.raises(
        DataError, match="data in a folder of its own, found 5 files beside those of a phantom"
    ):
        brain_tumour.index(tmp_path / "data")


@pytest.mark.parametrize(("layout", "coding", "rim"), [("decathlon", "msd", 3), ("raw", "brats", 4)])
def test_a_case_is_read_as_flair_in_deviations_with_the_mask_of_its_coding(roots, layout, coding, rim):
    case = brain_tumour.index(roots / layout, label_coding=coding)[0]
    values, whole, spacing = brain_tumour.read(case, (1, 2, 3))
    labels = np.asarray(nib.load(case["label"]).dataobj)
    assert np.array_equal(whole, labels > 0)
    assert np.array_equal(brain_tumour.read(case, (3,))[1], labels == rim)
    assert np.array_equal(brain_tumour.read(case, (1,))[1], labels == (1 if coding == "msd" else 2))
    assert values.shape == labels.shape
    assert np.allclose(spacing, nib.load(case["label"]).header.get_zooms(), atol=1e-3)
    inside = values[values >= brain_tumour.LEVELS.lowest]
    assert abs(inside.mean()) < 6  # hundredths of a deviation; the lowest are clipped
    assert 90 < inside.std() < 105
    assert np.median(values[whole]) > 30
    assert 0.5 < (values == brain_tumour.LEVELS.lowest - 1).mean() < 0.9


def test_a_mask_of_another_coding_or_size_is_named(roots, tmp_path):
    case = dict(brain_tumour.index(roots / "raw", label_coding="msd")[0])
    with pytest.raises(DataError, match=r"_seg\.nii\.gz: expected labels \{0, 1, 2, 3\}, found \[4\.0\]"):
        brain_tumour.read(case, (1, 2, 3))
    label = nib.load(case["label"])
    nib.save(label.slicer[:, :, 1:], tmp_path / "short.nii.gz")
    with pytest.raises(DataError, match=r"short\.nii\.gz: expected the shape of its volume"):
        brain_tumour.read({**case, "label": str(tmp_path / "short.nii.gz")}, (1,))


@pytest.mark.skipif(not (SHARED / "mr_tcga").is_dir(), reason="the real examination is not there")
def test_the_real_examination_is_four_files_of_a_case_that_names_nobody():
    (case,) = brain_tumour.index(SHARED / "mr_tcga", labelled=False)
    assert (case["case"], case["patient"]) == ("examination", "examination")
    assert [file.rsplit("_", 1)[-1] for file in case["image"]] == [
        *("flair.nii.gz", "t1.nii.gz", "t1gd.nii.gz", "t2.nii.gz"),
    ]

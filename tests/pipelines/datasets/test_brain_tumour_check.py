"""What the phantom's faults do not show; those are checked in test_brain_tumour_faults.py."""

from __future__ import annotations

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from pipelines.datasets import brain_tumour
from pipelines.datasets.brain_tumour_check import check
from pipelines.datasets.brain_tumour_phantom import phantom
from pipelines.errors import DataError
from tests.conftest import SHARED


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """A raw phantom in each coding."""
    folder = tmp_path_factory.mktemp("codings")
    for coding in ("msd", "brats", "brats2023"):
        phantom(folder / coding, cases=6, size=40, layout="raw", coding=coding)
    return folder


@pytest.fixture
def decathlon(tmp_path):
    phantom(tmp_path / "data", cases=4, size=40)
    return tmp_path / "data"


def codings(findings):
    return [(f.case, f.message) for f in findings if f.kind == "coding"]


@pytest.mark.parametrize("coding", ["msd", "brats", "brats2023"])
def test_the_right_coding_gives_no_finding_but_the_grids(roots, coding):
    found = check(roots / coding, workers=1, label_coding=coding)
    assert [(f.severity, f.kind) for f in found] == [("warning", "grids")] * 3
    assert "FLAIR 32x40x26, T2w 35x40x26 -> T1gd 40x35x26" in found[0].message


@pytest.mark.parametrize(
    ("coding", "chosen", "found", "fitting"),
    [
        ("brats", "msd", "4", "brats;"),
        ("brats", "brats2023", "4", "brats;"),
        ("msd", "brats", "3", "msd or brats2023;"),
        ("brats2023", "brats", "3", "msd or brats2023;"),
    ],
)
def test_a_label_of_another_coding_is_named_with_that_coding(roots, coding, chosen, found, fitting):
    named = codings(check(roots / coding, workers=1, label_coding=chosen))
    assert len(named) == 4  # the cases whose tumour enhances
    assert all(f"found {found} as well, which fits the coding {fitting}" in message for _, message in named)


@pytest.mark.parametrize(("coding", "chosen"), [("msd", "brats2023"), ("brats2023", "msd")])
def test_codings_of_the_same_labels_are_told_apart_by_anatomy(roots, coding, chosen):
    ((case, message),) = codings(check(roots / coding, workers=1, label_coding=chosen))
    assert case == ""
    assert f"the other way about in 3 of 3 cases; choose {coding} with --label-coding" in message


def test_an_unknown_coding_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(DataError, match="label coding of msd, brats, brats2023, found 'lits'"):
        check(tmp_path, label_coding="lits")


def test_the_order_of_the_channels_is_read_from_the_listing_in_any_spelling(decathlon):
    listing = decathlon / "Task01_BrainTumour" / "dataset.json"
    content = json.loads(listing.read_text())
    (decathlon / "PHANTOM.json").unlink()
    for names, wrong in ((("FLAIR", "T1w", "t1gd", "T2w"), False), (("T1", "T1ce", "T2", "FLAIR"), True)):
        content["modality"] = dict(zip("0123", names, strict=True))
        listing.write_text(json.dumps(content))
        found = [(f.kind, f.file) for f in check(decathlon, workers=1)]
        assert found == ([("order", "Task01_BrainTumour/dataset.json")] if wrong else [])


def test_channels_in_another_order_in_all_files_are_one_error(decathlon):
    for case in brain_tumour.index(decathlon):
        image = nib.load(case["image"])
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[..., [2, 1, 3, 0]], image.affine), case["image"])
    (finding,) = check(decathlon, workers=1)
    assert (finding.severity, finding.kind, finding.case) == ("error", "order", "")
    assert "contradicted in 4 of 4 cases, as in BRATS_001, where" in finding.message


def test_a_test_is_read_but_needs_no_mask(decathlon):
    path = decathlon / "Task01_BrainTumour/imagesTs/BRATS_005.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[..., :3], image.affine), path)
    assert [(f.kind, f.case) for f in check(decathlon, workers=1)] == [("channels", "BRATS_005")]


def test_a_sequence_of_another_patient_is_a_duplicate(tmp_path):
    phantom(tmp_path / "data", cases=4, size=40, layout="raw", coding="brats")
    two, four = brain_tumour.index(tmp_path / "data")[1::2]
    shutil.copyfile(two["image"][1], four["image"][1])
    found = [f for f in check(tmp_path / "data", workers=1, label_coding="brats") if f.severity == "error"]
    assert [(f.kind, f.case) for f in found] == [("duplicate", "BraTS20_Training_004")]
    assert "BraTS20_Training_002_t1.nii.gz" in found[0].message
    assert found[0].file.endswith("BraTS20_Training_004_t1.nii.gz")


def test_a_float_mask_with_lossy_labels_is_sound(decathlon):
    label = brain_tumour.index(decathlon)[0]["label"]
    image = nib.load(label)
    lossy = np.asarray(image.dataobj).astype(np.float32) * np.float32(0.9999999)
    nib.save(nib.Nifti1Image(lossy, image.affine), label)
    assert check(decathlon, workers=1) == []


@pytest.mark.skipif(not (SHARED / "mr_tcga").is_dir(), reason="the real examination is not there")
def test_a_real_examination_has_a_skull_and_several_grids():
    found = check(SHARED / "mr_tcga", workers=1)
    assert [(f.severity, f.kind, f.case) for f in found] == [
        ("error", "unlabelled", "examination"),
        ("warning", "skull", "examination"),
        ("warning", "grids", "examination"),
    ]

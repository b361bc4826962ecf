from __future__ import annotations

import hashlib

import nibabel as nib
import numpy as np
import pytest
from monai.data import load_decathlon_datalist

from pipelines import threshold
from pipelines.datasets import brain_tumour
from pipelines.datasets.brain_tumour_phantom import phantom
from pipelines.errors import DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "brain_tumour"
    assert phantom(folder, size=48)
    return folder


@pytest.fixture(scope="module")
def images(root):
    return [{key: nib.load(case[key]) for key in ("image", "label")} for case in brain_tumour.index(root)]


def digests(root):
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_check_finds_nothing_wrong(root):
    assert brain_tumour.check(root, workers=1) == []


def test_monai_reads_its_listing(root):
    listing = root / "Task01_BrainTumour" / "dataset.json"
    assert len(load_decathlon_datalist(listing, True, "training")) == 12
    assert len(load_decathlon_datalist(listing, True, "test")) == 2
    assert len(brain_tumour.index(root, labelled=False)) == 14


def test_images_and_masks_are_those_of_the_decathlon(images):
    for case in images:
        assert case["image"].shape == (48, 48, 28, 4)
        assert case["label"].shape == (48, 48, 28)
        assert np.array_equal(case["image"].affine, case["label"].affine)
        assert set(np.unique(case["label"].dataobj)) <= {0, 1, 2, 3}
    labels = [set(np.unique(case["label"].dataobj)) for case in images]
    assert {0, 2} in labels
    assert {0, 1, 2} in labels
    assert labels.count({0, 1, 2, 3}) > 6


def test_slices_without_a_brain_and_many_without_a_tumour(images):
    with_tumour = []
    for case in images:
        brain = np.asarray(case["image"].dataobj)[..., 0] > 0
        assert not brain.any(axis=(0, 1)).all()
        with_tumour += (np.asarray(case["label"].dataobj) > 0).any(axis=(0, 1)).tolist()
    assert 0.15 < np.mean(with_tumour) < 0.5


def test_no_fixed_threshold_finds_the_tumours(root):
    cases = brain_tumour.index(root)

    def load(case):
        return case["case"], *brain_tumour.read(case, (1, 2, 3))

    (low, high), rows = threshold.fixed_threshold(cases[1::2], cases[::2], load, brain_tumour.LEVELS)
    assert 50 < low < high  # the search works: tumours are brighter than the brain
    assert 0.2 < np.mean([row["dice"] for row in rows]) < 0.62


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        phantom(tmp_path / name, cases=2, seed=seed, size=32, layout="raw", coding="brats")
    first, again, other = (digests(tmp_path / name) for name in "abc")
    assert first == again
    assert len(set(first.values()) & set(other.values())) == 0


def test_a_case_does_not_depend_on_how_many_there_are(tmp_path):
    phantom(tmp_path / "few", cases=1, size=32)
    phantom(tmp_path / "many", cases=3, size=32)
    few, many = digests(tmp_path / "few"), digests(tmp_path / "many")
    name = next(path for path in few if path.name == "BRATS_001.nii.gz" and "imagesTr" in path.parts)
    assert few[name] == many[name]


def test_raw_cases_have_one_grid_or_several_by_turns(tmp_path):
    phantom(tmp_path / "raw", cases=4, size=32, layout="raw", coding="brats2023")
    cases = brain_tumour.index(tmp_path / "raw")
    shapes = [{nib.load(file).shape for file in case["image"]} for case in cases]
    assert [len(one) for one in shapes] == [3, 1, 3, 1]
    assert [case["patient"] for case in cases] == [f"BraTS-GLI-0000{number}" for number in range(1, 5)]


@pytest.mark.parametrize(
    "options",
    [
        {"layout": "dicom"},
        {"coding": "brats"},
        {"coding": "brats22", "layout": "raw"},
        {"size": 300},
        {"cases": 0},
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, options):
    with pytest.raises(DataError, match="expected"):
        phantom(tmp_path / "no", **options)
    assert not (tmp_path / "no").exists()

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from pipelines.datasets import brain_tumour_examination as examinations
from pipelines.datasets.brain_tumour_writers import encoded, write_decathlon, write_listing, write_raw


@pytest.fixture(scope="module")
def drawn():
    return examinations.hospital(1, 0, 32)


def test_labels_in_the_coding_of_each_release():
    msd = np.array([[0, 1], [2, 3]])
    assert encoded(msd, "msd").tolist() == [[0, 1], [2, 3]]
    assert encoded(msd, "brats").tolist() == [[0, 2], [1, 4]]
    assert encoded(msd, "brats2023").tolist() == [[0, 2], [1, 3]]
    assert encoded(msd, "brats").dtype == np.uint8


@pytest.mark.parametrize(
    ("coding", "name", "endings"),
    [
        ("msd", "TCGA-00-0007", ("_flair", "_t1", "_t1gd", "_t2", "_seg")),
        ("brats", "BraTS20_Training_007", ("_flair", "_t1", "_t1ce", "_t2", "_seg")),
        ("brats2023", "BraTS-GLI-00007-000", ("-t2f", "-t1n", "-t1c", "-t2w", "-seg")),
    ],
)
def test_a_raw_case_is_a_folder_of_five_files(tmp_path, drawn, coding, name, endings):
    case = write_raw(tmp_path, 7, drawn, coding)
    assert case.name == name
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == sorted(
        f"{name}{ending}.nii.gz" for ending in endings
    )
    for channel, (grid, voxels) in enumerate(zip(drawn.grids, drawn.images, strict=True)):
        image = nib.load(case.file(channel))
        assert np.allclose(image.affine, grid.affine, atol=1e-4)
        assert np.array_equal(np.asarray(image.dataobj), voxels)
    label = nib.load(case.label)
    assert np.allclose(label.affine, nib.load(case.file(2)).affine)
    assert np.array_equal(np.asarray(label.dataobj), encoded(drawn.labels, coding))


def test_a_case_of_the_decathlon_is_one_file_with_what_macos_leaves(tmp_path):
    drawn = examinations.decathlon(1, 0, 32)
    case = write_decathlon(tmp_path, 1, drawn)
    test = write_decathlon(tmp_path, 2, drawn, test=True)
    image = nib.load(case.file(3))
    assert (image.shape, image.get_data_dtype()) == ((32, 32, 28, 4), np.float32)
    assert np.array_equal(np.asarray(image.dataobj)[..., 2], drawn.images[2])
    names = {
        path.relative_to(tmp_path / "Task01_BrainTumour").as_posix() for path in tmp_path.rglob("*.nii.gz")
    }
    assert names == {
        *("imagesTr/BRATS_001.nii.gz", "imagesTr/._BRATS_001.nii.gz"),
        *("labelsTr/BRATS_001.nii.gz", "labelsTr/._BRATS_001.nii.gz"),
        *("imagesTs/BRATS_002.nii.gz", "imagesTs/._BRATS_002.nii.gz"),
    }
    assert not test.label.exists()


def test_the_listing_is_the_decathlons(tmp_path):
    (tmp_path / "Task01_BrainTumour").mkdir()
    write_listing(tmp_path, ["BRATS_001"], ["BRATS_002"])
    content = json.loads((tmp_path / "Task01_BrainTumour" / "dataset.json").read_text())
    assert content["modality"] == {"0": "FLAIR", "1": "T1w", "2": "T1gd", "3": "T2w"}
    assert content["training"] == [
        {"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}
    ]
    assert content["test"] == ["./imagesTs/BRATS_002.nii.gz"]
    assert set(content["labels"]) == {"0", "1", "2", "3"}

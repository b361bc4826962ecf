from __future__ import annotations

import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from pipelines.datasets.reading import read_picture, read_volume
from pipelines.errors import DataError
from tests.conftest import write_volume


@pytest.fixture
def volume(tmp_path):
    """A scaled volume of 3x4x5 voxels whose label, as some programs leave it, is not quite an integer."""
    hu = np.arange(60.0).reshape(3, 4, 5) - 30.5
    image = nib.Nifti1Image(hu, np.diag([-0.7, 0.8, 2.5, 1]))
    image.header.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "volume-0.nii.gz")
    label = np.zeros(hu.shape, np.float32)
    label[1, 2, 3], label[0, 0, 0] = 1.9999999, 1
    return {
        "image": str(tmp_path / "volume-0.nii.gz"),
        "label": write_volume(tmp_path / "segmentation-0.nii.gz", label),
    }, hu


@pytest.fixture
def picture(tmp_path):
    """A picture of 4x3 pixels: black, and white, red, green and blue on the first row; two masks."""
    rgb = np.zeros((3, 4, 3), np.uint8)
    rgb[0] = [(255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    first, second = np.zeros((2, 3, 4), np.uint8)
    first[0, 1], second[2, 3] = 255, 1
    for name, array in (("a", rgb), ("a_mask", first), ("a_mask_1", second)):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    masks = [str(tmp_path / f"a_mask{n}.png") for n in ("", "_1")]
    return {"image": str(tmp_path / "a.png"), "label": masks}


def test_a_volume_is_read_in_hu_with_the_mask_of_its_targets(volume):
    case, hu = volume
    values, truth, spacing = read_volume(case, [2])
    np.testing.assert_allclose(values, hu, atol=1e-3)
    assert truth.dtype == bool
    assert np.argwhere(truth).tolist() == [[1, 2, 3]]
    assert spacing == pytest.approx((0.7, 0.8, 2.5))
    assert np.argwhere(read_volume(case, [1, 2])[1]).tolist() == [[0, 0, 0], [1, 2, 3]]


def test_a_volume_that_is_cut_off_or_of_another_shape_is_named(volume, tmp_path):
    case, _ = volume
    other = write_volume(tmp_path / "segmentation-1.nii.gz", np.zeros((3, 4, 6), np.uint8))
    with pytest.raises(DataError, match=r"segmentation-1.*\(3, 4, 5\), found \(3, 4, 6\)"):
        read_volume({**case, "label": other}, [2])
    (tmp_path / "cut.nii.gz").write_bytes((tmp_path / "volume-0.nii.gz").read_bytes()[:-40])
    with pytest.raises(DataError, match=r"cut\.nii\.gz: expected a whole file"):
        read_volume({**case, "image": str(tmp_path / "cut.nii.gz")}, [2])
    with pytest.raises(DataError, match=r"gone\.nii: expected a whole file"):
        read_volume({**case, "label": str(tmp_path / "gone.nii")}, [2])


def test_a_picture_is_read_by_its_luminance_with_the_union_of_its_masks(picture):
    values, truth, spacing = read_picture(picture, [1])
    assert values.dtype == np.uint8
    assert values.shape == (3, 4)
    assert values[0].tolist() == [255, 76, 150, 29]  # 0.299, 0.587 and 0.114 of 255
    assert truth.dtype == bool
    assert np.argwhere(truth).tolist() == [[0, 1], [2, 3]]
    assert spacing == (1, 1)
    one = read_picture({**picture, "label": picture["label"][1]}, [1])[1]
    assert np.argwhere(one).tolist() == [[2, 3]]


def test_a_mask_of_another_size_or_that_cannot_be_read_is_named(picture, tmp_path):
    Image.new("L", (3, 4)).save(tmp_path / "turned.png")
    with pytest.raises(DataError, match=r"turned\.png: expected the 4x3 pixels of its image, found 3x4"):
        read_picture({**picture, "label": str(tmp_path / "turned.png")}, [1])
    (tmp_path / "cut.png").write_bytes((tmp_path / "a_mask.png").read_bytes()[:40])
    with pytest.raises(DataError, match=r"cut\.png: expected a whole file"):
        read_picture({**picture, "label": str(tmp_path / "cut.png")}, [1])
    Image.fromarray(np.full((3, 4), 100, np.uint8)).save(tmp_path / "grey.png")
    with pytest.raises(DataError, match=r"grey\.png: expected 0 for background"):
        read_picture({**picture, "label": str(tmp_path / "grey.png")}, [1])
    with pytest.raises(DataError, match="cut"):
        read_picture({**picture, "image": str(tmp_path / "cut.png")}, [1])


def test_it_is_imported_without_the_heavy_imports():
    code = "import sys, pipelines.datasets.dce_us; sys.exit('monai.transforms' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

from __future__ import annotations

import hashlib
import os

import nibabel as nib
import numpy as np
import pytest

from pipelines.datasets import nifti


@pytest.fixture
def voxels():
    return np.random.default_rng(0).integers(-1000, 1000, (7, 5, 11)).astype(np.int16)


def save(array, path, affine=None):
    nib.save(nib.Nifti1Image(array, np.diag((2, 3, 4, 1)) if affine is None else affine), path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("slab", [1, 80, 10**6])
def test_image_is_read_whole_whatever_the_slab(tmp_path, monkeypatch, voxels, suffix, slab):
    monkeypatch.setattr(nifti, "SLAB_VOXELS", slab)
    image = nifti.read_image(save(voxels, tmp_path / f"a{suffix}"))
    assert image.header.shape == (7, 5, 11)
    assert (image.low, image.high, image.nonfinite) == (voxels.min(), voxels.max(), 0)
    stored = b"(7, 5, 11)" + voxels.astype("<f4").tobytes(order="F")
    assert image.digest == hashlib.blake2b(stored, digest_size=16).hexdigest()


def test_digest_is_of_the_values_not_of_the_dtype(tmp_path, voxels):
    first = nifti.read_image(save(voxels, tmp_path / "a.nii.gz"))
    second = nifti.read_image(save(voxels.astype(np.float64), tmp_path / "b.nii"))
    voxels[3, 3, 3] += 1
    third = nifti.read_image(save(voxels, tmp_path / "c.nii"))
    assert first.digest == second.digest != third.digest


def test_scaled_values_are_what_is_reported(tmp_path):
    image = nib.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    image.header.set_slope_inter(2, -1024)
    image.to_filename(tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[112:120] = np.float32([2, -1024]).tobytes()  # scl_slope and scl_inter, which saving resets
    raw[352:368] = np.arange(8, dtype=np.int16).tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    found = nifti.read_image(tmp_path / "a.nii")
    assert (found.low, found.high) == (-1024, -1010)


def test_voxels_that_are_not_finite_are_counted_and_left_out_of_the_range(tmp_path):
    array = np.float32([[[np.nan, 1], [np.inf, -3]]])
    image = nifti.read_image(save(array, tmp_path / "a.nii"))
    assert (image.low, image.high, image.nonfinite) == (-3, 1, 2)


def test_mask_counts_its_values_and_rounds_a_lossy_one(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "SLAB_VOXELS", 4)
    array = np.float32([[[0, 0.99999997, 1.0004], [2, 0.5, 0]]])
    assert nifti.read_mask(save(array, tmp_path / "a.nii")).counts == {0: 2, 0.5: 1, 1: 2, 2: 1}


def test_header_knows_the_patients_axes(tmp_path):
    # The array's axes run to the front, to the foot and to the left, of 1, 2 and 3 mm.
    affine = np.array([[0, 0, -3, 0], [1, 0, 0, 0], [0, -2, 0, 0], [0, 0, 0, 1.0]])
    header = nifti.read_mask(save(np.zeros((4, 5, 6), np.uint8), tmp_path / "a.nii", affine)).header
    assert header.patient_axes.tolist() == [2, 0, 1]
    assert header.spacing == pytest.approx([1, 2, 3])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("share", [0, 0.02, 0.6, 0.99])
@pytest.mark.parametrize("read", [nifti.read_image, nifti.read_mask])
def test_a_truncated_file_is_an_error(tmp_path, voxels, suffix, share, read):
    path = save(np.tile(voxels, (4, 4, 4)), tmp_path / f"a{suffix}")
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(nifti.READ_ERRORS):
        read(path)


def test_a_flipped_bit_is_an_error_by_the_checksum_of_gzip(tmp_path, voxels):
    path = save(voxels, tmp_path / "a.nii.gz")
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # within the checksum, behind the last voxel
    path.write_bytes(content)
    with pytest.raises(nifti.READ_ERRORS, match="CRC"):
        nifti.read_image(path)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\0" * 400])
def test_what_is_no_nifti_is_an_error(tmp_path, content):
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(nifti.READ_ERRORS):
        nifti.read_image(tmp_path / "a.nii")


def test_an_affine_without_an_inverse_is_an_error(tmp_path, voxels):
    path = save(voxels, tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    content[280:296] = bytes(16)  # srow_x
    path.write_bytes(content)
    with pytest.raises(nifti.READ_ERRORS, match="inverted"):
        nifti.read_image(path)


def test_all_voxels_are_kept_scaled_and_a_cut_is_noticed(tmp_path, monkeypatch, voxels):
    monkeypatch.setattr(nifti, "SLAB_VOXELS", 80)
    image = nib.Nifti1Image(voxels, np.diag((2, 3, 4, 1)))
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "a.nii.gz")
    header, found = nifti.read_voxels(tmp_path / "a.nii.gz")
    assert header.shape == (7, 5, 11)
    assert np.array_equal(found, np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj))
    os.truncate(tmp_path / "a.nii.gz", 200)
    with pytest.raises(nifti.READ_ERRORS):
        nifti.read_voxels(tmp_path / "a.nii.gz")


def test_sizes_are_along_the_patients_axes():
    turned = np.array([[0, 0, 3, 0], [2, 0, 0, 0], [0, 4, 0, 0], [0, 0, 0, 1.0]])
    header = nifti.Header((7, 5, 11), turned)
    whole = {"width": 11, "depth": 7, "slice count": 5, "pixel spacing": 3, "slice spacing": 4}
    assert header.sizes() == whole
    assert header.sizes(spacing=False) == dict(list(whole.items())[:3])
    assert nifti.Header((7, 5), turned).sizes() == {}

from __future__ import annotations

import pickle

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import DataLoader, Dataset, decollate_batch
from monai.transforms import LoadImage, LoadImaged

from pipelines.cache import describe
from pipelines.cases import load_case
from pipelines.datasets import brain_tumour
from pipelines.errors import DataError
from pipelines.sequence_reader import SequenceReader, registration
from tests.conftest import SHARED, write_volume

TURN = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, -1]])


def load(files, **options):
    return LoadImage(reader=SequenceReader(**options), ensure_channel_first=True)(files)


def write(folder, affines=(None,) * 4, shape=(6, 7, 5), dtype=np.int16):
    random = np.random.default_rng(0)
    return [
        write_volume(folder / f"{name}.nii.gz", random.integers(1, 900, shape).astype(dtype), affine)
        for name, affine in zip(("flair", "t1", "t1gd", "t2"), affines, strict=True)
    ]


def resampled_by_itk(file, reference):
    """An independent witness: SimpleITK's own resampling, onto the reference's grid."""
    fixed = sitk.ReadImage(str(reference), sitk.sitkFloat32)
    moving = sitk.ReadImage(str(file), sitk.sitkFloat32)
    moved = sitk.Resample(moving, fixed, sitk.Transform(), sitk.sitkLinear, 0.0)
    return sitk.GetArrayFromImage(moved).transpose(2, 1, 0)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A raw case of the phantom on grids of its own."""
    root = tmp_path_factory.mktemp("raw") / "brain_tumour"
    brain_tumour.phantom(root, cases=1, size=48, layout="raw", coding="brats")
    return brain_tumour.index(root, label_coding="brats")[0]


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint8])
def test_one_file_has_its_last_axis_first(tmp_path, dtype):
    array = np.random.default_rng(0).integers(0, 200, (6, 7, 5, 4)).astype(dtype)
    affine = nib.affines.from_matvec(TURN @ np.diag((1, 1, 3)), (5, -6, 7))
    file = write_volume(tmp_path / "BRATS_001.nii.gz", array, affine)
    image = load(file)
    assert (image.shape, image.dtype) == ((4, 6, 7, 5), torch.float32)
    assert np.array_equal(image.numpy(), np.moveaxis(array, -1, 0))
    assert np.allclose(image.affine, affine)
    assert (image.meta["grid_file"], image.meta["registration"]) == (file, "")


def test_four_files_on_one_grid_stay_what_they_are(tmp_path, capsys):
    files = write(tmp_path)
    image = load(files)
    for channel, file in zip(image, files, strict=True):
        assert np.array_equal(channel.numpy(), np.asarray(nib.load(file).dataobj))
    assert (image.meta["grid_file"], image.meta["filename_or_obj"]) == (files[2], files[0])
    assert image.meta["registration"] == registration(files) == ""
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("reference", ["t1gd", "flair"])
def test_four_files_on_different_grids_meet_as_in_simpleitk(raw, reference, capsys):
    image = load(raw["image"], reference=reference)
    fixed = raw["image"][("flair", "t1", "t1gd", "t2").index(reference)]
    assert tuple(image.shape[1:]) == nib.load(fixed).shape
    assert np.allclose(image.affine, nib.load(fixed).affine, atol=1e-5)
    assert image.meta["grid_file"] == fixed
    for channel, file in zip(image, raw["image"], strict=True):
        expected = resampled_by_itk(file, fixed)
        assert (expected > 0).mean() > 0.05
        # A centre on the very border of what was measured may fall to either side of it.
        assert np.mean(np.abs(channel.numpy() - expected) > 0.05) < 1e-3
    said = image.meta["registration"]
    assert said.startswith("registered by header only: ")
    assert said == registration(raw["image"], reference)
    assert capsys.readouterr().err.count(said) == 1
    load(raw["image"], quiet=True)
    assert capsys.readouterr().err == ""


def test_the_tumour_lies_where_its_mask_is_in_every_sequence(raw):
    image = load(raw["image"], quiet=True).numpy()
    labels = np.asarray(nib.load(raw["label"]).dataobj)
    tumour, brain = labels > 0, (image > 0).all(axis=0)
    rest, rim = brain & (labels > 0) & (labels < 4), labels == 4
    for channel, bright in zip((0, 1, 3), (True, False, True), strict=True):
        inside, outside = np.median(image[channel][rest]), np.median(image[channel][brain & ~tumour])
        assert (inside > 1.1 * outside) if bright else (inside < 0.95 * outside)
    assert np.median(image[2][rim]) > 1.15 * np.median(image[2][brain & ~tumour])


def test_outside_of_what_was_measured_is_nothing_and_the_outer_slices_do_not_fade(tmp_path):
    lower = np.eye(4)
    lower[2, 3] = -2  # two slices lower, so that the last two of the reference are not in it
    files = write(tmp_path, (lower, None, None, None))
    flair = load(files, quiet=True)[0].numpy()
    stored = np.asarray(nib.load(files[0]).dataobj)
    assert np.allclose(flair[..., :3], stored[..., 2:], atol=1e-3)
    assert (flair[..., 3:] == 0).all()


def test_the_metadata_survive_a_loader(raw):
    chain = LoadImaged(keys="image", reader=SequenceReader(quiet=True), ensure_channel_first=True)
    batch = next(iter(DataLoader(Dataset([{"image": raw["image"]}], chain), batch_size=1, num_workers=0)))
    assert tuple(batch["image"].shape[:2]) == (1, 4)
    (image,) = decollate_batch(batch["image"])
    assert image.meta["grid_file"] == raw["image"][2]
    assert "FLAIR" in image.meta["registration"]


def test_a_cache_tells_readers_of_another_reference_apart():
    first, again, other = (describe(SequenceReader(name)) for name in ("t1gd", "T1gd", "flair"))
    assert first == again != other
    assert pickle.loads(pickle.dumps(SequenceReader("flair"))).reference == 0


@pytest.mark.parametrize("cut", [True, False])
def test_voxels_that_cannot_be_used_are_one_error_through_a_chain(tmp_path, cut):
    files = write(tmp_path, dtype=np.float32)
    if cut:
        content = (tmp_path / "t2.nii.gz").read_bytes()
        (tmp_path / "t2.nii.gz").write_bytes(content[: len(content) // 2])
        expected = r"t2\.nii\.gz: expected a whole NIfTI file, found one that cannot be read"
    else:
        array = np.ones((6, 7, 5), np.float32)
        array[0, 0] = np.nan
        write_volume(tmp_path / "t2.nii.gz", array)
        expected = r"t2\.nii\.gz: expected finite values, found 5 NaN or infinite voxels"
    chain = LoadImaged(keys="image", reader=SequenceReader(), ensure_channel_first=True)
    with pytest.raises(DataError, match=expected) as error:
        load_case({"image": files}, chain)
    assert "\n" not in str(error.value)


def test_a_sequence_of_another_place_is_named_with_the_reference(tmp_path):
    far = np.eye(4)
    far[0, 3] = 100
    files = write(tmp_path, (None, far, None, None))
    with pytest.raises(
        DataError, match=r"t1\.nii\.gz: expected .* that .*t1gd\.nii\.gz shows, .* not overlap"
    ):
        load(files)


@pytest.mark.skipif(not (SHARED / "mr_tcga").is_dir(), reason="the real examination is not there")
def test_a_real_examination_lies_on_the_grid_of_t1gd():
    (case,) = brain_tumour.index(SHARED / "mr_tcga", labelled=False)
    image = load(case["image"], quiet=True)
    assert (image.shape, image.dtype) == ((4, 256, 224, 26), torch.float32)
    assert image.meta["registration"] == (
        "registered by header only: FLAIR 208x256x26, T2w 224x256x26 -> T1gd 256x224x26"
    )
    for channel, file in zip(image, case["image"], strict=True):
        expected = resampled_by_itk(file, case["image"][2])
        assert expected.max() > 900
        assert np.abs(channel.numpy() - expected).max() < 0.05

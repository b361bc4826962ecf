import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import CastToTyped, Compose, LoadImaged, NormalizeIntensityd

from pipelines import whitening
from pipelines.errors import DataError
from transforms import ChannelWhiten

PREPARE = Compose(
    [
        LoadImaged(["image", "label"], ensure_channel_first=True),
        NormalizeIntensityd("image", nonzero=True, channel_wise=True),
        CastToTyped("image", torch.float16),
        CastToTyped(["image", "label"], torch.float32),
    ]
)


@pytest.fixture
def cases(tmp_path):
    """Five cases of three correlated sequences, 20 x 18 pixels and 5 to 9 slices, with a background of 0."""
    random = np.random.default_rng(0)
    found = []
    for number in range(5):
        parts = random.normal(size=(20, 18, 5 + number, 3)) + number
        image = (parts @ (random.normal(size=(3, 3)) + 2 * np.eye(3)) + 50).astype(np.float32)
        image[:3], image[:, -2:] = 0, 0
        files = {key: str(tmp_path / f"{key}_{number}.nii.gz") for key in ("image", "label")}
        nib.save(nib.Nifti1Image(image, np.eye(4)), files["image"])
        nib.save(nib.Nifti1Image(np.ones(image.shape[:3], np.uint8), np.eye(4)), files["label"])
        found.append({"case": str(number), **files})
    return found


def brain(cases):
    """Of all cases together the pixels that are not background, (channels, pixels), without the cache."""
    images = [np.asarray(PREPARE(dict(case))["image"], np.float64).reshape(3, -1) for case in cases]
    return np.concatenate([image[:, (image != 0).any(axis=0)] for image in images], axis=1)


def test_whitened_training_pixels_have_identity_covariance(cases, tmp_path):
    found = whitening.fit(cases[:4], PREPARE, tmp_path / "cache", workers=0)
    pixels = brain(cases[:4])
    assert np.allclose(found["mean"], pixels.mean(axis=1), atol=1e-6)
    whitened = ChannelWhiten(**found)(torch.tensor(pixels)).numpy().astype(np.float64)
    assert not np.allclose(np.cov(pixels), np.eye(3), atol=0.1)  # they were correlated
    assert np.allclose(np.cov(whitened, bias=True), np.eye(3), atol=1e-5)
    # The symmetric root by another way than by eigenvectors of the covariance.
    left, size, _ = np.linalg.svd(pixels - pixels.mean(axis=1, keepdims=True), full_matrices=False)
    expected = left @ np.diag(np.sqrt(pixels.shape[1]) / size) @ left.T
    assert np.allclose(found["matrix"], expected, atol=1e-5)


def test_other_patients_are_not_part_of_it(cases, tmp_path):
    found = whitening.fit(cases[:4], PREPARE, tmp_path / "cache", workers=0)
    whitening.fit(cases, PREPARE, tmp_path / "cache", workers=0)  # now all of them are in the cache
    assert whitening.fit(cases[:4], PREPARE, tmp_path / "cache", workers=0) == found
    assert whitening.fit(cases[1:], PREPARE, tmp_path / "cache", workers=0) != found


def test_the_number_of_workers_changes_no_digit(cases, tmp_path):
    found = whitening.fit(cases, PREPARE, tmp_path / "cache", workers=0)
    assert whitening.fit(cases, PREPARE, tmp_path / "other", workers=2) == found
    assert all(type(value) is float for row in (found["mean"], *found["matrix"]) for value in row)


def test_sequences_that_repeat_are_refused(cases, tmp_path):
    image = nib.load(cases[0]["image"])
    array = np.asarray(image.dataobj).copy()
    array[..., 2] = array[..., 1]
    nib.save(nib.Nifti1Image(array, image.affine), cases[0]["image"])
    with pytest.raises(DataError, match=r"expected different sequences .* such as .*image_0.nii.gz, found"):
        whitening.fit(cases[:1], PREPARE, tmp_path / "cache", workers=0)


def test_nothing_but_background_is_refused(cases, tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((20, 18, 5, 3), np.float32), np.eye(4)), cases[0]["image"])
    with pytest.raises(DataError, match="found some that repeat or hold nothing"):
        whitening.fit(cases[:1], PREPARE, tmp_path / "cache", workers=0)


def test_weights_without_a_record_of_their_whitening_are_refused():
    kept = {"mean": [0.0], "matrix": [[1.0]]}
    assert whitening.recorded({"network": "x", "whitening": kept}, "model.pt") == kept
    with pytest.raises(DataError, match=r"with which other.pt was trained, found none; .* --whitening"):
        whitening.recorded({"network": "x", "whitening": None}, "other.pt")

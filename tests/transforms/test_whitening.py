import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from transforms import ChannelWhiten, ChannelWhitend
from transforms.whitening import zca


def channels(pixels=5000, seed=0):
    """Four channels that are sums of others, each with a mean of its own: (4, pixels)."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(4, 4)) + 2 * np.eye(4)
    return mixed @ random.normal(size=(4, pixels)) + random.normal(size=(4, 1)) * 3


def test_whitened_channels_have_no_mean_and_no_correlation():
    values = channels()
    whiten = ChannelWhiten(values.mean(axis=1), zca(np.cov(values, bias=True)))
    whitened = whiten(torch.tensor(values).reshape(4, 50, 100))
    assert whitened.shape == (4, 50, 100) and whitened.dtype == torch.float32
    found = whitened.reshape(4, -1).double().numpy()
    assert np.allclose(np.cov(found, bias=True), np.eye(4), atol=1e-5)
    assert np.allclose(found.mean(axis=1), 0, atol=1e-5)


def test_the_matrix_is_the_one_that_changes_channels_least():
    covariance = np.cov(channels(), bias=True)
    matrix = zca(covariance)
    # The inverse of the symmetric square root is unique; of two channels it can be written down.
    assert np.allclose(matrix, matrix.T)
    assert np.allclose(matrix @ covariance @ matrix, np.eye(4))
    assert (np.linalg.eigvalsh(matrix) > 0).all()
    plus, minus = 1 / np.sqrt(1 + 0.6), 1 / np.sqrt(1 - 0.6)
    expected = np.array([[plus + minus, plus - minus], [plus - minus, plus + minus]]) / 2
    assert np.allclose(zca(np.array([[1, 0.6], [0.6, 1]])), expected)


def test_the_background_stays_zero_whatever_the_means():
    image = torch.tensor(channels(100)).reshape(4, 10, 10).float()
    image[:, :, :3] = 0
    image[0, 5, 5] = 0  # but this pixel is one of the brain, in which a sequence happens to be 0
    whitened = ChannelWhiten([1, 2, 3, 4], np.diag([1, 2, 3, 4]))(image)
    assert (whitened[:, :, :3] == 0).all()
    assert whitened[0, 5, 5] == -1
    assert torch.allclose(whitened[3, :, 3:], (image[3, :, 3:] - 4) * 4, atol=1e-5)


def test_slices_are_whitened_as_their_volume_is_and_metadata_are_kept():
    volume = MetaTensor(torch.rand(4, 6, 5, 3) - 0.5, affine=torch.diag(torch.tensor([1.0, 2, 3, 1])))
    random = np.random.default_rng(0)
    whiten = ChannelWhitend("image", random.normal(size=4), random.normal(size=(4, 4)))
    whole = whiten({"image": volume, "case": "a"})
    assert whole["case"] == "a"
    assert torch.equal(whole["image"].affine, volume.affine)
    for number in range(3):
        one = whiten({"image": volume[..., number].as_tensor()})["image"]
        assert torch.allclose(one, whole["image"][..., number].as_tensor(), atol=1e-6)


def test_what_cannot_be_whitened_is_refused():
    with pytest.raises(ValueError, match="none follows from the others"):
        zca(np.ones((2, 2)))
    with pytest.raises(ValueError, match="none follows from the others"):
        zca(np.diag([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"expected a matrix of shape \(2, 2\) for 2 means, got \(2, 3\)"):
        ChannelWhiten([0, 0], np.ones((2, 3)))
    with pytest.raises(ValueError, match="expected an image of 2 channels, got one of 3"):
        ChannelWhiten([0, 0], np.eye(2))(torch.zeros(3, 4, 4))

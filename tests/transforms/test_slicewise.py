import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import HistogramNormalize, Orientation
from skimage.exposure import equalize_hist

from transforms import Slicewise, Slicewised


def test_each_slice_gets_its_own_histogram():
    torch.manual_seed(0)
    volume = torch.rand(1, 32, 24, 3) * torch.tensor([1.0, 5.0, 100.0])
    result = Slicewise(HistogramNormalize(num_bins=256, min=0, max=1))(volume)
    for z in range(3):
        expected = equalize_hist(volume[0, :, :, z].numpy(), nbins=256)
        # skimage starts its cumulative sum at the first bin's share, MONAI rescales it to start at 0
        assert np.abs(result[0, :, :, z].numpy() - expected).max() < 0.01
    whole = HistogramNormalize(num_bins=256, min=0, max=1)(volume)
    assert (whole[..., 0] - result[..., 0]).abs().max() > 0.5


@pytest.mark.parametrize("spatial_dim", [0, 1, 2])
def test_slices_are_taken_along_the_axis_asked_for(spatial_dim):
    volume = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
    result = Slicewise(lambda one: one - one.amin(), spatial_dim)(volume)
    axes = [axis for axis in range(4) if axis != spatial_dim + 1]
    assert torch.equal(result, volume - volume.amin(dim=axes, keepdim=True))


def test_metadata_and_earlier_transforms_are_kept_so_that_they_can_be_inverted():
    affine = torch.diag(torch.tensor([-1.0, -2.0, 3.0, 1.0], dtype=torch.float64))
    original = MetaTensor(torch.rand(1, 4, 5, 6), affine=affine)
    turn = Orientation(axcodes="RAS", labels=None)
    result = Slicewised("image", lambda one: one * 2)({"image": turn(original)})["image"]
    back = turn.inverse(result)
    assert torch.equal(back.affine, affine)
    assert torch.equal(torch.as_tensor(back), torch.as_tensor(original) * 2)


def test_ill_shaped_input_and_axis_are_refused():
    with pytest.raises(ValueError, match=r"shape \(C, X, Y, Z\), got shape \(1, 4, 5\)"):
        Slicewise(lambda one: one)(torch.rand(1, 4, 5))
    with pytest.raises(ValueError, match="0, 1 or 2, got 3"):
        Slicewise(lambda one: one, spatial_dim=3)


def test_a_missing_key_is_an_error_unless_allowed():
    with pytest.raises(KeyError):
        Slicewised("label", lambda one: one)({"image": torch.rand(1, 4, 4, 2)})
    assert Slicewised("label", lambda one: one, allow_missing_keys=True)({"image": 1}) == {"image": 1}

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from scipy import ndimage

from transforms import ResizeLesionsd
from transforms.small_lesions import resize_lesions


def with_squares(side, size=(300, 420)):
    """A mask with a square in each field of 30 pixels, somewhere in it."""
    random, mask = np.random.default_rng(side), np.zeros(size, np.float32)
    for x in range(0, size[0], 30):
        for y in range(0, size[1], 30):
            left, top = x + random.integers(2, 20), y + random.integers(2, 20)
            mask[left : left + side, top : top + side] = 1
    return mask


def nearest(mask, size):
    return F.interpolate(torch.from_numpy(mask)[None, None], size=size, mode="nearest-exact")[0, 0].numpy()


@pytest.mark.parametrize("side", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [(180, 160), (100, 100), (70, 110)])
def test_every_lesion_is_kept_in_its_place(side, size):
    mask = with_squares(side)
    small = resize_lesions(mask, size)
    lesions, count = ndimage.label(mask, np.ones((3, 3)))
    assert small.shape == size
    assert small.dtype == mask.dtype
    # Each pixel lies on a lesion, and each lesion has one.
    places = (np.argwhere(small) + 0.5) * np.array(mask.shape) / size
    margin = int(np.ceil(max(np.array(mask.shape) / size)))
    near = ndimage.grey_dilation(lesions, (2 * margin + 1,) * 2)
    assert set(near[tuple(places.astype(int).T)]) == set(range(1, count + 1))


def test_lesions_that_are_large_enough_are_as_nearest_neighbours_give_them():
    for mask in (with_squares(9), with_squares(20)):
        for size in ((150, 130), (300, 420), (450, 600)):
            assert np.array_equal(resize_lesions(mask, size), nearest(mask, size))
    assert nearest(with_squares(1), (150, 130)).sum() < 50  # of 140 lesions


def test_an_empty_mask_stays_empty():
    assert not resize_lesions(np.zeros((50, 40), bool), (20, 30)).any()


def test_lesions_at_the_edges_stay_in_the_image():
    mask = np.zeros((101, 67), np.float32)
    mask[0, 0] = mask[100, 66] = mask[0, 66] = mask[100, 0] = 1
    small = resize_lesions(mask, (10, 10))
    assert np.argwhere(small).tolist() == [[0, 0], [0, 9], [9, 0], [9, 9]]


def test_labels_get_the_size_of_their_image():
    label = MetaTensor(torch.from_numpy(with_squares(2))[None], meta={"filename_or_obj": "a.xml"})
    resize = ResizeLesionsd("label", allow_missing_keys=True)
    done = resize({"image": torch.zeros(1, 100, 140), "label": label})["label"]
    assert done.shape == (1, 100, 140)
    assert done.meta["filename_or_obj"] == "a.xml"
    assert done.dtype == label.dtype
    assert done.unique().tolist() == [0, 1]
    assert list(resize({"image": torch.zeros(1, 10, 14)})) == ["image"]

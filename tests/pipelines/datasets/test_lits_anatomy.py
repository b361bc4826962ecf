from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pipelines.datasets.lits_anatomy import LOOKS, abdomen

SPACING = (4.0, 4.0, 5.0)


def patient(seed, lesions=True, shape=(96, 88, 32)):
    return abdomen(np.random.default_rng(seed), shape, SPACING, lesions)


@pytest.fixture(scope="module")
def patients():
    return [patient(seed) for seed in range(6)]


def test_arrays_are_hu_and_labels(patients):
    for hu, labels in patients:
        assert hu.shape == labels.shape == (96, 88, 32)
        assert (hu.dtype, labels.dtype) == (np.float32, np.uint8)
        assert -1024 <= hu.min() < -950
        assert 300 < hu.max() <= 3071
        assert set(np.unique(labels)) == {0, 1, 2}


def test_the_liver_is_one_organ_of_a_livers_size_on_the_right(patients):
    for _, labels in patients:
        pieces, count = ndimage.label(labels > 0)
        sizes = ndimage.sum_labels(labels > 0, pieces, range(1, count + 1))
        assert sizes.max() > 0.97 * sizes.sum()
        assert 0.9 < sizes.sum() * np.prod(SPACING) / 1e6 < 3.5  # litres
        assert ndimage.center_of_mass(labels > 0)[0] > 96 / 2 + 5


def test_livers_enhance_differently(patients):
    livers = [np.median(hu[labels == 1]) for hu, labels in patients]
    assert all(75 < liver < 155 for liver in livers)
    assert max(livers) - min(livers) > 20


def test_the_largest_lesion_is_darker_than_its_liver_and_lies_within(patients):
    for hu, labels in patients:
        pieces, count = ndimage.label(labels == 2)
        sizes = ndimage.sum_labels(labels == 2, pieces, range(1, count + 1))
        lesion = pieces == 1 + np.argmax(sizes)
        assert np.median(hu[labels == 1]) - np.median(hu[lesion]) > 20
        around = ndimage.binary_dilation(lesion, iterations=2) & ~lesion
        assert (labels[around] > 0).mean() > 0.6


@pytest.mark.parametrize(("look", "liver"), [("arterial", (50, 95)), ("fatty", (5, 95))])
def test_in_other_looks_the_largest_lesion_is_brighter_than_its_liver(look, liver):
    for seed in range(4):
        random, portal = (np.random.default_rng(seed) for _ in range(2))
        hu, labels = abdomen(random, (96, 88, 32), SPACING, look=LOOKS[look])
        pieces, count = ndimage.label(labels == 2)
        lesion = pieces == 1 + np.argmax(ndimage.sum_labels(labels == 2, pieces, range(1, count + 1)))
        healthy = np.median(hu[labels == 1])
        assert liver[0] < healthy < liver[1]
        assert np.median(hu[lesion]) - healthy > 15
        assert np.array_equal(labels, abdomen(portal, (96, 88, 32), SPACING)[1])  # the same patient


def test_the_body_lies_in_air_with_fat_lung_and_bone(patients):
    for hu, _ in patients:
        smooth = ndimage.gaussian_filter(hu, 0.7)
        assert np.median(hu[:, -3:]) < -950
        assert ((smooth > -130) & (smooth < -70)).mean() > 0.05
        assert ((smooth > 40) & (smooth < 75)).mean() > 0.03
        assert (hu > 250).mean() > 0.003
        top = smooth[:, :, -1]
        assert ((top > -920) & (top < -700)).mean() > 0.03


def test_without_lesions_there_are_none():
    _, labels = patient(0, lesions=False)
    assert set(np.unique(labels)) == {0, 1}


def test_the_generator_decides_everything():
    first, again, other = (patient(seed, shape=(64, 60, 20)) for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1], other[1])


def test_a_stack_of_thin_slices_lies_within_the_liver():
    for seed in range(4):
        _, labels = abdomen(np.random.default_rng(seed), (64, 60, 32), (6, 6, 1.0))
        assert (labels > 0).any(axis=(0, 1)).all()

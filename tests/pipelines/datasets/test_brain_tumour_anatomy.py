from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pipelines.datasets.brain_tumour_anatomy import Tumour, brain, scan

SPACING = 4.0
FLAIR, T1, T1GD, T2 = range(4)


def points(spacing=SPACING, half=(90, 100, 80)):
    axes = [np.arange(-h, h, spacing, dtype=np.float32) for h in half]
    return tuple(np.ascontiguousarray(p) for p in np.meshgrid(*axes, indexing="ij"))


def patient(seed, **kind):
    return brain(np.random.default_rng(seed), points(), SPACING, Tumour(**kind))


@pytest.fixture(scope="module")
def patients():
    return [patient(seed) for seed in range(5)]


def test_a_brain_has_a_brains_size_and_is_one_piece(patients):
    for images, inside, labels in patients:
        assert images.shape == (4, *inside.shape)
        assert (images.dtype, inside.dtype, labels.dtype) == (np.float32, bool, np.uint8)
        assert 0.9 < inside.sum() * SPACING**3 / 1e6 < 1.7  # litres
        pieces, count = ndimage.label(inside)
        assert np.bincount(pieces.ravel())[1:].max() > 0.99 * inside.sum() or count == 1
        assert not labels[~inside].any()


def test_a_tumour_is_edema_about_a_rim_about_necrosis(patients):
    for _, _, labels in patients:
        assert set(np.unique(labels)) == {0, 1, 2, 3}
        assert 10 < (labels > 0).sum() * SPACING**3 / 1000 < 300  # ml
        outer = ndimage.binary_dilation(labels == 0) & (labels > 0)
        assert (labels[outer] == 1).mean() > 0.6
        around = ndimage.binary_dilation(labels == 2) & (labels != 2)
        assert (labels[around] == 3).mean() > 0.6


def test_each_part_looks_as_in_its_sequence(patients):
    for images, inside, labels in patients:
        healthy = inside & (labels == 0)
        normal = [np.median(image[healthy]) for image in images]
        edema, core, rim = ([np.median(image[labels == part]) for image in images] for part in (1, 2, 3))
        assert edema[FLAIR] > 1.15 * normal[FLAIR]
        assert edema[T2] > 1.15 * normal[T2]
        assert core[T2] > 1.2 * normal[T2]
        assert core[T1] < 0.85 * normal[T1]
        assert rim[T1GD] > 1.2 * normal[T1GD]
        assert rim[T1GD] > 1.5 * rim[T1]


def test_healthy_tissue_is_as_bright_as_the_tumour_somewhere(patients):
    for images, inside, labels in patients:
        healthy = inside & ~ndimage.binary_dilation(labels > 0, iterations=2)
        assert (images[FLAIR][healthy] > np.median(images[FLAIR][labels == 1])).sum() > 20  # spots
        assert (images[T2][healthy] > np.median(images[T2][labels > 0])).sum() > 200  # fluid
        assert (images[T1GD][healthy] > np.median(images[T1GD][labels == 3])).sum() > 20  # vessels and dura


@pytest.mark.parametrize(
    ("kind", "labels"),
    [({"enhancing": False}, {0, 1, 2}), ({"enhancing": False, "edema": False}, {0, 2})],
)
def test_other_kinds_lack_parts(kind, labels):
    assert set(np.unique(patient(0, **kind)[2])) == labels


def test_sizes_and_places_vary(patients):
    centres = np.array([ndimage.center_of_mass(labels > 0) for *_, labels in patients]) * SPACING
    assert (np.ptp(centres, axis=0) > 20).all()
    sizes = [np.count_nonzero(labels) for *_, labels in patients]
    assert max(sizes) > 1.7 * min(sizes)


def test_the_same_patient_is_drawn_on_any_grid():
    _, inside, labels = patient(3)
    _, fine_inside, fine = brain(np.random.default_rng(3), points(2.0), SPACING, Tumour())
    assert np.array_equal(fine_inside[::2, ::2, ::2], inside)
    assert np.array_equal(fine[::2, ::2, ::2], labels)


def test_a_scan_has_a_scale_of_its_own_uneven_coils_and_nothing_outside():
    images, inside, _ = patient(0)
    seen = [scan(np.random.default_rng(seed), images[T1], inside, points(), SPACING) for seed in range(6)]
    for one in seen:
        assert one.dtype == np.int16
        assert (one[~inside] == 0).all()
        assert (one[inside] >= 1).all()
    assert max(np.median(one[inside]) for one in seen) > 1.3 * min(np.median(one[inside]) for one in seen)
    white = inside & (images[T1] > 0.7)
    ratio = seen[0][white] / images[T1][white]
    assert ratio.std() / ratio.mean() > 0.05
    again = scan(np.random.default_rng(0), images[T1], inside, points(), SPACING)
    assert np.array_equal(again, seen[0])

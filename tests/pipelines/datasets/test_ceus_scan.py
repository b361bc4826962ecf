from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pipelines.datasets.ceus_anatomy import GLAND, HYPER, HYPO, ISOECHOIC, ISOENHANCING, RIM
from pipelines.datasets.ceus_scan import Scan

SHAPE = (96, 112)
TIMES = np.arange(25.0)


def scanned(kind, seed=0):
    """A scan, and its contrast and B-mode images, one a second, each (25, H, W) float."""
    scan = Scan(np.random.default_rng(seed), SHAPE, kind)
    contrast, bmode = (np.stack(images).astype(float) for images in zip(*map(scan.at, TIMES), strict=True))
    return scan, contrast, bmode


def against_the_gland(kind, seeds=range(3)):
    """How much brighter the lesion's middle is than the gland beside it: (seeds, 25) each, both modes."""
    found = []
    for seed in seeds:
        scan, *images = scanned(kind, seed)
        inner = np.s_[scan.pad : scan.pad + SHAPE[0], scan.pad : scan.pad + SHAPE[1]]
        gland = dict(scan.perfused)[GLAND][inner]
        middle = ndimage.binary_erosion(scan.lesion, iterations=6)
        beside = ndimage.binary_dilation(scan.lesion, iterations=12) & (
            gland > 0.1 * np.median(gland[gland > 0])
        )
        beside &= ~ndimage.binary_dilation(scan.lesion, iterations=4)
        found.append([image[:, middle].mean(1) - image[:, beside].mean(1) for image in images])
    return np.array(found).transpose(1, 0, 2)


def test_images_are_8_bits_of_the_panels_shape():
    scan = Scan(np.random.default_rng(0), SHAPE, HYPER)
    for image in scan.at(0.0):
        assert image.shape == SHAPE
        assert image.dtype == np.uint8
    assert scan.lesion.shape == SHAPE


def test_contrast_is_dark_until_the_bubbles_arrive_and_fades_after_the_peak():
    scan, contrast, bmode = scanned(HYPO)
    brightness = contrast.mean((1, 2))
    assert brightness[scan.arrival - 1.5 > TIMES].max() < 0.25 * brightness.max()
    assert 6 < TIMES[brightness.argmax()] < 16
    assert brightness[-1] < brightness.max() - 5
    assert np.ptp(bmode.mean((1, 2))) < 2


def test_a_hyperenhancing_lesion_is_first_brighter_then_darker_than_the_gland():
    contrast, bmode = against_the_gland(HYPER)
    assert (contrast.max(1) > 30).all()
    assert (contrast[:, -2:].mean(1) < -15).all()
    assert (contrast.argmax(1) < contrast.argmin(1)).all()
    assert (bmode.mean(1) < -10).all()


@pytest.mark.parametrize("kind", [HYPO, RIM], ids=["HYPO", "RIM"])
def test_a_lesion_without_blood_stays_darker(kind):
    contrast, _ = against_the_gland(kind)
    assert (contrast[:, 8:].max(1) < -15).all()


def test_a_lesion_that_one_mode_hardly_shows_is_seen_in_the_other():
    contrast, bmode = against_the_gland(ISOENHANCING)
    assert np.abs(contrast[:, 8:]).mean() < 8
    assert (bmode.mean(1) < -25).all()
    contrast, bmode = against_the_gland(ISOECHOIC)
    assert (contrast.max(1) > 30).all()
    assert np.abs(bmode.mean()) < 12


def test_the_probe_moves_a_little_and_the_lesion_stays_near_its_mask():
    scan, _, bmode = scanned(ISOENHANCING)
    still = ndimage.gaussian_filter(bmode[0], 1)
    moved = [np.abs(ndimage.gaussian_filter(image, 1) - still).mean() for image in bmode[1:]]
    assert max(moved) > 2 * min(moved) > 0
    assert scan.swing < 0.5  # mm
    assert np.corrcoef(bmode[0].ravel(), bmode[11].ravel())[0, 1] > 0.5


def test_grain_is_partly_new_in_every_frame_of_the_contrast_image_only():
    _, contrast, bmode = scanned(HYPO)

    def alike(images):
        fine = [image - ndimage.gaussian_filter(image, 4) for image in images[12:14, 30:60, 20:80]]
        return np.corrcoef(fine[0].ravel(), fine[1].ravel())[0, 1]

    assert 0.2 < alike(contrast) < 0.9
    assert alike(bmode) > 0.5

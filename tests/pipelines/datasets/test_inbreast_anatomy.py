from __future__ import annotations

import numpy as np
import pytest
from skimage.draw import polygon

from pipelines.datasets import inbreast_anatomy as anatomy

SHAPE, PIXEL = (320, 246), 0.7


def breast(seed=0, oblique=False, shape=SHAPE, pixel=PIXEL):
    return anatomy.breast(np.random.default_rng(seed), shape, pixel, oblique)


def inside(contour, shape=SHAPE, pixel=PIXEL):
    mask = np.zeros(shape, bool)
    x, y = contour.T / pixel
    mask[polygon(y, x, shape)] = True
    return mask


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_breast_ends_at_the_left_edge_and_in_air_at_the_right(seed, oblique):
    found = breast(seed, oblique)
    assert found.image.shape == found.depth.shape == SHAPE
    assert found.image.dtype == np.float32
    assert np.isfinite(found.image).all()
    tissue = found.image > 0
    assert tissue[:, 0].mean() > 0.6
    assert not tissue[:, -5:].any()
    assert 0.2 < tissue.mean() < 0.7
    assert (found.image[~tissue] == 0).all()
    assert 0.3 < np.median(found.image[tissue]) < 0.6
    assert tissue[0].any() == oblique  # up to the axilla


def test_the_muscle_is_as_bright_as_dense_gland_and_only_in_the_oblique_view():
    corner = slice(20, 60), slice(0, 20)
    muscle = breast(1, oblique=True).image[corner]
    assert muscle.mean() == pytest.approx(anatomy.MUSCLE, abs=0.05)
    assert (breast(1, oblique=True).depth[corner] < 0).all()
    cranio = breast(1)
    assert np.percentile(cranio.image[cranio.image > 0], 99.5) > anatomy.MUSCLE


@pytest.mark.parametrize("seed", range(6))
def test_lesions_are_placed_in_the_breast_apart_from_each_other(seed):
    found, rng, taken = breast(seed, oblique=True), np.random.default_rng(seed), []
    for _ in range(2):
        x, y = anatomy.place(rng, found, 10, taken)
        column, row = round(x / PIXEL), round(y / PIXEL)
        assert found.depth[row, column] > 0
        assert x >= 10
        assert all(np.hypot(x - a, y - b) >= 20 for a, b in taken)
        taken.append((x, y))


def test_where_there_is_no_room_the_roomiest_place_is_taken():
    found = breast()
    x, y = anatomy.place(np.random.default_rng(0), found, 500, [])
    assert found.depth[round(y / PIXEL), round(x / PIXEL)] > 25


@pytest.mark.parametrize("spicules", [0, 12])
def test_a_mass_is_brighter_within_its_contour_than_before_and_no_further(spicules):
    found = breast(3)
    before = found.image.copy()
    lesion = anatomy.mass(np.random.default_rng(5), found, (60, 110), 12, spicules)
    mask = inside(lesion.contour)
    assert 300 < mask.sum() * PIXEL**2 < 900  # mm2
    change = found.image - before
    assert change[mask].mean() > 0.12
    fringe = inside((lesion.contour - (60, 110)) * 1.25 + (60, 110))
    assert np.abs(change[~fringe]).max() < (0.12 if spicules else 1e-6)
    assert (np.count_nonzero(change[~fringe]) > 50) == bool(spicules)
    assert (change[before == 0] == 0).all()


def test_masses_are_irregular_and_unlike():
    outlines = [
        anatomy.mass(np.random.default_rng(n), breast(), (60, 110), 12).contour - (60, 110) for n in range(2)
    ]
    radii = [np.hypot(*outline.T) for outline in outlines]
    assert all(radius.std() / radius.mean() > 0.05 for radius in radii)
    assert np.abs(radii[0] - radii[1]).max() > 1


def test_a_mass_at_the_wall_is_cut_by_the_edge():
    found = breast(2, oblique=True)
    centre = anatomy.at_wall(np.random.default_rng(0), found, 12)
    lesion = anatomy.mass(np.random.default_rng(0), found, centre, 12)
    assert lesion.contour[:, 0].min() < -1
    assert inside(lesion.contour)[:, 0].any()


@pytest.mark.parametrize(
    ("shape", "pixel", "smallest", "largest"), [(SHAPE, PIXEL, 0.5, 6), ((1600, 1230), 0.14, 0.15, 2)]
)
def test_calcifications_are_tiny_and_brighter_than_what_is_around(shape, pixel, smallest, largest):
    """Areas in mm2; on the coarser grid they are larger, since each covers a pixel."""
    found = breast(4, shape=shape, pixel=pixel)
    before = found.image.copy()
    lesions = anatomy.calcifications(np.random.default_rng(1), found, (60, 110), 8, 7)
    assert len(lesions) == 7
    for lesion in lesions:
        assert np.hypot(*np.subtract(lesion.centre, (60, 110))) <= 8
        mask = inside(lesion.contour, shape, pixel)
        assert mask.any()
        assert smallest <= mask.sum() * pixel**2 <= largest
        column, row = (round(position / pixel) for position in lesion.centre)
        assert (found.image - before)[row, column] > 0.1


def test_an_oval_has_its_width_and_height():
    contour = anatomy.oval((50, 40), 24, 20).contour
    assert np.ptp(contour, axis=0) == pytest.approx([24, 20], rel=0.01)
    assert contour.mean(axis=0) == pytest.approx([50, 40])

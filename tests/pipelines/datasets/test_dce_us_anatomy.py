from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pipelines.datasets.dce_us_anatomy import CARCINOMA, CYST, DIFFUSE, FIBROADENOMA, breast, contact

KINDS = (CYST, FIBROADENOMA, CARCINOMA, DIFFUSE)
BOTTOM, MIDDLE = 40, 25  # mm; the lesion's line is this far from the left


def cut(seed, kind, view=1, pixel=0.25):
    across = np.arange(0, 50, pixel, dtype=np.float32)[None] - MIDDLE
    depth = np.arange(0, BOTTOM, pixel, dtype=np.float32)[:, None]
    zero = np.zeros((1, 1), np.float32)
    points = (across, depth, zero) if view == 1 else (zero, depth, across)
    return breast(np.random.default_rng(seed), points, BOTTOM, pixel, kind)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.fixture(scope="module")
def cuts():
    """Four breasts for each kind of lesion."""
    return {(kind, seed): cut(seed, kind) for kind in KINDS for seed in range(4)}


def test_arrays_are_echo_loss_and_a_lesion_in_one_piece_inside_the_gland(cuts):
    for echo, loss, lesion in cuts.values():
        assert echo.shape == loss.shape == lesion.shape == (160, 200)
        assert (echo.dtype, loss.dtype, lesion.dtype) == (np.float32, np.float32, bool)
        assert (loss > 0).all()
        assert ndimage.label(lesion, np.ones((3, 3)))[1] == 1
        assert np.array_equal(ndimage.binary_fill_holes(lesion), lesion)
        rows, columns = np.nonzero(lesion)
        assert 2 < rows.min() / 4 < rows.max() / 4 < 0.75 * BOTTOM
        assert columns.min() / 4 < MIDDLE < columns.max() / 4
        assert 20 < lesion.sum() / 16 < 300  # mm2


def test_a_lesions_core_has_its_kinds_echo_and_loss(cuts):
    for (kind, _), (echo, loss, lesion) in cuts.items():
        core = ndimage.distance_transform_edt(lesion) > 6
        assert np.median(echo[core]) == pytest.approx(kind.echo, abs=2.5)
        assert np.median(loss[core]) == pytest.approx(kind.loss, abs=0.15)


def test_no_threshold_of_the_echo_finds_a_lesion_but_a_cyst(cuts):
    for kind in (FIBROADENOMA, CARCINOMA, DIFFUSE):
        for seed in range(4):
            echo, _, lesion = cuts[kind, seed]
            assert max(dice(echo < level, lesion) for level in range(-25, 5)) < 0.45
    assert all(dice(cuts[CYST, seed][0] < -25, cuts[CYST, seed][2]) > 0.85 for seed in range(4))


def test_a_carcinoma_is_taller_than_wide_beside_a_fibroadenoma(cuts):
    def aspect(lesion):
        rows, columns = np.nonzero(lesion)
        return np.ptp(rows) / np.ptp(columns)

    carcinomas, fibroadenomas = (
        [aspect(cuts[kind, seed][2]) for seed in range(4)] for kind in (CARCINOMA, FIBROADENOMA)
    )
    assert min(carcinomas) > max(fibroadenomas)


def test_both_views_meet_along_the_lesions_line():
    for seed in range(3):
        first, second = cut(seed, CARCINOMA), cut(seed, CARCINOMA, view=2)
        for array, other in zip(first, second, strict=True):
            # The facing of fascias differs, since it depends on the slope within a view.
            assert np.mean(np.isclose(array[:, 100], other[:, 100], atol=0.01)) > 0.9
            assert np.mean(array == other) < 0.999
        assert np.array_equal(first[2][:, 100], second[2][:, 100])


def test_a_finer_grid_shows_the_same_breast():
    for kind in KINDS:
        (echo, _, coarse), (fine_echo, _, fine) = cut(1, kind, pixel=0.4), cut(1, kind, pixel=0.2)
        assert dice(coarse, fine[::2, ::2]) > 0.99
        assert np.corrcoef(echo.ravel(), fine_echo[::2, ::2].ravel())[0, 1] > 0.98


def test_the_generator_decides_everything():
    first, again, other = (cut(seed, DIFFUSE, pixel=0.5) for seed in (7, 7, 8))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[2], other[2])


def test_skin_is_bright_and_fat_muscle_and_lung_are_dark(cuts):
    for echo, _, lesion in cuts.values():
        skin, fat, gland = (
            np.median(echo[4 * top : 4 * bottom]) for top, bottom in ((1, 2), (2, 4), (8, 20))
        )
        assert skin > fat + 5
        assert gland > np.median(echo[-8:])
        assert np.median(echo[-8:]) < -15
        assert not lesion[-40:].any()


def test_spicules_only_add_to_the_lesion_and_bring_a_halo():
    for seed in range(3):
        echo, _, lesion = cut(seed, CARCINOMA)
        smooth_echo, _, smooth = cut(seed, CARCINOMA._replace(spicules=0))
        assert not (smooth & ~lesion).any()
        assert 1.005 < lesion.sum() / smooth.sum() < 1.6
        away = ndimage.distance_transform_edt(~lesion) / 4
        halo = (away > 0.5) & (away < 1.5) & (smooth_echo < 0)  # where tissue is darker than the halo
        assert echo[halo].mean() > smooth_echo[halo].mean() + 2
        assert np.array_equal(echo[away > 12], smooth_echo[away > 12])


def test_a_wall_brightens_the_outline_and_costs_loss_there():
    for seed in range(3):
        (echo, loss, lesion), (bare_echo, bare_loss, bare) = (
            cut(seed, CYST._replace(wall=wall)) for wall in (True, False)
        )
        assert np.array_equal(lesion, bare)
        outline = ndimage.binary_dilation(lesion) & ~lesion
        assert (echo - bare_echo)[outline].mean() > 2
        assert (loss - bare_loss)[outline].mean() > 0.5
        core = ndimage.binary_erosion(lesion, iterations=4)
        assert np.array_equal(loss[core], bare_loss[core])


def test_contact_costs_loss_in_bands_and_at_the_ends_of_the_probe():
    across = np.linspace(-20, 20, 201, dtype=np.float32)
    bands = np.stack([contact(np.random.default_rng(seed), across) for seed in range(40)])
    assert bands.shape == (40, 201)
    assert bands.dtype == np.float32
    assert (bands >= 0).all()
    inner = bands[:, 40:-40]
    assert 0.5 < (inner == 0).mean() < 0.95  # mostly the probe lies well on
    assert inner.max() > 2
    assert bands[:, [0, -1]].mean() > inner.mean() + 2
    assert np.array_equal(bands[3], contact(np.random.default_rng(3), across))

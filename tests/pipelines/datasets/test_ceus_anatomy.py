from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pipelines.datasets import ceus_anatomy as anatomy

KINDS = {
    name: getattr(anatomy, name)
    for name in ("HYPER", "HYPO", "RIM", "ISOECHOIC", "ISOECHOIC_HYPO", "ISOENHANCING")
}
PIXEL, BOTTOM = 0.3, 34.0


def tissue(kind, seed=0):
    y, x = np.arange(0, BOTTOM, PIXEL, dtype=np.float32), np.arange(-20, 20, PIXEL, dtype=np.float32)
    points = x[None], y[:, None], np.zeros((1, 1), np.float32)
    return anatomy.gland(np.random.default_rng(seed), points, BOTTOM, PIXEL, kind)


def around(lesion, near=1.5, far=4):
    """A ring about a lesion, in mm."""
    distance = ndimage.distance_transform_edt(~lesion) * PIXEL
    return (distance > near) & (distance < far)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("seed", range(4))
def test_a_lesion_lies_in_one_piece_away_from_the_borders(kind, seed):
    found = tissue(kind, seed)
    assert found.echo.shape == found.loss.shape == found.lesion.shape == (114, 134)
    assert ndimage.label(found.lesion)[1] == 1
    assert not ndimage.binary_dilation(found.lesion, iterations=3)[[0, -1]].any()
    assert 0.01 < found.lesion.mean() < 0.2
    assert (found.loss > 0).all()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_every_pixel_has_one_blood_supply_but_for_cysts(kind):
    found = [tissue(kind, seed) for seed in range(4)]
    for one in found:
        total = sum(share for _, share in one.perfused)
        assert total.max() <= 1 + 1e-4
        assert min(share.min() for _, share in one.perfused) >= 0
        assert np.isclose(total, 1, atol=1e-3).mean() > 0.9
        assert total[one.lesion].min() > 0.9
        shares = dict(one.perfused)
        assert (shares[kind.core] + shares.get(kind.rim, 0))[one.lesion].mean() > 0.85
        assert shares[kind.core][around(one.lesion)].mean() < 0.05
    assert any(sum(share for _, share in one.perfused).min() < 0.1 for one in found)


@pytest.mark.parametrize("name", KINDS)
def test_the_echo_of_a_lesion_against_the_gland_is_that_of_its_kind(name):
    kind = KINDS[name]
    different = []
    for seed in range(4):
        found = tissue(kind, seed)
        gland = around(found.lesion) & (dict(found.perfused)[anatomy.GLAND] > 0.9)
        inner = ndimage.binary_erosion(found.lesion, iterations=4)
        different.append(np.median(found.echo[inner]) - np.median(found.echo[gland]))
    assert np.mean(different) == pytest.approx(kind.echo, abs=1.5)


def test_vessels_and_cysts_are_darker_than_any_lesion():
    found = tissue(anatomy.HYPO)
    vessel = dict(found.perfused)[anatomy.VESSEL] > 0.95
    assert vessel.sum() > 20
    assert np.median(found.echo[vessel]) < found.echo[found.lesion].mean() - 8
    assert not (vessel & found.lesion).any()


def test_the_same_generator_gives_the_same_tissue():
    first, again, other = tissue(anatomy.RIM, 1), tissue(anatomy.RIM, 1), tissue(anatomy.RIM, 2)
    assert np.array_equal(first.echo, again.echo)
    assert not np.array_equal(first.lesion, other.lesion)

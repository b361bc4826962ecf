from __future__ import annotations

import numpy as np
import pytest

from pipelines.datasets.speckle import PROBE, Probe, b_mode, envelope

STRAIGHT = {"range": 1e9}  # a beam that is equally wide at every depth


def maps(echogenicity=1.0, attenuation=0.0, shape=(256, 256)):
    return np.full(shape, echogenicity, np.float32), np.full(shape, attenuation, np.float32)


def rng(seed=0):
    return np.random.default_rng(seed)


def decibels(amplitude):
    """The root mean square as a level."""
    return 10 * np.log10(np.mean(np.square(amplitude)))


def correlation(values, lag, axis):
    """Of the values with themselves, moved by a lag."""
    first = np.take(values, range(values.shape[axis] - lag), axis)
    second = np.take(values, range(lag, values.shape[axis]), axis)
    return np.corrcoef(first.ravel(), second.ravel())[0, 1]


def test_developed_speckle_is_rayleigh_distributed():
    grain = envelope(*maps(), rng())
    assert grain.shape == (256, 256)
    assert grain.dtype == np.float32
    assert grain.mean() / grain.std() == pytest.approx(1.91, abs=0.1)
    assert np.sqrt(np.mean(grain**2)) == pytest.approx(1, abs=0.02)
    # A Rayleigh distribution has its quantiles at sigma * sqrt(-2 ln(1 - p)), with 2 sigma^2 = 1 here.
    shares = np.array([0.1, 0.25, 0.5, 0.75, 0.9, 0.99])
    assert np.quantile(grain, shares) == pytest.approx(np.sqrt(-np.log(1 - shares)), rel=0.05)


def test_twice_the_echogenicity_is_6_decibels_brighter():
    echogenicity, attenuation = maps()
    echogenicity[:, 128:] = 2
    grain = envelope(echogenicity, attenuation, rng())
    assert decibels(grain[:, 140:]) - decibels(grain[:, :116]) == pytest.approx(6.02, abs=0.3)
    grey = b_mode(echogenicity, attenuation, rng()).astype(float)
    assert grey[:, 140:].mean() - grey[:, :116].mean() == pytest.approx(255 * 6.02 / 60, abs=1.5)
    grey = b_mode(echogenicity, attenuation, rng(), dynamic_range=90).astype(float)
    assert grey[:, 140:].mean() - grey[:, :116].mean() == pytest.approx(255 * 6.02 / 90, abs=1.5)


@pytest.mark.parametrize("name, axis", [("axial", 0), ("lateral", 1)])
@pytest.mark.parametrize("sigma", [1.0, 1.5, 3.0])
def test_grain_is_as_large_as_the_point_spread_function(name, axis, sigma):
    """The intensity of Gaussian speckle is correlated by exp(-lag^2 / (2 sigma^2))."""
    grain = envelope(*maps(), rng(), Probe(**{name: sigma}, **STRAIGHT)) ** 2
    for lag in (1, 2, 4):
        expected = np.exp(-(lag**2) / (2 * sigma**2))
        assert correlation(grain, lag, axis) == pytest.approx(expected, abs=0.05)


def test_the_beam_is_narrowest_at_its_focus():
    grain = envelope(*maps(), rng(), Probe(lateral=1.5, focus=0.5, range=0.2)) ** 2
    top, focus, bottom = (correlation(grain[rows], 3, 1) for rows in np.split(np.arange(256), (40, 216)))
    focus = correlation(grain[108:148], 3, 1)
    assert focus == pytest.approx(np.exp(-9 / (2 * 1.5**2)), abs=0.05)
    assert top > focus + 0.3
    assert bottom > focus + 0.3


def test_gain_makes_up_for_what_all_lines_lose():
    grain = envelope(*maps(attenuation=0.15), rng(), Probe(noise=-200))
    assert decibels(grain[-30:]) == pytest.approx(decibels(grain[:30]), abs=0.3)


def test_an_absorber_casts_a_shadow_and_fluid_is_followed_by_enhancement():
    echogenicity, attenuation = maps(attenuation=0.1)
    attenuation[80:100, 40:80] = 1.1
    attenuation[80:140, 160:200] = 0
    grain = envelope(echogenicity, attenuation, rng())
    beside = decibels(grain[150:, 100:140])
    assert decibels(grain[150:, 48:72]) - beside == pytest.approx(-20, abs=0.7)
    assert decibels(grain[150:, 168:192]) - beside == pytest.approx(6, abs=0.7)
    above = decibels(grain[:75, 100:140])
    assert decibels(grain[:75, 48:72]) == pytest.approx(above, abs=0.5)


def test_in_a_full_shadow_the_receivers_noise_is_left_and_the_gain_lifts_it():
    echogenicity, attenuation = maps(attenuation=0.1)
    attenuation[50, 100:156] += 300
    grain = envelope(echogenicity, attenuation, rng(), Probe(noise=-60))
    assert decibels(grain[95:105, 110:146]) == pytest.approx(-60 + 0.1 * 100, abs=1)
    assert decibels(grain[195:205, 110:146]) == pytest.approx(-60 + 0.1 * 200, abs=1)


def test_borders_are_as_bright_as_the_middle():
    grain = np.stack([envelope(*maps(shape=(64, 64)), rng(seed)) for seed in range(60)])
    for border in (grain[:, 0], grain[:, -1], grain[:, :, 0], grain[:, :, -1]):
        assert decibels(border) == pytest.approx(0, abs=0.5)


def test_an_echo_of_1_lies_in_the_middle_of_the_grey_scale():
    grey = b_mode(*maps(), rng())
    assert grey.shape == (256, 256)
    assert grey.dtype == np.uint8
    # The mean of 20 log10 of a Rayleigh variable lies 2.51 dB below its root mean square.
    assert grey.mean() == pytest.approx(255 * (0.5 - 2.51 / 60), abs=1)
    assert b_mode(*maps(echogenicity=0), rng(), Probe(noise=-200)).max() == 0
    assert b_mode(*maps(echogenicity=1e4), rng()).min() == 255


def test_compounding_lowers_the_contrast_of_the_grain():
    for looks in (1, 4):
        amplitude = 10 ** (3 * (b_mode(*maps(), rng(), looks=looks) / 255 - 0.5))
        assert amplitude.mean() / amplitude.std() == pytest.approx(1.91 * np.sqrt(looks), rel=0.05)


def test_the_same_seed_gives_the_same_image_and_another_seed_another():
    first, again, other = (b_mode(*maps(shape=(48, 40)), rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert np.mean(first == other) < 0.1


@pytest.mark.parametrize(
    "echogenicity, attenuation, probe",
    [
        (np.ones((8, 8)), np.ones((8, 9)), PROBE),
        (np.ones(8), np.ones(8), PROBE),
        (-np.ones((8, 8)), np.ones((8, 8)), PROBE),
        (np.ones((8, 8)), -np.ones((8, 8)), PROBE),
        (np.ones((8, 8)), np.ones((8, 8)), Probe(axial=0.5)),
        (np.ones((8, 8)), np.ones((8, 8)), Probe(lateral=0)),
    ],
)
def test_maps_that_are_none_are_refused(echogenicity, attenuation, probe):
    with pytest.raises(ValueError, match=r"expected .* found .*; give"):
        envelope(echogenicity, attenuation, rng(), probe)

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipelines.datasets.ceus_perfusion import Bolus

BOLUS = Bolus(arrival=4, rise=6, spread=0.6, peak=3)


def test_it_is_a_lognormal_density_that_starts_at_the_arrival():
    time = np.linspace(4.1, 40, 200)
    # Its mode is exp(mu - spread^2), so that mu follows from the rise.
    scale = 6 * np.exp(0.6**2)
    density = stats.lognorm.pdf(time - 4, 0.6, scale=scale)
    assert BOLUS.intensity(time) == pytest.approx(3 * density / stats.lognorm.pdf(6, 0.6, scale=scale))


def test_nothing_before_the_arrival_and_the_peak_after_the_rise():
    assert (BOLUS.intensity(np.array([-1.0, 0.0, 4.0])) == 0).all()
    assert BOLUS.intensity(10.0) == pytest.approx(3)
    assert BOLUS.intensity(9.0) < 3 > BOLUS.intensity(11.0)


def test_a_larger_spread_washes_out_more_slowly():
    assert BOLUS._replace(spread=0.8).intensity(25.0) > 2 * BOLUS.intensity(25.0)

"""How the bubbles of a bolus come and go in a tissue: the curves of the CEUS phantom.

The lognormal model of indicator dilution, as it is fitted to contrast-enhanced ultrasound by C. Strouthos et
al., Indicator dilution models for the quantification of microvascular blood flow with bolus administration of
ultrasound contrast agents, IEEE Trans. Ultrason. Ferroelectr. Freq. Control 57 (2010): transit times through
many vessels follow a lognormal distribution.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Bolus(NamedTuple):
    """What a tissue's curve is like.

    Attributes:
        arrival: seconds from the start of the clip to the first bubbles.
        rise: seconds from there to the peak.
        spread: of the logarithm of the transit times; the larger, the slower the bubbles wash out.
        peak: the intensity (the square of an amplitude) at the peak.
    """

    arrival: float
    rise: float
    spread: float
    peak: float

    def intensity(self, time: float | np.ndarray) -> np.ndarray:
        """The intensity at these seconds, float64 of the same shape; 0 before the arrival.

        The lognormal density of mean mu has its mode at exp(mu - spread^2); relative to that, it is
        exp(-ln(t / mode)^2 / (2 spread^2)).
        """
        passed = np.maximum(np.asarray(time, float) - self.arrival, 0) / self.rise
        with np.errstate(divide="ignore"):
            return self.peak * np.exp(-(np.log(passed) ** 2) / (2 * self.spread**2))

"""B-mode ultrasound from a physical model: scatterers, a pulse, a beam, losses on the way, log compression.

The model is that of J. C. Bamber and R. J. Dickinson, Ultrasonic B-scanning: a computer simulation, Phys.
Med. Biol. 25 (1980): the echo is the convolution of random scatterers with the pulse along the scan line and
with the beam across it, and the image is its envelope. That the envelope of many scatterers follows a
Rayleigh distribution, and that the grain is as large as the point-spread function, is from R. F. Wagner et
al., Statistics of speckle in ultrasound B-scans, IEEE Trans. Sonics Ultrason. 30 (1983).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage, signal

FINE = (
    4  # samples of the echo a pixel along the scan line, since its carrier oscillates faster than the grain
)
CARRIER = 1.25  # period of the carrier over the pulse's standard deviation: about two cycles in the pulse


class Probe(NamedTuple):
    """What of a scanner shapes the grain. Lengths are in pixels, depths in shares of the image's height."""

    axial: float = 0.8  # standard deviation of the pulse's Gaussian
    lateral: float = 1.3  # standard deviation of the beam's Gaussian at the focus
    focus: float = 0.4  # depth of the focus
    range: float = 0.5  # distance from the focus at which the beam has become wider by the square root of 2
    noise: float = -75.0  # of the receiver, in dB below the echo of echogenicity 1 at the skin


PROBE = Probe()


def envelope(
    echogenicity: np.ndarray, attenuation: np.ndarray, rng: np.random.Generator, probe: Probe = PROBE
) -> np.ndarray:
    """The envelope of the echoes, after time-gain compensation.

    Every scan line is a column that begins at the first row. What a line loses accumulates along it, so that
    an absorber casts a shadow, and enhancement follows what absorbs less than its surroundings. The gain
    makes up for the median loss of all lines at a depth, as an operator would set it; it lifts noise too.

    Args:
        echogenicity: amplitude of the scatterers, (H, W), not negative; twice as much is 6 dB brighter.
        attenuation: dB that the amplitude loses per pixel, there and back together, (H, W), not negative.
        rng: where scatterers and noise come from.
        probe: the scanner.

    Returns:
        float32 (H, W); its root mean square is the echogenicity where lines lose as much as the gain adds.

    Raises:
        ValueError: for maps of unlike shape or below zero, or a pulse too short for the grid.
    """
    echogenicity, attenuation = (np.asarray(a, np.float32) for a in (echogenicity, attenuation))
    if echogenicity.ndim != 2 or echogenicity.shape != attenuation.shape:
        raise ValueError(
            "expected echogenicity and attenuation of one shape (H, W), found"
            f" {echogenicity.shape} and {attenuation.shape}; give both on the same grid"
        )
    if min(echogenicity.min(), attenuation.min()) < 0 or probe.axial < 0.6 or probe.lateral <= 0:
        raise ValueError(
            "expected maps of 0 or more, a pulse of 0.6 pixels or more and a beam above 0, found"
            f" {echogenicity.min():g}, {attenuation.min():g}, {probe.axial:g} and {probe.lateral:g}; give"
            " amplitudes and losses without a sign, or a finer grid"
        )
    height, width = echogenicity.shape
    depth = np.arange(height, dtype=np.float32) / height
    beam = probe.lateral * np.sqrt(1 + ((depth - probe.focus) / probe.range) ** 2)
    reach = int(np.ceil(3 * beam.max()))
    above = int(np.ceil(4 * probe.axial))

    loss = np.cumsum(attenuation, axis=0)
    gain = np.median(loss, axis=1, keepdims=True)
    amplitude = echogenicity * _ratio(-loss)
    # Tissue goes on beyond the image; without it the borders would be dark.
    amplitude = np.pad(amplitude, ((above, above), (reach, reach)), "edge")
    echo = _analytic(np.repeat(amplitude, FINE, axis=0), rng, probe)[above:-above]
    noise = _analytic(np.ones((FINE * height, width), np.float32), rng, probe)

    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-((offsets / beam[:, None]) ** 2) / 2)
    weights = (weights / np.sqrt((weights**2).sum(axis=1, keepdims=True))).astype(np.float32)
    received = sum(weights[:, [i]] * echo[:, i : i + width] for i in range(len(offsets)))
    return np.abs(received + np.float32(_ratio(probe.noise)) * noise) * _ratio(gain)


def b_mode(
    echogenicity: np.ndarray,
    attenuation: np.ndarray,
    rng: np.random.Generator,
    probe: Probe = PROBE,
    dynamic_range: float = 60.0,
    looks: int = 1,
) -> np.ndarray:
    """A B-mode image: the envelope, log compressed to 8 bit.

    Args:
        echogenicity: as for `envelope`; a root mean square of 1 lies in the middle of the grey scale.
        attenuation: as for `envelope`.
        rng: as for `envelope`.
        probe: as for `envelope`.
        dynamic_range: dB from black to white; weaker and stronger echoes are clipped.
        looks: how many envelopes with grain of their own are averaged, as in scanners that compound several
            angles; the contrast of the grain falls by the square root of it.

    Returns:
        uint8 (H, W).

    Raises:
        ValueError: as `envelope`.
    """
    mean = sum(envelope(echogenicity, attenuation, rng, probe) for _ in range(looks)) / looks
    level = 20 * np.log10(np.maximum(mean, 1e-20))
    return np.rint(255 * np.clip(level / dynamic_range + 0.5, 0, 1)).astype(np.uint8)


def _analytic(amplitude: np.ndarray, rng: np.random.Generator, probe: Probe) -> np.ndarray:
    """The analytic echo of scatterers of given amplitude along each scan line, one sample a pixel.

    The pulse is scaled so that an amplitude of 1 gives a root mean square of 1.
    """
    sigma = FINE * probe.axial
    t = np.arange(-np.ceil(4 * sigma), np.ceil(4 * sigma) + 1)
    pulse = np.exp(-((t / sigma) ** 2) / 2) * np.cos(2 * np.pi * t / (CARRIER * sigma))
    pulse /= np.sqrt(2 * (pulse**2).sum())  # the analytic signal has twice the power of the real one
    scatterers = amplitude * rng.standard_normal(amplitude.shape, np.float32)
    echo = ndimage.convolve1d(scatterers, pulse.astype(np.float32), axis=0, mode="wrap")
    return signal.hilbert(echo, axis=0)[FINE // 2 :: FINE]


def _ratio(decibels: float | np.ndarray) -> float | np.ndarray:
    """dB as a ratio of amplitudes."""
    return 10 ** (decibels / 20)

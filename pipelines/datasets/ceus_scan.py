"""The two images of a contrast-enhanced ultrasound scanner over time: B-mode and contrast mode, in step."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from pipelines.datasets.ceus_anatomy import Kind, gland
from pipelines.datasets.shapes import grain
from pipelines.datasets.speckle import Probe, b_mode, envelope

RANGE = 42.0  # dB from black to white of the contrast image
LEVEL = 0.48  # where on that scale the gland lies at its peak
LEAK = -25.0  # dB of tissue's own echo that the contrast mode does not cancel
NOISE = -30.0  # dB of the receiver at the skin, which the gain lifts with depth


class Scan:
    """One patient before one probe.

    The scatterers are drawn once. The perfusion varies little over a point-spread function, so that the
    contrast image is speckle of unit strength times the root of the intensity that the bubbles have at that
    place and time. Half of that speckle stays with the tissue, half is new in every frame, as bubbles move.

    Args:
        rng: where everything that varies comes from.
        shape: (height, width) of a panel.
        kind: of the lesion.
        gain: dB that the contrast image is brighter.
    """

    def __init__(
        self, rng: np.random.Generator, shape: tuple[int, int], kind: Kind, gain: float = 0.0
    ) -> None:
        self.rng, self.shape, self.gain = rng, shape, gain
        height, width = shape
        depth = rng.uniform(30, 38)
        self.pixel = depth / height
        self.pad = int(np.ceil(1.2 / self.pixel)) + 1  # mm that the probe may move
        rows, columns = (np.arange(-self.pad, n + self.pad, dtype=np.float32) for n in shape)
        across = (columns - width * rng.uniform(0.42, 0.58)) * np.float32(self.pixel)
        points = across[None], rows[:, None] * np.float32(self.pixel), np.zeros((1, 1), np.float32)
        tissue = gland(rng, points, depth, self.pixel, kind)
        inner = np.s_[self.pad : self.pad + height, self.pad : self.pad + width]
        self.lesion = tissue.lesion[inner]
        self.arrival = rng.uniform(2.5, 4.5)

        fine = max(1.0, height / 240)
        probe = Probe(axial=0.75 * fine, lateral=1.15 * fine)
        loss = tissue.loss * np.float32(self.pixel)
        grey = b_mode(10 ** (tissue.echo / 20), loss, rng, probe, looks=3)
        # The low output that spares the bubbles leaves an image that is a little dark and noisy.
        self.grey = np.float32(0.85) * grey

        blur = (0.9 * fine, 1.3 * fine)
        # Bubbles flow in small vessels, so that their density is uneven at every scale, lognormal about.
        uneven = np.exp(0.8 * grain(rng, grey.shape, blur) + 0.35 * grain(rng, grey.shape, (5 * fine,) * 2))
        lost = np.cumsum(loss, axis=0)
        lost = np.clip(lost - np.median(lost, axis=1, keepdims=True), -6, 30)
        through = (uneven * 10 ** (-lost / 10)).astype(np.float32)
        self.perfused = [
            (bolus, ndimage.gaussian_filter(share, blur) * through) for bolus, share in tissue.perfused
        ]
        leak = np.float32(10 ** (LEAK / 10)) * 10 ** (np.clip(tissue.echo, -30, 14) / 10)
        self.leak = ndimage.gaussian_filter(leak, blur)
        flat = np.ones(grey.shape, np.float32)
        self.still = envelope(flat, 0 * flat, rng, probe)
        spare = np.ones((height + 4 * self.pad, 2 * width + 4 * self.pad), np.float32)
        self.moving = envelope(spare, 0 * spare, rng, probe)
        rise = np.linspace(0, 1, height, dtype=np.float32)[:, None]
        self.noise = np.float32(10) ** ((NOISE + 16 * rise**2) / 20)
        self.swing, self.phase = rng.uniform(0.15, 0.4), rng.uniform(0, 2 * np.pi)
        self.period = rng.uniform(3, 5)

    def at(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        """The contrast and the B-mode image at so many seconds, both uint8 of the panel's shape.

        Ask in the order of time: what is new in every frame comes from the generator.
        """
        angle = 2 * np.pi * time / self.period + self.phase
        offset = self.pad + self.swing / self.pixel * np.array([0.4 * np.cos(1.3 * angle), np.sin(angle)])
        intensity = self.leak.copy()
        for bolus, share in self.perfused:
            intensity += np.float32(bolus.intensity(time - self.arrival)) * share
        amplitude = np.sqrt(self._moved(intensity, offset)) * (
            0.5 * self._moved(self.still, offset) + 0.5 * self._fresh()
        )
        level = 20 * np.log10(np.hypot(amplitude, self.noise * self._fresh()) + 1e-6) + self.gain
        contrast = np.clip(level / RANGE + LEVEL, 0, 1) * 255
        flicker = 2.5 * _white(self.rng, self.shape)
        bmode = np.clip(self._moved(self.grey, offset) + flicker, 0, 255)
        return np.rint(contrast).astype(np.uint8), np.rint(bmode).astype(np.uint8)

    def _moved(self, image: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """The panel's part of a padded image, between its pixels by linear interpolation."""
        (row, column), (height, width) = np.floor(offset).astype(int), self.shape
        down, right = (offset - (row, column)).astype(np.float32)
        part = image[row : row + height + 1, column : column + width + 1]
        part = part[:-1] * (1 - down) + part[1:] * down
        return part[:, :-1] * (1 - right) + part[:, 1:] * right

    def _fresh(self) -> np.ndarray:
        """Speckle of unit strength from a place of its own in a field that is larger than a panel."""
        height, width = self.shape
        row, column = (
            self.rng.integers(0, n - m) for n, m in zip(self.moving.shape, self.shape, strict=True)
        )
        return self.moving[row : row + height, column : column + width]


def _white(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)

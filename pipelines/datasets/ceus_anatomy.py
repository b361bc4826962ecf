"""A superficial gland with a lesion as ultrasound and its contrast mode meet it: the CEUS phantom's content.

Positions are in mm: y is the depth below the skin, x runs along it, and the lesion lies about x = 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from pipelines.datasets.ceus_perfusion import Bolus
from pipelines.datasets.shapes import Points, capsule, coverage, ellipsoid, paint, waves


class Kind(NamedTuple):
    """A kind of lesion. Arrivals are relative to that of the gland around, peaks as well."""

    echo: float  # dB against the gland
    core: Bolus
    rim: Bolus | None = None  # None: as the core
    rough: float = 0.14  # how much the outline is waved, as a share of the lesion's radius
    blur: float = 0.8  # mm over which the margin fades


HYPER = Kind(-6, Bolus(-1.5, 4.5, 0.5, 5))
HYPO = Kind(-5, Bolus(2, 9, 0.7, 0.05), Bolus(1, 8, 0.7, 0.15))
RIM = Kind(-8, Bolus(2, 8, 0.6, 0.05), Bolus(-1, 5, 0.55, 4.5), rough=0.1)
ISOECHOIC = Kind(-1.5, Bolus(-1, 6, 0.9, 6), blur=1.5)  # nearly the same in the B-mode image
ISOECHOIC_HYPO = Kind(-1, Bolus(2, 9, 0.7, 0.06), blur=1.5)
ISOENHANCING = Kind(-12, Bolus(0.3, 8, 0.65, 0.8), rough=0.16)  # nearly the same in the contrast image

GLAND = Bolus(0, 7.5, 0.65, 1)
VESSEL = Bolus(-1.2, 4, 0.6, 9)
AROUND = Bolus(1.5, 9, 0.7, 0.035)  # fat and muscle


class Tissue(NamedTuple):
    """What the two modes see, on one grid of (H, W).

    Attributes:
        echo: echogenicity in dB, float32.
        loss: dB/mm, there and back, float32.
        perfused: pairs of a curve, relative to the gland's arrival, and the share of every pixel that it
            fills, float32; shares sum to 1 where blood flows.
        lesion: bool, in one piece.
    """

    echo: np.ndarray
    loss: np.ndarray
    perfused: list[tuple[Bolus, np.ndarray]]
    lesion: np.ndarray


def gland(rng: np.random.Generator, points: Points, bottom: float, pixel: float, kind: Kind) -> Tissue:
    """One slice through a gland such as a thyroid: skin, fat, strap muscle, gland, vessels, deep muscle.

    Vessels and cysts are as dark in the B-mode image as many a lesion, and bright and black in the contrast
    image, so that neither image alone tells what a lesion is.

    Args:
        rng: where everything that varies comes from.
        points: x, y and z of every pixel, float32 arrays of two axes that broadcast to (H, W); y grows along
            the first axis.
        bottom: the image's depth.
        pixel: the size of a pixel, over which edges fade.
        kind: of the lesion.
    """
    # MONAI takes seconds to import, which those who only check data need not wait for.
    from monai.transforms.utils import get_largest_connected_component_mask

    cut = _Slice(rng, points, bottom, pixel)
    _layers(cut)
    distance = _lesion(cut, kind)
    _vessels_and_cysts(cut, distance)
    _paint_lesion(cut, distance, kind)
    lesion = ndimage.binary_fill_holes(get_largest_connected_component_mask(distance < 0))
    return Tissue(cut.echo, cut.loss, list(cut.shares.items()), lesion)


class _Slice:
    """A slice while it is painted: where its layers lie, its echogenicity, loss and whose blood it has."""

    def __init__(self, rng: np.random.Generator, points: Points, bottom: float, pixel: float) -> None:
        x, y, z = points
        self.rng, self.points, self.bottom, self.pixel = rng, points, bottom, pixel
        shape = np.broadcast_shapes(x.shape, y.shape, z.shape)
        self.echo, self.loss = np.full(shape, -8, np.float32), np.full(shape, 1, np.float32)
        self.shares: dict[Bolus, np.ndarray] = {AROUND: np.ones(shape, np.float32)}
        self.bend = 0.9 * waves((x, 0 * y, z), rng, 30) + 0.25 * waves((x, 0.3 * y, z), rng, 9)
        self.top, self.bed = bottom * rng.uniform(0.2, 0.28), bottom * rng.uniform(0.74, 0.84)
        self.mottle = 1.2 * self.waves(4) + 1.2 * self.waves(1.2)
        uneven = 1.2 * self.bend + 0.5 * self.waves(7)
        self.inside = np.maximum(self.top + uneven - y, y - self.bed - 1.3 * self.bend)

    def waves(self, wavelength: float) -> np.ndarray:
        """A random field that is alike in all directions."""
        return waves(self.points, self.rng, wavelength)

    def lay(
        self,
        distance: np.ndarray,
        echo: float | np.ndarray,
        loss: float,
        blood: Bolus | None,
        width: float | None = None,
    ) -> None:
        """Fill a shape; its edge is a pixel wide unless told. Without blood no bubble gets there."""
        width = width or self.pixel
        paint(self.echo, distance, echo, width)
        paint(self.loss, distance, loss, width)
        share = coverage(distance, width)
        for other in self.shares.values():
            other *= 1 - share
        if blood is not None:
            self.shares[blood] = self.shares.get(blood, np.float32(0)) + share

    def strands(self, wavelength: float, stretch: float, within: np.ndarray, echo: float) -> None:
        """Brighten thin fibres along the skin within a shape; they come and go, as some face the probe."""
        x, y, z = self.points
        sheets = waves((x / stretch, y + self.bend, z), self.rng, wavelength, 9)
        line = np.clip(1 - np.abs(sheets) * wavelength / (2 * np.pi * 0.3), 0, 1)
        facing = np.clip(0.4 + self.waves(3 * wavelength), 0, 1.3)
        self.echo += echo * line * facing * coverage(within, 0.5)


def _layers(cut: _Slice) -> None:
    """From the skin to the deep muscle, with a bright fascia at either side of the gland."""
    y = cut.points[1]
    paint(cut.echo, np.abs(y - np.float32(0.6)) - 0.3, 9, 0.4)
    below = np.float32(1.2) - y
    cut.strands(2.2, 6, below, 15)
    cut.strands(5, 3, below, 8)
    muscle = np.maximum(cut.top * 0.55 + 0.5 * cut.bend - y, y - cut.top - cut.bend)
    cut.lay(muscle, -14 + cut.mottle, 1.2, AROUND, 0.6)
    cut.strands(1.8, 9, muscle, 12)
    deep = cut.bed + 1.3 * cut.bend - y
    cut.lay(deep, -15 + cut.mottle, 1.6, AROUND, 0.6)
    cut.strands(2.2, 7, deep, 14)
    texture = cut.mottle + 1.5 * cut.waves(2.5) + 1.2 * cut.waves(9)
    cut.lay(cut.inside, 1 + texture, 1.1, GLAND, 0.5)
    steep = 3 * np.abs(np.gradient(cut.bend, axis=1)) / cut.pixel
    facing = np.clip(0.9 + 0.4 * cut.waves(8) - steep, 0.1, 1.4)
    cut.echo += 13 * facing * np.clip(1 - np.abs(cut.inside) / 0.45, 0, 1)


def _lesion(cut: _Slice, kind: Kind) -> np.ndarray:
    """The signed distance of the lesion, which lies in the gland."""
    rng, low, high = cut.rng, cut.top + 1.5, cut.bed - 1.5
    wide, aspect = rng.uniform(4.2, 8), rng.uniform(0.65, 1.05)
    tall = min(wide * aspect, 0.44 * (high - low))
    centre = (rng.uniform(-2, 2), rng.uniform(low + tall, high - tall), 0)
    body = ellipsoid(cut.points, centre, (wide, tall, wide))
    size = min(wide, tall)
    body = body + np.float32(kind.rough * size) * cut.waves(1.8 * size)
    return body + np.float32(0.25 * kind.rough * size) * cut.waves(0.8 * size)


def _vessels_and_cysts(cut: _Slice, lesion: np.ndarray) -> None:
    """Vessels through the gland and a large one beside or below it; up to two cysts; none in the lesion."""
    rng = cut.rng
    outside = np.maximum(cut.inside, 0.8 - lesion)
    for _ in range(rng.integers(3, 6)):
        start = np.array((rng.uniform(-24, 24), rng.uniform(cut.top, cut.bed), 0))
        end = start + np.array((rng.uniform(4, 11) * rng.choice((-1, 1)), rng.uniform(-5, 5), 0))
        vessel = capsule(cut.points, start, end, rng.uniform(0.25, 0.6)) + 0.12 * cut.mottle
        cut.lay(np.maximum(vessel, outside), -15, 0.5, VESSEL, 0.5)
    side = rng.choice((-1, 1))
    radius = rng.uniform(1.8, 3.2)
    centre = (side * rng.uniform(13, 17), rng.uniform(0.45, 0.8) * cut.bottom, 0)
    artery = ellipsoid(cut.points, centre, (radius * rng.uniform(1, 1.4), radius, radius))
    cut.lay(np.maximum(artery, 1 - lesion), -26, 0.2, VESSEL, 0.3)
    cut.echo += 9 * np.clip(1 - np.abs(artery - 0.3) / 0.4, 0, 1)
    for _ in range(rng.integers(0, 3)):
        centre = (-side * rng.uniform(6, 15), rng.uniform(cut.top + 2, cut.bed - 2), 0)
        radii = rng.uniform(1, 2.6, 3)
        cyst = np.maximum(ellipsoid(cut.points, centre, radii) + 0.15 * cut.mottle, outside)
        cut.lay(cyst, -27, 0.2, None, 0.4)


def _paint_lesion(cut: _Slice, distance: np.ndarray, kind: Kind) -> None:
    texture = 1 + 1.5 * cut.waves(3) + cut.mottle
    if kind.rim is not None:
        cut.lay(distance, kind.echo + texture, 1.2, kind.rim, kind.blur)
        core = distance + 1.1 + 0.4 * cut.waves(4)
        cut.lay(core, kind.echo + texture, 1.2, kind.core, 1)
    else:
        cut.lay(distance, kind.echo + texture, 1.2, kind.core, kind.blur)

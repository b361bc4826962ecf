"""A breast with a lesion as ultrasound meets it, slice by slice: the content of the DCE-US phantom.

Positions are in mm: y is the depth below the skin, x and z run along it, and the lesion lies at x = z = 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from pipelines.datasets.shapes import Points, capsule, coverage, ellipsoid, paint, union, waves


class Kind(NamedTuple):
    """A kind of lesion: what tells it from the tissue around and from the other kinds."""

    echo: float  # dB
    loss: float  # dB/mm, there and back
    aspect: tuple[float, float]  # height over width
    rough: float  # how much the outline is waved, as a share of the lesion's radius
    blur: float  # mm over which the margin fades
    wall: bool = False  # a thin bright capsule; its flanks cast shadows, since lines run along it there
    spicules: int = 0


CYST = Kind(-30, 0.1, (0.55, 0.85), 0.05, 0.2, wall=True)
FIBROADENOMA = Kind(-10, 0.9, (0.45, 0.7), 0.07, 0.4, wall=True)
CARCINOMA = Kind(-14, 2.6, (0.8, 1.15), 0.17, 1.2, spicules=18)
DIFFUSE = Kind(-10, 1.5, (0.6, 0.95), 0.17, 2.2)


def breast(
    rng: np.random.Generator, points: Points, bottom: float, pixel: float, kind: Kind
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One slice of a breast: skin, fat, gland, muscle, pleura and ribs, and a lesion in the gland.

    The tissue is a function of the position, so that slices with equal generators cut the same breast. Fat
    and muscle are as dark as solid lesions, so that no threshold finds these; their shape and place tell.

    Args:
        rng: where everything that varies comes from.
        points: x, y and z of every pixel, float32 arrays of two axes that broadcast to (H, W); y grows along
            the first axis.
        bottom: the image's depth.
        pixel: the size of a pixel, over which edges fade.
        kind: of the lesion.

    Returns:
        Echogenicity in dB and loss in dB/mm, there and back, both float32 (H, W); the lesion, bool (H, W), in
        one piece.
    """
    # MONAI takes seconds to import, which those who only check data need not wait for.
    from monai.transforms.utils import get_largest_connected_component_mask

    cut = _Slice(rng, points, bottom, pixel)
    _fat(cut)
    _gland(cut)
    _chest(cut)
    lesion = np.broadcast_to(_lesion(cut, kind) < 0, cut.echo.shape)
    return cut.echo, cut.loss, ndimage.binary_fill_holes(get_largest_connected_component_mask(lesion))


def contact(rng: np.random.Generator, across: np.ndarray) -> np.ndarray:
    """Loss where the probe lies badly on the skin, and so dark bands over the whole depth.

    Args:
        rng: where the bands come from.
        across: the places along the probe in mm, float32 (W,), 0 where the lesion lies.

    Returns:
        dB, float32 (W,), 0 where the contact is good.
    """
    field = waves((across, np.float32(0), np.float32(0)), rng, 12)
    lifted = rng.uniform(0, 2) * np.maximum(np.abs(across) - 0.85 * np.abs(across).max(), 0)
    return 4 * np.maximum(field - 0.8, 0) + lifted.astype(np.float32)


class _Slice:
    """A slice while it is painted: where its layers lie, and its echogenicity and loss."""

    def __init__(self, rng: np.random.Generator, points: Points, bottom: float, pixel: float) -> None:
        x, y, z = points
        self.rng, self.points, self.pixel = rng, points, pixel
        shape = np.broadcast_shapes(x.shape, y.shape, z.shape)
        self.echo, self.loss = np.full(shape, 8, np.float32), np.full(shape, 1, np.float32)
        self.bend = 1.2 * waves((x, 0 * y, z), rng, 35) + 0.3 * waves((x, 0.3 * y, z), rng, 10)
        self.fat_top, self.gland_top = rng.uniform(1.4, 2.2), rng.uniform(4, 11)
        self.gland_bottom = bottom * rng.uniform(0.56, 0.66)
        self.muscle_top = self.gland_bottom + rng.uniform(1.5, 3)
        self.muscle_bottom = bottom * rng.uniform(0.82, 0.92)
        self.mottle = 1.2 * self.waves(4) + 1.5 * self.waves(1.2)

    def waves(self, wavelength: float) -> np.ndarray:
        """A random field that is alike in all directions."""
        return waves(self.points, self.rng, wavelength)

    def sheets(self, wavelength: float, stretch: float, terms: int = 9) -> np.ndarray:
        """A random field whose layers run along the skin: stretched along it, and bent with the tissue."""
        x, y, z = self.points
        return waves((x / stretch, y + self.bend, z / stretch), self.rng, wavelength, terms)

    def lay(
        self, distance: np.ndarray, echo: float | np.ndarray, loss: float, width: float | None = None
    ) -> None:
        """Fill a shape; its edge is a pixel wide unless told."""
        paint(self.echo, distance, echo, width or self.pixel)
        paint(self.loss, distance, loss, width or self.pixel)

    def strands(
        self, wavelength: float, stretch: float, within: np.ndarray, echo: float, width: float = 0.3
    ) -> None:
        """Brighten thin fibres within a shape: they come and go, as only parts of them face the probe."""
        slope = np.float32(2 * np.pi / wavelength)
        line = np.clip(1 - np.abs(self.sheets(wavelength, stretch)) / (slope * width), 0, 1)
        facing = np.clip(0.4 + self.sheets(3 * wavelength, 1.5, 5), 0, 1.3)
        self.echo += echo * line * facing * coverage(within, 0.5)

    def fascia(self, distance: np.ndarray, echo: float) -> None:
        """Brighten a boundary, unevenly, and less so where it slopes."""
        x, y, z = self.points
        steep = 3 * np.abs(np.gradient(self.bend, axis=1)) / self.pixel
        facing = 1 + 0.4 * waves((x, 0 * y, z), self.rng, 8) - steep
        self.echo += echo * np.clip(facing, 0.1, 1.4) * np.clip(1 - np.abs(distance) / 0.45, 0, 1)


def _fat(cut: _Slice) -> None:
    """The skin and the fat below it."""
    y = cut.points[1]
    paint(cut.echo, np.abs(y - np.float32(0.6)) - 0.2, 2, 0.3)
    fat = 0.15 * cut.bend - (y - np.float32(cut.fat_top))
    cut.lay(fat, -10 + cut.mottle, 0.8)
    # Ligaments divide the fat into lobules; a little loss in them streaks what lies below.
    septa = np.abs(cut.sheets(9, 1.8)) * 1.6 - 0.1
    paint(cut.loss, np.maximum(septa, fat), 2.5, 0.5)
    cut.strands(9, 1.8, fat, 16)
    cut.strands(3, 5, fat, 9)


def _gland(cut: _Slice) -> None:
    """The gland with its lobules of fat and its ducts, and the fat behind it."""
    y, rng = cut.points[1], cut.rng
    uneven = 1.6 * cut.bend + 0.7 * cut.waves(7)
    gland = np.maximum(cut.gland_top + uneven - y, y - cut.gland_bottom - cut.bend)
    cut.lay(gland, -1 + cut.mottle + 2 * cut.sheets(2.5, 2.5) + 2.5 * cut.sheets(8, 1.6), 1.3, 0.8)
    cut.strands(2.2, 4, gland, 9)
    cut.strands(5, 2.5, gland, 9, 0.5)
    within = (-24, cut.gland_top + 2, -24), (24, cut.gland_bottom - 2, 24)
    for _ in range(rng.integers(5, 9)):  # lobules of fat: as dark as many a lesion
        centre = rng.uniform(*within)
        radii = rng.uniform(3, 9), rng.uniform(1.2, 3), rng.uniform(3, 9)
        lobule = np.maximum(ellipsoid(cut.points, centre, radii) + 0.6 * cut.waves(6), gland)
        cut.lay(lobule, -13 + cut.mottle, 0.8, 1)
    for _ in range(rng.integers(2, 5)):  # ducts
        start = rng.uniform(*within)
        end = start + rng.uniform((-12, -3, -12), (12, 3, 12))
        duct = capsule(cut.points, start, end, rng.uniform(0.5, 1.1)) + 0.15 * cut.mottle
        cut.lay(np.maximum(duct, gland), -20, 0.5)
    cut.lay(cut.gland_bottom + cut.bend - y, -11 + cut.mottle, 0.9)


def _chest(cut: _Slice) -> None:
    """Muscle, pleura and none to two ribs."""
    y, rng = cut.points[1], cut.rng
    muscle = cut.muscle_top + 0.8 * cut.bend - y
    cut.lay(muscle, -13 + cut.mottle, 1.2)
    cut.strands(2.5, 9, muscle, 13)
    cut.strands(6, 6, muscle, 10)
    cut.fascia(muscle, 20)
    cut.fascia(muscle - 1, 9)
    pleura = cut.muscle_bottom - y + 0.8 * cut.bend
    cut.lay(pleura, -20 + cut.mottle, 2)
    cut.fascia(pleura, 26)
    sides = rng.permutation((-1, 1))[: rng.integers(0, 3)]
    for side in sides:  # ribs run along z, so that a slice along x shows them across
        centre = side * rng.uniform(12, 24), cut.muscle_bottom - rng.uniform(1, 3)
        rib = capsule(cut.points, (*centre, -99), (*centre, 99), rng.uniform(3, 4.5)) + 0.3 * cut.waves(5)
        cut.lay(rib, -16, 6)
        cut.echo += 24 * np.clip(1 - np.abs(rib) / 0.6, 0, 1) * np.clip((centre[1] - y) / 3, 0, 1)


def _lesion(cut: _Slice, kind: Kind) -> np.ndarray:
    """A lesion in the gland; returns its distance."""
    points, rng, top, bottom = cut.points, cut.rng, cut.gland_top, cut.gland_bottom
    wide = rng.uniform(3.5, 8.5)
    high = min(wide * rng.uniform(*kind.aspect), 0.55 * (bottom - top))
    radii = (wide, high, wide * rng.uniform(0.75, 1.1))
    centre = (0, rng.uniform(top + high, max(bottom - 0.7 * high, top + high + 1)), 0)
    size = min(radii)
    body = ellipsoid(points, centre, radii)
    body = body + np.float32(kind.rough * size) * cut.waves(1.6 * size)
    body = body + np.float32(0.25 * kind.rough * size) * cut.waves(0.7 * size)
    extent = body
    for spicule in range(kind.spicules):
        # Alternately in the plane of one view and of the other.
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(1.2, 1.5)
        along = (np.cos(angle), 0) if spicule % 2 else (0, np.cos(angle))
        tip = np.array((along[0] * radii[0], np.sin(angle) * high, along[1] * radii[2])) * reach + centre
        extent = union(extent, capsule(points, centre, tip, 0.3), 1.5)
    if kind.spicules:
        paint(cut.echo, extent - 1, 5, 3)  # the halo of an infiltrating lesion
    if kind.wall:
        wall = np.abs(extent) - 0.2
        paint(cut.echo, wall, 4, 0.4)
        paint(cut.loss, wall, 3, 0.4)
    texture = 1.5 * cut.waves(3) + 1.5 * cut.waves(size)
    cut.lay(extent, kind.echo + texture, kind.loss, kind.blur)
    return np.minimum(body, extent + 0.3)  # an annotator draws the roots of the spicules, not their threads

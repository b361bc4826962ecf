"""A left breast as a mammogram shows it, with masses and calcifications: the content of the INbreast phantom.

Positions are in mm: x grows from the chest wall, the left edge of the image, and y downwards from its top. A
right breast is the mirror image. Values are 0 for air and about 0.3 for fat to 0.9 for calcifications.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from pipelines.datasets.shapes import coverage

COARSE = 640  # pixels of the longer side on which textures are drawn, since they are smooth
CORNERS = 40  # of a mass's contour
MUSCLE = 0.62  # as bright as the brightest gland: what no threshold tells from a mass


class Breast(NamedTuple):
    """A breast without lesions on the grid of its image.

    Attributes:
        image: float32 (H, W), 0 in the air.
        depth: float32 (H, W), about the distance to the skin in mm, negative in the air and in the muscle.
        pixel: distance of pixel centres in mm.
    """

    image: np.ndarray
    depth: np.ndarray
    pixel: float


class Lesion(NamedTuple):
    """What was painted: a centre and a contour, (N, 2), x and y in mm."""

    centre: tuple[float, float]
    contour: np.ndarray


def breast(rng: np.random.Generator, shape: tuple[int, int], pixel: float, oblique: bool) -> Breast:
    """A breast of skin, fat and gland, and of muscle in the oblique view.

    Args:
        rng: where outline and texture come from.
        shape: (height, width).
        pixel: distance of pixel centres in mm.
        oblique: MLO, with the pectoral muscle in the upper corner at the chest wall, else CC.
    """
    height, width = (pixel * side for side in shape)
    y = np.arange(shape[0], dtype=np.float32)[:, None] * np.float32(pixel)
    x = np.arange(shape[1], dtype=np.float32)[None] * np.float32(pixel)
    reach = width * rng.uniform(0.55, 0.75)
    half = height * rng.uniform(0.34, 0.42)
    middle = height * (rng.uniform(0.54, 0.6) if oblique else rng.uniform(0.46, 0.54))
    above = 1.2 * middle if oblique else half  # an oblique view goes up to the axilla, beyond the image
    along = np.where(y < middle, (middle - y) / np.float32(above), (y - middle) / np.float32(half))
    outline = reach * np.maximum(0, 1 - along**2.2) ** 0.6
    outline *= 1 + 0.02 * np.sin(y / (0.06 * height) + rng.uniform(0, 6))
    slope = np.gradient(outline, pixel, axis=0)
    depth = ((outline - x) / np.sqrt(1 + slope**2)).astype(np.float32)

    coarse = _texture(rng, shape, 1.6)
    lines = _texture(rng, shape, 1.1)
    from_gland = ((x - 0.55 * reach) / (0.42 * reach)) ** 2 + ((y - middle) / (0.6 * half)) ** 2
    gland = np.exp(-from_gland) * rng.uniform(0.16, 0.26)
    tissue = 0.32 + gland * (1 + 0.55 * coarse) + 0.035 * coarse
    tissue += 0.06 * np.exp(-((lines / 0.12) ** 2)) * (0.4 + gland / 0.2)  # ligaments, ducts and vessels
    tissue = np.maximum(tissue, 0.12)
    inside = depth > 0
    thickness = np.where(inside, 1 - 0.75 * np.exp(-np.maximum(depth, 0) / 7), 0)
    image = tissue * thickness
    image += 0.1 * np.exp(-(((depth - 1) / max(0.8, pixel)) ** 2)) * inside  # the skin, seen along itself
    if oblique:
        base, length = width * rng.uniform(0.28, 0.36), height * rng.uniform(0.5, 0.62)
        edge = x - base * (1 - y / length) - 2.5 * np.sin(y / (0.1 * height))
        cover = coverage(edge, max(3.0, pixel)) * inside
        image += cover * (MUSCLE + 0.02 * coarse - image)
        depth = np.where((edge < 6) & (depth > 0), np.float32(-1), depth)
    return Breast(image.astype(np.float32), depth, pixel)


def place(
    rng: np.random.Generator, found: Breast, room: float, taken: list[tuple[float, float]]
) -> tuple[float, float]:
    """A random place in mm, `room` mm from skin, muscle and chest wall and twice as far from what is there.

    Where there is no such place, as in a small breast, the roomiest is taken.
    """
    step = max(1, round(2 / found.pixel))
    rows, columns = (np.arange(0, side, step) * found.pixel for side in found.depth.shape)
    tissue = np.pad(found.depth[::step, ::step] > 0, ((1, 1), (0, 1)))
    space = ndimage.distance_transform_edt(tissue)[1:-1, :-1] * (step * found.pixel)
    space = np.minimum(space, columns[None])
    for x, y in taken:
        space = np.minimum(space, np.hypot(columns[None] - x, rows[:, None] - y) / 2)
    free = np.argwhere(space >= room)
    row, column = (
        free[rng.integers(len(free))] if len(free) else np.unravel_index(space.argmax(), space.shape)
    )
    return float(columns[column]), float(rows[row])


def at_wall(rng: np.random.Generator, found: Breast, radius: float) -> tuple[float, float]:
    """A random place in mm so near the chest wall that the image's edge cuts a mass of `radius` mm there."""
    x = 0.3 * radius
    depth = found.depth[:, round(x / found.pixel)]
    free = np.flatnonzero(depth > 2 * radius)
    row = free[rng.integers(len(free))] if len(free) else depth.argmax()
    return x, float(row) * found.pixel


def mass(
    rng: np.random.Generator, found: Breast, centre: tuple[float, float], radius: float, spicules: int = 0
) -> Lesion:
    """Paint a lobulated mass into the image, with a margin that fades over a millimetre or two.

    Args:
        rng: where its shape comes from.
        found: the breast, whose image is changed.
        centre: in mm; near the chest wall a part of the mass lies beyond the image.
        radius: in mm.
        spicules: thin lines that go out from it; they lie outside of its contour.
    """
    lobes = list(zip((2, 3, 4, 5), rng.uniform(0.03, 0.12, 4), rng.uniform(0, 2 * np.pi, 4), strict=True))
    tilt, wide = rng.uniform(0, 2 * np.pi), rng.uniform(1, 1.35)

    def outline(angle: np.ndarray) -> np.ndarray:
        waves = sum(height * np.cos(k * angle + phase) for k, height, phase in lobes)
        oval = 1 / np.sqrt((np.cos(angle - tilt) / wide) ** 2 + np.sin(angle - tilt) ** 2)
        return radius * oval * (1 + waves)

    rows, columns, x, y = _window(found, centre, radius * (3.2 if spicules else 2))
    distance = np.hypot(x, y) - outline(np.arctan2(y, x))
    part = found.image[rows, columns]
    tissue = part > 0.05
    part += tissue * coverage(distance, max(2.5, found.pixel)) * np.float32(rng.uniform(0.15, 0.22))
    for angle in rng.uniform(0, 2 * np.pi, spicules):
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        line = coverage(np.abs(across) - 0.4, max(0.8, found.pixel))
        fade = np.clip(1 - (along - radius) / (1.6 * radius), 0, 1) * (along > 0)
        part += tissue * (distance > 0) * line * fade * np.float32(0.1)
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    reach = outline(angles)
    return Lesion(centre, np.stack([np.cos(angles) * reach, np.sin(angles) * reach], axis=1) + centre)


def calcifications(
    rng: np.random.Generator, found: Breast, centre: tuple[float, float], spread: float, count: int
) -> list[Lesion]:
    """Paint a cluster of calcifications, tiny and brighter than what is around.

    They are 0.25 to 0.7 mm in radius, and on a coarse grid as large as a pixel, so that they can be seen.

    Args:
        rng: where places and sizes come from.
        found: the breast, whose image is changed.
        centre: of the cluster, in mm.
        spread: radius of the cluster in mm.
        count: how many.
    """
    lesions = []
    for _ in range(count):
        turn, away = rng.uniform(0, 2 * np.pi), spread * np.sqrt(rng.uniform(0, 1))
        spot = (centre[0] + away * np.cos(turn), centre[1] + away * np.sin(turn))
        radius = max(rng.uniform(0.25, 0.7), rng.uniform(0.7, 1.1) * found.pixel)
        rows, columns, x, y = _window(found, spot, 3 * radius)
        part = found.image[rows, columns]
        shape = coverage(np.hypot(x, y) - radius, found.pixel)
        part += (part > 0.05) * shape * np.float32(rng.uniform(0.2, 0.3))
        angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
        around = radius + 0.3 * found.pixel
        lesions.append(Lesion(spot, around * np.stack([np.cos(angles), np.sin(angles)], axis=1) + spot))
    return lesions


def oval(centre: tuple[float, float], width: float, height: float) -> Lesion:
    """A region drawn by hand about something, of so many mm across; nothing is painted."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = np.stack([width / 2 * np.cos(angles), height / 2 * np.sin(angles)], axis=1)
    return Lesion(centre, ring + centre)


def _texture(rng: np.random.Generator, shape: tuple[int, int], exponent: float) -> np.ndarray:
    """Noise whose amplitude falls with the frequency, as that of breasts does; standard deviation 1."""
    step = max(1.0, max(shape) / COARSE)
    small = [int(np.ceil(side / step)) for side in shape]
    frequency = np.hypot(
        np.fft.fftfreq(small[0])[:, None] * max(small), np.fft.rfftfreq(small[1]) * max(small)
    )
    spectrum = np.fft.rfft2(rng.standard_normal(small))
    noise = np.fft.irfft2(spectrum / np.maximum(frequency, 3) ** exponent, s=small)
    noise = (noise / noise.std()).astype(np.float32)
    if step > 1:
        noise = ndimage.zoom(noise, np.divide(shape, small), order=1)
    return noise


def _window(
    found: Breast, centre: tuple[float, float], reach: float
) -> tuple[slice, slice, np.ndarray, np.ndarray]:
    """The part of the image within `reach` mm of a place, and x and y of its pixels from there, in mm."""
    slices = []
    for position, side in zip(reversed(centre), found.image.shape, strict=True):
        first, last = (round((position + sign * reach) / found.pixel) for sign in (-1, 1))
        slices.append(slice(max(0, min(first, side - 1)), max(1, min(last + 1, side))))
    rows, columns = slices
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] * np.float32(found.pixel) - centre[1]
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None] * np.float32(found.pixel) - centre[0]
    return rows, columns, x.astype(np.float32), y.astype(np.float32)

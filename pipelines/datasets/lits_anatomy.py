"""An abdomen that looks like a contrast-enhanced CT with liver lesions: the content of the LiTS phantom.

Positions are in mm in a standard patient: x grows to the patient's right, y to the front, z to the head, and
the origin lies in the middle of the body at the height of the liver's centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from pipelines.datasets.shapes import Points, capsule, ellipsoid, grain, paint, union, waves

STANDARD_WIDTH = 330.0  # of the standard patient's body, in mm


class Look(NamedTuple):
    """What the contrast agent, or the liver's own tissue, makes of the organs' HU.

    Attributes:
        organs: the range that the parenchyma of a patient's organs is drawn from.
        liver: what the liver has beyond that.
        liver_vessels, blood, spleen, kidneys: what these have beyond what they have in the portal phase.
        lesions: what their difference to the liver is multiplied by; below 0 dark ones are bright.
    """

    organs: tuple[float, float] = (80, 150)
    liver: float = 0
    liver_vessels: float = 0
    blood: float = 0
    spleen: float = 0
    kidneys: float = 0
    lesions: float = 1


# Arterial: the agent has reached the arteries, the kidneys' cortex and what grows on arterial blood, but not
# yet the liver. Fatty: a liver with fat in it is darker than its vessels, the spleen, and lesions without.
LOOKS = {
    "portal": Look(),
    "arterial": Look((60, 85), blood=120, spleen=50, kidneys=60, lesions=-0.9),
    "fatty": Look(liver=-65, liver_vessels=65, lesions=-0.7),
}


def abdomen(
    rng: np.random.Generator,
    shape: Sequence[int],
    spacing: Sequence[float],
    lesions: bool = True,
    look: Look = LOOKS["portal"],
) -> tuple[np.ndarray, np.ndarray]:
    """One patient's CT and its labels.

    The body fills most of the image's width, so that organs have about the same size in voxels whatever the
    spacing. The liver enhances differently in every patient (80 to 150 HU) and lesions are darker or brighter
    than their own liver, so that muscle, spleen, bowel and another patient's liver share their HU: no fixed
    threshold finds them, but a reader who sees the liver does.

    Args:
        rng: where everything that varies comes from.
        shape: voxels to the right, to the front and to the head.
        spacing: size of a voxel in mm.
        lesions: whether this liver has any.
        look: of the organs; by default that of most scans, in the portal venous phase.

    Returns:
        HU (float32) and labels (uint8: 0, 1 liver, 2 tumour), both of the given shape, in RAS order.
    """
    scale = shape[0] * spacing[0] * rng.uniform(0.84, 0.92) / STANDARD_WIDTH
    voxel = [s / scale for s in spacing]
    # A thick stack holds the lungs' bases and the bowel; a thin one has to lie within the liver.
    slack = max(0.0, 60 - voxel[2] * shape[2] / 3)
    centre = (rng.uniform(-4, 4), rng.uniform(-4, 4), rng.uniform(0, 10) + slack * rng.uniform(-0.5, 0.5))
    straight = np.meshgrid(
        *[
            (np.arange(n, dtype=np.float32) - (n - 1) / 2) * v + c
            for n, v, c in zip(shape, voxel, centre, strict=True)
        ],
        indexing="ij",
        sparse=True,
    )
    straight = tuple(axis.astype(np.float32) for axis in straight)
    points = tuple(axis + np.float32(3) * waves(straight, rng, 150) for axis in straight)
    edge = float(np.mean(voxel[:2])) + 0.15 * voxel[2]

    hu = np.full(shape, -1000, np.float32)
    cavity = _body_wall(hu, points, straight, rng, edge)
    below_diaphragm = _chest(hu, points, cavity, rng, edge)
    organs_hu = rng.uniform(*look.organs)
    liver_hu = organs_hu + look.liver
    inside = np.maximum(cavity + 3, below_diaphragm + 3)
    carved = _organs(hu, points, inside, organs_hu, look, rng, edge)
    liver = _liver(hu, points, np.maximum(inside, -carved), liver_hu, look, rng, edge)
    labels = (liver < 0).astype(np.uint8)
    if lesions:
        _lesions(hu, labels, points, liver, liver_hu, look, rng, edge)

    hu = ndimage.gaussian_filter(hu, (0.45, 0.45, 0.25))
    fine = [max(0.6, 1.0 / v) for v in voxel[:2]]
    hu += np.float32(rng.uniform(4, 7)) * grain(rng, shape, (*fine, 0.4))
    return np.clip(hu, -1024, 3071), labels


def _body_wall(
    hu: np.ndarray, points: Points, straight: Points, rng: np.random.Generator, edge: float
) -> np.ndarray:
    """Table, skin, fat, muscle, ribs and spine; returns the distance to the cavity within."""
    x, y, z = points
    table = np.abs(straight[1] + np.float32(128) - (straight[0] / 40) ** 2) - 3
    paint(hu, np.maximum(table, np.abs(straight[0]) - 180), -250, edge)
    body = ellipsoid(points, (0, 0, 0), (STANDARD_WIDTH / 2, rng.uniform(108, 120), 2000))
    fat, muscle = rng.uniform(9, 24), rng.uniform(10, 14)
    muscle_hu = rng.uniform(45, 68)
    fibres = 6 * waves(points, rng, 18)
    paint(hu, body, 5, edge)
    paint(hu, body + 3, -105 + 5 * waves(points, rng, 30), edge)
    wall = body + np.float32(fat) + 3 * waves(points, rng, 90)
    paint(hu, wall, muscle_hu + fibres, edge)
    cavity = wall + np.float32(muscle)
    paint(hu, cavity, -98 + 12 * waves(points, rng, 22), edge)

    angle = np.arctan2(x, y)  # 0 at the front, so that the ribs slope down towards it
    along = (z + 38 * np.cos(angle) + np.float32(rng.uniform(0, 30))) % 30 - 15
    ribs = np.sqrt((wall + np.float32(muscle / 2)) ** 2 + (along * 0.8) ** 2) - 4.5
    paint(hu, np.maximum(ribs, -30 - z - 0.3 * np.abs(x)), 420, edge)

    for side in (-1, 1):
        back = ellipsoid(points, (side * 34, -86, 0), (30, 17, 2000))
        psoas = ellipsoid(points, (side * 36, -54, -110), (17, 19, 95))
        paint(hu, np.maximum(union(back, psoas, 6), body + 8), muscle_hu + fibres, edge)
        paint(
            hu,
            capsule(points, (side * 8, -80, 0), (side * 36, -84, 0), 6) + np.abs(z % 32 - 16) / 3,
            330,
            edge,
        )
    marrow = rng.uniform(150, 220)
    spine = ellipsoid(points, (0, -58, 0), (24, 19, 2000))
    paint(hu, np.maximum(spine, 2 - np.abs(z % 32 - 16)), 90, edge)  # the discs
    paint(hu, np.maximum(spine, np.abs(z % 32 - 16) - 13), 420, edge)
    paint(hu, np.maximum(spine + 4, np.abs(z % 32 - 16) - 10), marrow + 25 * waves(points, rng, 9), edge)
    paint(hu, ellipsoid(points, (0, -84, 0), (12, 10, 2000)), 400, edge)
    paint(hu, ellipsoid(points, (0, -83, 0), (8, 6.5, 2000)), 25, edge)
    paint(hu, np.maximum(ellipsoid(points, (0, -98, 0), (3.5, 12, 2000)), np.abs(z % 32 - 16) - 9), 380, edge)
    return np.maximum(cavity, -spine - 4)


def _chest(
    hu: np.ndarray, points: Points, cavity: np.ndarray, rng: np.random.Generator, edge: float
) -> np.ndarray:
    """Lungs and heart above the diaphragm; returns the distance to what lies below it."""
    height = rng.uniform(-8, 8)
    right = ellipsoid(points, (72, 4, height - 60), (84, 96, 138))
    left = ellipsoid(points, (-66, 0, height - 66), (84, 94, 128))
    below = np.minimum(union(right, left, 30), points[2] - np.float32(height - 45))
    lungs = np.maximum(cavity + 2, 2.5 - below)
    vessels = np.maximum(waves(points, rng, 26, terms=7) - 1.2, 0) * 260
    paint(hu, lungs, -865 + vessels, edge)
    heart = np.maximum(ellipsoid(points, (-22, 34, height + 92), (62, 52, 52)), lungs)
    paint(hu, heart, rng.uniform(60, 90), edge)
    paint(hu, heart + 12, rng.uniform(130, 190), edge)
    return below


def _organs(
    hu: np.ndarray,
    points: Points,
    inside: np.ndarray,
    organs_hu: float,
    look: Look,
    rng: np.random.Generator,
    edge: float,
) -> np.ndarray:
    """Vessels, kidneys, spleen, stomach, pancreas, bowel; returns the distance to what the liver avoids."""

    def near(centre: Sequence[float], spread: float = 5) -> np.ndarray:
        return np.asarray(centre) + rng.uniform(-spread, spread, 3)

    taken = np.full(hu.shape, 1e3, np.float32)
    texture = 4 * waves(points, rng, 14)
    blood = organs_hu + look.blood + rng.uniform(15, 45)

    for _ in range(12):  # bowel: loops in front of the kidneys, on the left beside the liver too
        x = rng.uniform(-105, 80)
        start = near((x, rng.uniform(5, 65), rng.uniform(-120, 15 if x < -20 else -70)), 0)
        loop = capsule(points, start, start + rng.uniform(-45, 45, 3), rng.uniform(9, 15)) + 2 * waves(
            points, rng, 30
        )
        loop = np.maximum(loop, inside)
        paint(hu, loop, rng.uniform(55, 100), edge)
        content = rng.uniform(-5, 95)
        paint(hu, loop + 3.5, content + 9 * waves(points, rng, 10), edge)
        paint(hu, np.maximum(loop + 5, start[1] + 5 - points[1]), rng.choice([content, content, -700]), edge)

    centre, radii = near((-58, 38, 18), 8), rng.uniform((36, 32, 42), (48, 44, 56))
    stomach = np.maximum(ellipsoid(points, centre, radii) + 3 * waves(points, rng, 60), inside)
    paint(hu, stomach, rng.uniform(65, 95), edge)
    content = rng.uniform(0, 45)
    paint(hu, stomach + 4, content + 7 * waves(points, rng, 15), edge)
    level = centre[1] + rng.uniform(0.2, 0.7) * radii[1]  # gas gathers at the front of a patient on the back
    paint(hu, np.maximum(stomach + 6, np.float32(level) - points[1]), -900, edge)
    taken = np.minimum(taken, stomach - 2)

    spleen = ellipsoid(points, near((-100, -38, 12)), rng.uniform((26, 40, 40), (36, 50, 56)))
    spleen = np.maximum(np.maximum(spleen + 3 * waves(points, rng, 50), inside), -stomach - 2)
    paint(hu, spleen, organs_hu + look.spleen + rng.uniform(-40, 25) + texture, edge)

    for side in (-1, 1):
        kidney = ellipsoid(points, near((side * 62, -57, -78)), rng.uniform((26, 27, 44), (31, 32, 54)))
        kidney = np.maximum(kidney + 2 * waves(points, rng, 40), inside)
        paint(hu, kidney, organs_hu + look.kidneys + rng.uniform(30, 70), edge)
        paint(hu, kidney + 8 + 3 * waves(points, rng, 16), organs_hu + rng.uniform(-25, 25), edge)
        paint(hu, ellipsoid(points, (side * 50, -55, -84), (11, 8, 15)), -70, edge)
        taken = np.minimum(taken, kidney)

    pancreas = capsule(points, near((30, 8, -45)), near((-62, -14, -5)), rng.uniform(9, 13))
    paint(
        hu, np.maximum(pancreas + 3 * waves(points, rng, 18), inside), organs_hu - rng.uniform(15, 45), edge
    )

    cava = ellipsoid(points, near((24, -24, 0), 2), (12, rng.uniform(9, 13), 2000))
    paint(hu, np.maximum(cava, points[2] - 110), blood + rng.uniform(-20, 5), edge)
    paint(hu, ellipsoid(points, near((-10, -32, 0), 2), (11, 11, 2000)), blood + rng.uniform(0, 60), edge)
    taken = np.minimum(taken, cava)

    bladder = ellipsoid(points, near((36, 52, -72)), rng.uniform((11, 14, 16), (14, 18, 24)))
    paint(hu, np.maximum(bladder, inside), rng.uniform(40, 70), edge)
    paint(hu, np.maximum(bladder + 2, inside), rng.uniform(-5, 12), edge)
    return np.minimum(taken, bladder - 4)


def _liver(
    hu: np.ndarray,
    points: Points,
    inside: np.ndarray,
    liver_hu: float,
    look: Look,
    rng: np.random.Generator,
    edge: float,
) -> np.ndarray:
    """The liver with its vessels; returns its distance."""
    right = ellipsoid(points, (70, -2, -8), rng.uniform((64, 78, 82), (74, 90, 96)))
    left = ellipsoid(points, (8, 44, 22), rng.uniform((62, 28, 32), (84, 40, 42)))
    liver = np.maximum(union(right, left, 25) + 4 * waves(points, rng, 60), inside)
    paint(hu, liver, liver_hu + 3 * waves(points, rng, 40) + 2 * waves(points, rng, 12), edge)

    vessels = np.full(hu.shape, 1e3, np.float32)
    hepatic, portal = np.array((26, -18, 58)), np.array((30, 10, -20))
    for target in ((95, -25, 15), (62, 45, 12), (5, 45, 25)):
        _branch(vessels, points, hepatic, np.array(target) + rng.uniform(-10, 10, 3), 5.0, 3, rng)
    for target in ((100, 5, -20), (80, -40, -10), (15, 48, 20)):
        _branch(vessels, points, portal, np.array(target) + rng.uniform(-10, 10, 3), 5.5, 3, rng)
    paint(hu, np.maximum(vessels, liver + 4), liver_hu + look.liver_vessels + rng.uniform(20, 50), edge)
    return liver


def _branch(
    vessels: np.ndarray,
    points: Points,
    start: np.ndarray,
    end: np.ndarray,
    radius: float,
    order: int,
    rng: np.random.Generator,
) -> None:
    """Lay a vessel that forks `order` times into `vessels`, branches shorter and thinner (Murray's law)."""
    reach = radius + 12
    box = tuple(
        slice(*(np.searchsorted(_axis(p, i), (min(a, b) - reach, max(a, b) + reach))))
        for i, (p, a, b) in enumerate(zip(points, start, end, strict=True))
    )
    part = vessels[box]
    if part.size:
        np.minimum(part, capsule(tuple(p[box] for p in points), start, end, radius), out=part)
    if order:
        for _ in range(2):
            turn = rng.normal(size=3)
            step = (end - start) * 0.72 + turn / np.linalg.norm(turn) * 0.42 * np.linalg.norm(end - start)
            _branch(vessels, points, end, end + step, radius * 0.79, order - 1, rng)


def _axis(coordinate: np.ndarray, axis: int) -> np.ndarray:
    """The coordinate along its own axis through the middle of the grid."""
    middle = [n // 2 for n in coordinate.shape]
    return np.maximum.accumulate(
        coordinate[tuple(slice(None) if i == axis else m for i, m in enumerate(middle))]
    )


def _lesions(
    hu: np.ndarray,
    labels: np.ndarray,
    points: Points,
    liver: np.ndarray,
    liver_hu: float,
    look: Look,
    rng: np.random.Generator,
    edge: float,
) -> None:
    """One to four lesions: the first large and dark, the others of any size, a few bright or rimmed."""
    placed: list[tuple[np.ndarray, float]] = []
    for number in range(rng.integers(1, 5)):
        radius = (
            rng.uniform(22, 38) if number == 0 else rng.choice([rng.uniform(10, 14), rng.uniform(14, 28)])
        )
        room = liver + np.float32((0.75 if number == 0 else 0.5) * radius)
        for centre, other in placed:
            room = np.maximum(
                room,
                radius + other + 4 - np.sqrt(sum((p - c) ** 2 for p, c in zip(points, centre, strict=True))),
            )
        seats = np.flatnonzero(room < 0)
        if not seats.size:
            continue
        seat = rng.choice(seats)
        centre = np.array([p.flat[seat] for p in points])
        placed.append((centre, radius))
        stretch = rng.uniform(0.75, 1.3, 3)
        lesion = ellipsoid(points, centre, radius * stretch / np.cbrt(stretch.prod()))
        bump = centre + rng.normal(0, 0.5, 3) * radius
        lesion = union(lesion, ellipsoid(points, bump, radius * rng.uniform(0.4, 0.75, 3)), radius / 3)
        lesion = lesion + np.float32(0.1 * radius) * waves(points, rng, 1.5 * radius)
        lesion = np.maximum(lesion, liver + 2)
        contrast = look.lesions * (rng.uniform(42, 62) if number == 0 else rng.uniform(32, 60))
        kind = "dark" if number == 0 else rng.choice(["dark", "bright", "rim"], p=[0.84, 0.06, 0.1])
        texture = 6 * waves(points, rng, max(8, 0.6 * radius))
        soft = edge + rng.uniform(0.5, 2.5)
        if kind == "bright":
            paint(hu, lesion, liver_hu + contrast + texture, soft)
        elif kind == "rim":
            paint(hu, lesion, liver_hu + 0.7 * contrast, soft)
            paint(hu, lesion + np.float32(0.22 * radius), liver_hu - contrast + texture, soft)
        else:
            paint(hu, lesion, liver_hu - contrast + texture, soft)
            if rng.random() < 0.3:  # a necrotic core
                paint(hu, lesion + np.float32(0.45 * radius), liver_hu - contrast - rng.uniform(5, 20), soft)
        labels[lesion < 0] = 2

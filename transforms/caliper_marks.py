"""The marks that electronic calipers are made of: crosses, and straight rows of dots or dashes.

Both are found in one channel of an image by what tells ink from tissue: its strokes are thin and sharp where
tissue is smooth, the arms of a cross are of one length, and dots are even. Chance makes such marks too, so
what is found here are candidates; `transforms.calipers` keeps those that fit one another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

__all__ = ["Cross", "Row", "find_crosses", "find_rows", "place"]

FAINT = 0.05  # the least contrast of a mark, where black to white is 1
BORDER = 16  # pixels; the longest arm of a cross that is followed
UPRIGHT = ((0, 1), (1, 0), (0, -1), (-1, 0))
DIAGONAL = ((1, 1), (1, -1), (-1, -1), (-1, 1))
RING = np.pad(np.zeros((3, 3), bool), 1, constant_values=True)
PITCH = 2.2, 7.5  # distance between neighbouring dots in pixels
CHAIN = 5  # dots


@dataclass(eq=False)
class Cross:
    """A plus sign, or an x sign if `turned`; lengths in pixels, brightness from 0 to 1."""

    centre: np.ndarray  # y, x
    turned: bool
    arm: float  # its length
    regular: bool  # whether its arms are equally long
    level: float  # brightness of the dimmest arm
    contrast: float  # how much brighter that is than what lies between the arms
    scale: int  # of the reduction at which it was found


@dataclass(eq=False)
class Row:
    """A row of dots; lengths in pixels, brightness from 0 to 1."""

    start: np.ndarray  # y, x
    end: np.ndarray
    dots: int
    pitch: float  # distance between neighbouring dots
    contrast: float  # how much brighter they are than what surrounds them
    scale: int  # of the reduction at which it was found


def place(points: np.ndarray, row: Row) -> tuple[np.ndarray, np.ndarray, float]:
    """Where points (..., 2) lie along a row from its start, how far beside it, and the row's length."""
    length = float(np.linalg.norm(row.end - row.start))
    along = (row.end - row.start) / length
    return (points - row.start) @ along, (points - row.start) @ np.array([-along[1], along[0]]), length


def find_crosses(layer: np.ndarray, scale: int = 1) -> list[Cross]:
    """Places where four arms of a few pixels are brighter than the bays between them.

    Args:
        layer: float, shape (H, W), 0 to 1.
        scale: look at the image reduced by this factor, for thicker strokes.

    Returns:
        Candidates in the coordinates of `layer`; those on top of one another differ in kind.
    """
    layer = _reduced(layer, scale)
    height, width = layer.shape
    padded = np.pad(layer, BORDER, mode="edge")
    means = ndimage.uniform_filter(padded, 3)

    def moved(image: np.ndarray, dy: int, dx: int) -> np.ndarray:
        return image[BORDER + dy : BORDER + dy + height, BORDER + dx : BORDER + dx + width]

    found = []
    for turned, arms, bays, reach, close, away in (
        (False, UPRIGHT, DIAGONAL, 2, 2, 3),
        (True, DIAGONAL, UPRIGHT, 3, 3, 5),  # a longer reach, since many letters have small x signs in them
    ):
        strokes = layer
        for dy, dx in arms:
            for k in range(1, reach + 1):
                strokes = np.minimum(strokes, moved(padded, k * dy, k * dx))
        one, two, three, four = (
            np.maximum(moved(padded, close * dy, close * dx), moved(means, away * dy, away * dx))
            for dy, dx in bays
        )
        # The second brightest of the bays, since one may hold a number.
        second = np.maximum(
            np.minimum(np.maximum(one, two), np.maximum(three, four)),
            np.maximum(np.minimum(one, two), np.minimum(three, four)),
        )
        contrast = strokes - second
        peaks = (contrast > FAINT) & (contrast == ndimage.maximum_filter(contrast, 5))
        for y, x in np.argwhere(peaks):
            half = strokes[y, x] - contrast[y, x] / 2
            lengths = sorted(_run(padded, y + BORDER, x + BORDER, dy, dx, half) for dy, dx in arms)
            found.append(
                Cross(
                    centre=_full(np.array([y, x]), scale),
                    turned=turned,
                    arm=scale * lengths[1],
                    regular=lengths[2] - lengths[0] <= 2 and lengths[3] - lengths[0] <= 3,
                    level=float(strokes[y, x]),
                    contrast=float(contrast[y, x]),
                    scale=scale,
                )
            )
    return found


def find_rows(layer: np.ndarray, scale: int = 1) -> list[Row]:
    """Straight, even rows of five dots or more.

    Args:
        layer: float, shape (H, W), 0 to 1.
        scale: look at the image reduced by this factor, for dots further apart and for dashes.

    Returns:
        Candidates in the coordinates of `layer`, the longest first.
    """
    layer = _reduced(layer, scale)
    detail = layer - ndimage.median_filter(layer, footprint=RING, mode="nearest")
    smooth = ndimage.gaussian_filter(detail, 0.5)
    dots = _dots(smooth)
    chains = _chains(dots)
    if not len(chains):
        return []
    return _joined(dots, smooth, chains[_dotted(layer, smooth, dots[chains])], scale)


def _reduced(layer: np.ndarray, scale: int) -> np.ndarray:
    height, width = (size // scale for size in layer.shape)
    return layer[: height * scale, : width * scale].reshape(height, scale, width, scale).mean(axis=(1, 3))


def _full(points: np.ndarray, scale: int) -> np.ndarray:
    """Coordinates in the full image of points in a reduced one."""
    return points * scale + (scale - 1) / 2


def _run(image: np.ndarray, y: int, x: int, dy: int, dx: int, least: float) -> int:
    """How many pixels in one direction stay above a level."""
    steps = np.arange(1, BORDER)
    dim = image[y + steps * dy, x + steps * dx] < least
    return int(dim.argmax()) if dim.any() else BORDER


def _dots(smooth: np.ndarray) -> np.ndarray:
    """Centres (y, x) of small bright spots that stand out from the speckle, to a fraction of a pixel."""
    speckle = 1.25 * ndimage.uniform_filter(np.abs(smooth), 33)  # its standard deviation, were it Gaussian
    peaks = (smooth > np.maximum(FAINT, 2 * speckle)) & (smooth == ndimage.maximum_filter(smooth, 3))
    labels, count = ndimage.label(peaks, np.ones((3, 3)))
    if not count:
        return np.empty((0, 2))
    found = np.rint(ndimage.center_of_mass(peaks, labels, range(1, count + 1))).astype(int)
    around = np.stack(np.meshgrid((-1, 0, 1), (-1, 0, 1), indexing="ij"), axis=-1).reshape(-1, 2)
    padded = np.pad(np.maximum(smooth, 0), 1)
    weights = padded[tuple((found[:, None] + around + 1).transpose(2, 0, 1))]
    return found + (weights @ around) / weights.sum(axis=1, keepdims=True)


def _chains(dots: np.ndarray) -> np.ndarray:
    """Runs of `CHAIN` dots, each where its predecessors point; indices of dots, shape (N, CHAIN)."""
    if len(dots) < CHAIN:
        return np.empty((0, CHAIN), int)
    tree = cKDTree(dots)
    pairs = tree.query_pairs(PITCH[1], output_type="ndarray")
    chains = np.concatenate([pairs, pairs[:, ::-1]])
    chains = chains[np.hypot(*(dots[chains[:, 1]] - dots[chains[:, 0]]).T) >= PITCH[0]]
    while len(chains) and chains.shape[1] < CHAIN:
        step = (dots[chains[:, -1]] - dots[chains[:, 0]]) / (chains.shape[1] - 1)
        gap, following = tree.query(dots[chains[:, -1]] + step, distance_upper_bound=1.4)
        on = gap <= 0.35 * np.hypot(*step.T)
        on &= np.isfinite(gap)
        chains = np.concatenate([chains[on], following[on, None]], axis=1)
    return chains.reshape(-1, CHAIN) if len(chains) else np.empty((0, CHAIN), int)


def _dotted(layer: np.ndarray, smooth: np.ndarray, chains: np.ndarray) -> np.ndarray:
    """Which chains of dots (N, dots, 2) are straight, even, and dark around their dots.

    Along a sharp solid line there are even peaks too, where it steps from one row of pixels to the next.
    """
    count = chains.shape[1]
    order = (np.arange(count) - (count - 1) / 2)[:, None]
    centre = chains.mean(axis=1, keepdims=True)
    step = (chains * order).sum(axis=1, keepdims=True) / (order**2).sum()
    across = step[..., ::-1] * (-1, 1) / np.linalg.norm(step, axis=2, keepdims=True)
    uneven = np.linalg.norm(chains - centre - order * step, axis=2)
    peaks = smooth[tuple(np.rint(chains).astype(int).transpose(2, 0, 1))]

    def at(points: np.ndarray) -> np.ndarray:
        return ndimage.map_coordinates(layer, points.transpose(2, 0, 1), order=1, mode="nearest")

    dots, gaps = at(chains), at((chains[:, 1:] + chains[:, :-1]) / 2)
    beside = np.stack([at(chains + 2.5 * across), at(chains - 2.5 * across)])
    depth = dots.mean(axis=1) - gaps.mean(axis=1)
    return (
        (np.sqrt((uneven**2).mean(axis=1)) < 0.55)
        & (peaks.min(axis=1) > 0.4 * peaks.mean(axis=1))
        & (depth > np.maximum(0.35 * (dots - beside.min(axis=0)).mean(axis=1), FAINT))
        & ((dots - beside.max(axis=0) > 0.3 * depth[:, None]).mean(axis=1) > 0.7)
    )


def _joined(dots: np.ndarray, smooth: np.ndarray, chains: np.ndarray, scale: int) -> list[Row]:
    """Rows from the chains, each followed by its pitch until three dots in succession are missing."""
    rows = []
    spots = dots[np.unique(chains)]
    while len(chains):
        members, count = dots[chains[0]], 0
        pitch = np.linalg.norm(members[-1] - members[0]) / (CHAIN - 1)
        while len(members) > count:
            count = len(members)
            centre = members.mean(axis=0)
            line = Row(centre, centre + np.linalg.svd(members - centre)[2][0], count, pitch, 0, scale)
            t = place(members, line)[0]
            pitch, first = np.polyfit(np.rint((t - t.min()) / pitch), t, 1)
            # The line and pitch of a few dots are not exact enough to be followed far at once.
            reach = 2 * np.abs(t).max() + 3 * pitch
            t, off, _ = place(spots, line)
            step = np.rint((t - first) / pitch)
            error = np.maximum(np.abs(t - first - step * pitch) / min(0.3 * pitch, 1.2), np.abs(off) / 1.2)
            near = np.flatnonzero((error <= 1) & (np.abs(t) <= reach))
            near = near[np.argsort(error[near])]
            near = near[np.unique(step[near], return_index=True)[1]]  # one dot a step, in their order
            pieces = np.split(near, np.flatnonzero(np.diff(step[near]) > 3) + 1)
            piece = max(pieces, key=len)
            members = spots[piece]
        low, high = t[piece[[0, -1]]]
        if len(piece) >= max(CHAIN, 0.6 * (high - low) / pitch):
            ends = _full(line.start + np.outer((low, high), line.end - line.start), scale)
            contrast = float(np.median(smooth[tuple(np.rint(members).astype(int).T)]))
            rows.append(Row(*ends, len(piece), scale * float(pitch), contrast, scale))
        t, off, _ = place(dots[chains], line)
        done = ((np.abs(off) <= 1.5) & (t > low - 1) & (t < high + 1)).all(axis=1)
        done[0] = True
        chains = chains[~done]
    return sorted(rows, key=lambda row: -row.dots)

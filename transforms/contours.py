"""Contours to masks: outlines and points that a person drew, as labels of pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from monai.transforms import Transform
from skimage.draw import polygon

from .errors import ImageError

__all__ = ["ContoursToMask", "contour_mask"]


def contour_mask(points: Sequence[Sequence[float]], size: Sequence[int], radius: float = 1.0) -> np.ndarray:
    """The pixels of one contour.

    Three points or more are the corners of a closed polygon, and its pixels are those that
    `skimage.draw.polygon` fills: whose centres lie within. One or two points are marks, and so are more that
    enclose no pixel's centre: each becomes a disc. What lies outside the image is cut off.

    Args:
        points: (N, 2), x to the right and y down, in pixels; (0, 0) is the centre of the first one.
        size: of the image, (height, width).
        radius: of a disc in pixels; a pixel whose centre is as far away, or nearer, belongs to it. Where even
            this holds no pixel's centre, the nearest pixel is taken.

    Returns:
        bool, shape (height, width).

    Raises:
        ImageError: no point, one that is not finite, or all of the contour lies outside the image.

    Example:
        >>> contour_mask([(1, 1), (3, 1), (3, 2)], (4, 5)).astype(int)
        array([[0, 0, 0, 0, 0],
               [0, 1, 1, 1, 0],
               [0, 0, 0, 1, 0],
               [0, 0, 0, 0, 0]])
    """
    corners = np.asarray(points, dtype=float)
    if corners.ndim != 2 or corners.shape[1] != 2 or not len(corners) or not np.isfinite(corners).all():
        raise ImageError(f"expected a contour of points (x, y), found {_shown(points)}; draw it anew")
    height, width = size
    mask = np.zeros((height, width), bool)
    if len(corners) > 2:
        mask[polygon(corners[:, 1], corners[:, 0], (height, width))] = True
    if not mask.any():
        for x, y in corners:
            _draw_disc(mask, x, y, radius)
    if not mask.any():
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
        raise ImageError(
            f"expected a contour within the image of {width}x{height} pixels, found one from x {left:g} to"
            f" {right:g} and y {top:g} to {bottom:g}; is it of another image, or drawn on a resized one?"
        )
    return mask


def _draw_disc(mask: np.ndarray, x: float, y: float, radius: float) -> None:
    height, width = mask.shape
    rows = np.arange(max(0, int(np.floor(y - radius))), min(height, int(np.ceil(y + radius)) + 1))
    columns = np.arange(max(0, int(np.floor(x - radius))), min(width, int(np.ceil(x + radius)) + 1))
    if not (len(rows) and len(columns)):
        return
    near = (rows[:, None] - y) ** 2 + (columns[None] - x) ** 2 <= radius**2
    mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] |= near
    row, column = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
    if 0 <= row < height and 0 <= column < width:
        mask[row, column] = True


def _shown(points: object) -> str:
    text = str(points)
    return text if len(text) < 60 else f"{text[:57]}..."


class ContoursToMask(Transform):
    """Draw contours as one label image: :func:`contour_mask` of each, the later ones over the earlier.

    Args:
        radius: of a mark's disc, in pixels.
        columns_first: give (1, W, H), as MONAI's readers of pictures do, not (1, H, W).

    Raises:
        ImageError: as `contour_mask`; the message counts the contours from 1.

    Example:
        >>> outlines = [(1, [(2, 2), (9, 2), (9, 9), (2, 9)]), (2, [(5, 5)])]
        >>> ContoursToMask()(outlines, (12, 16)).unique(return_counts=True)[1]
        tensor([128,  59,   5])
    """

    def __init__(self, radius: float = 1.0, columns_first: bool = False) -> None:
        self.radius = radius
        self.columns_first = columns_first

    def __call__(
        self, contours: Iterable[tuple[int, Sequence[Sequence[float]]]], size: Sequence[int]
    ) -> torch.Tensor:
        """Pairs of a label (1 to 255) and a contour's points in, uint8 (1, height, width) out."""
        drawn = np.zeros(tuple(size), np.uint8)
        for number, (label, points) in enumerate(contours, start=1):
            try:
                drawn[contour_mask(points, size, self.radius)] = label
            except ImageError as error:
                raise ImageError(f"contour {number}: {error}") from error
        return torch.from_numpy(np.ascontiguousarray(drawn.T if self.columns_first else drawn))[None]

"""What ultrasound scanners burn into their images: text, a depth ruler, a grey bar and calipers."""

from __future__ import annotations

import math

import numpy as np
from PIL import ImageDraw, ImageFont

BLUE, YELLOW, WHITE = (120, 205, 255), (255, 255, 0), (255, 255, 255)


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    size: int,
    colour: tuple[int, int, int] = (190, 190, 190),
) -> None:
    """Write a line of text.

    Args:
        draw: draws on the image, RGB.
        at: the upper left corner, x and y.
        text: one line.
        size: the image's width about; letters are a twenty-fourth of it high, and at least 6 pixels.
        colour: RGB.
    """
    draw.text(at, text, colour, ImageFont.load_default(max(6, size // 24)))


def ruler(draw: ImageDraw.ImageDraw, column: int, rows: tuple[int, int], pixel: float, size: int) -> None:
    """Draw a tick every 5 mm of depth, a long one every 10 mm.

    Args:
        draw: draws on the image, RGB.
        column: where the ticks begin.
        rows: of the skin, and of the image's end.
        pixel: the height of a pixel in mm.
        size: the image's width about, with which the ticks grow.
    """
    top, bottom = rows
    for tick in range(math.floor((bottom - top) * pixel / 5) + 1):
        row, length = top + round(tick * 5 / pixel), (2 if tick % 2 else 5) * size // 256
        draw.line((column, row, column + length - 1, row), (230, 230, 230))


def grey_bar(draw: ImageDraw.ImageDraw, columns: tuple[int, int], rows: tuple[int, int]) -> None:
    """Draw the shades of grey along the upper third of an image, from white down to black.

    Args:
        draw: draws on the image, RGB.
        columns: the first and the last one.
        rows: of the skin, and of the image's end.
    """
    top, bottom = rows
    for row in range(top, top + (bottom - top) // 3):
        shade = 255 - 255 * (row - top) * 3 // (bottom - top)
        draw.line((columns[0], row, columns[1], row), (shade,) * 3)


def calipers(lesion: np.ndarray, size: int) -> np.ndarray:
    """Where calipers lie: crosses at the ends of a lesion's two diameters, and dotted lines between them.

    Args:
        lesion: bool (H, W), in one piece, its diameters' ends further from the border than a cross reaches.
        size: the image's width about, with which crosses and gaps grow.

    Returns:
        bool (H, W).
    """
    rows, columns = np.nonzero(lesion)
    centre = np.array((rows.mean(), columns.mean()))
    spots = np.stack((rows, columns), 1) - centre
    arm, gap = max(2, size // 64), max(3, size // 80)
    drawn = np.zeros(lesion.shape, bool)
    for axis in np.linalg.eigh(np.cov(spots.T))[1].T:
        on_axis = np.abs(spots @ (axis[1], -axis[0])) < 1
        reach = (spots @ axis)[on_axis]
        for t in np.arange(reach.min(), reach.max(), gap):
            drawn[tuple(np.rint(centre + axis * t).astype(int))] = True
        for t in (reach.min(), reach.max()):
            row, column = np.rint(centre + axis * t).astype(int)
            drawn[row - arm : row + arm + 1, column] = True
            drawn[row, column - arm : column + arm + 1] = True
    return drawn

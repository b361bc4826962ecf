"""A screen with contrast and B-mode panel: what scanners burn into it, and where."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from pipelines.datasets import ultrasound_screen as screen

Box = tuple[int, int, int, int]  # top, left, height, width, in pixels

NOTHING = (1, 2, 3)  # where the overlay shows what is below it
LOGO, ORANGE = (60, 80, 170), (180, 142, 124)


class Layout(NamedTuple):
    """How a screen looks. Lengths are shares of a panel's width."""

    contrast: str = "left"
    tint: str = "amber"  # or "grey"
    header: bool = True
    margin: float = 0.0  # on all sides
    gap: float = 0.03  # between the panels
    ruler: bool = True  # along the right side of either panel
    bar: bool = False  # of colours, on the contrast panel, and of greys, on the B-mode panel
    logo: bool = False
    line: bool = False  # about the contrast panel
    column: bool = False  # of text, on the right


class Screen:
    """Puts pairs of images onto a screen.

    Args:
        layout: of the screen.
        shape: (height, width) of a panel.
        pixel: its size in mm, for the ruler.
        title: what the header says.

    Attributes:
        boxes: of the panels "contrast" and "bmode", (top, left, height, width).
        size: (height, width) of the screen, both even, since video needs it.
    """

    def __init__(self, layout: Layout, shape: tuple[int, int], pixel: float, title: str) -> None:
        height, width = shape
        margin, gap = round(layout.margin * width), max(2, round(layout.gap * width))
        letters = max(6, width // 24)
        head = round(1.5 * letters) + 4 if layout.header else 0
        column = 6 * letters if layout.column else 0
        top, lefts = head + margin, (margin, margin + width + gap)
        if layout.contrast == "right":
            lefts = lefts[::-1]
        self.layout = layout
        self.boxes: dict[str, Box] = {
            name: (top, left, height, width) for name, left in zip(("contrast", "bmode"), lefts, strict=True)
        }
        full = (head + 2 * margin + height, 2 * margin + 2 * width + gap + column)
        self.size = tuple(n + n % 2 for n in full)
        picture = Image.new("RGB", self.size[::-1], NOTHING)
        draw = ImageDraw.Draw(picture)
        if layout.header:
            screen.write(draw, (margin + 2, 1), title, width)
        for row in range(5 if layout.column else 0):
            at = self.size[1] - column + letters, top + row * 2 * letters
            screen.write(draw, at, ("MI .07", "12 Hz", "C 42", "G 61", "P 3")[row], width)
        for box in self.boxes.values():
            self._furnish(draw, box, pixel, letters)
        overlay = np.array(picture)
        if layout.bar:
            top, left, height, width = self.boxes["contrast"]
            bar = overlay[top : top + height, left + width - width // 16 : left + width - width // 40]
            bar[:] = np.where((bar == NOTHING).all(-1, keepdims=True), bar, tint(bar[..., 0], layout.tint))
        self.shown = (overlay != NOTHING).any(-1, keepdims=True)
        self.overlay = overlay

    def _furnish(self, draw: ImageDraw.ImageDraw, box: Box, pixel: float, letters: int) -> None:
        top, left, height, width = box
        if self.layout.bar:
            columns = left + width - width // 16, left + width - width // 40 - 1
            screen.grey_bar(draw, columns, (top, top + height))
        if self.layout.ruler:
            place = left + width - (width // 8 if self.layout.bar else width // 40 + 2)
            screen.ruler(draw, place, (top, top + height - 1), pixel, width)
        if self.layout.logo:
            draw.ellipse((left + 1, top + 1, left + 1 + letters, top + 1 + letters), LOGO)
            draw.point((left + 1 + letters // 2, top + 1 + letters // 2), (230, 230, 240))
        if self.layout.line and box == self.boxes["contrast"]:
            draw.rectangle((left - 1, top - 1, left + width, top + height), outline=ORANGE)

    def show(self, contrast: np.ndarray, bmode: np.ndarray) -> np.ndarray:
        """A frame, uint8 (H, W, 3), from both images, uint8 of the panel's shape."""
        frame = np.zeros((*self.size, 3), np.uint8)
        for name, image in (("contrast", tint(contrast, self.layout.tint)), ("bmode", bmode[..., None])):
            top, left, height, width = self.boxes[name]
            frame[top : top + height, left : left + width] = image
        np.copyto(frame, self.overlay, where=self.shown)
        return frame


def tint(grey: np.ndarray, colour: str) -> np.ndarray:
    """Greys as a scanner shows contrast: from black over brown to a pale orange, or as they are.

    Args:
        grey: uint8 of any shape.
        colour: "amber" or "grey".

    Returns:
        uint8 with an axis of 3 more.
    """
    return TINTS[colour][grey]


_LEVEL = np.arange(256) / 255
TINTS = {
    "amber": np.rint(
        255 * np.stack([_LEVEL, 0.42 * _LEVEL + 0.3 * _LEVEL**2, 0.1 * _LEVEL + 0.35 * _LEVEL**3], axis=-1)
    ).astype(np.uint8),
    "grey": np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1),
}

"""Frames as scanners show them, with a contrast and a B-mode panel, whose places are known."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

AMBER = np.array([1, 0.66, 0.33])
HEADER = "C5-1  MI 0.06  TIS 0.1  12Hz  00:34"


class Layout(NamedTuple):
    """How a frame looks. `size` is (height, width) of a panel; the contrast panel is on the `side`."""

    side: str = "left"
    contrast: str = "amber"  # or "dark", "dark grey", "black"
    size: tuple[int, int] = (330, 360)
    header: int = 0
    footer: int = 0
    margin: int = 0
    gap: int = 6
    ruler: bool = False
    bar: str = ""  # "inside" or "outside"
    logo: bool = False
    label: bool = False  # a detection box with its filled label
    line: bool = False  # about the contrast panel
    text: int = 0  # width of a column of text on the right
    sector: bool = False
    background: int = 0
    jpeg: int = 0  # its quality


class Frame(NamedTuple):
    """(3, H, W) uint8, and the two boxes (top, left, height, width)."""

    image: np.ndarray
    contrast: tuple[int, int, int, int]
    bmode: tuple[int, int, int, int]


def speckle(rng, size, grain):
    """Rayleigh distributed, of root mean square 1."""
    envelope = np.hypot(
        *(ndimage.gaussian_filter(rng.normal(size=size), (0.7 * grain, 1.2 * grain)) for _ in "ri")
    )
    return envelope / np.sqrt((envelope**2).mean())


def field(rng, size, sigma):
    """Smooth, of mean 0 and standard deviation 1."""
    smooth = ndimage.gaussian_filter(rng.normal(size=size), sigma)
    return (smooth - smooth.mean()) / smooth.std()


def bmode(rng, size):
    """Layered tissue with a dark lesion, log compressed, (H, W)."""
    height, width = size
    grain = max(1, height / 450)
    depth = np.linspace(0, 1, height)[:, None]
    rows = np.arange(height)[:, None] + height / 30 * field(rng, size, width / 8)
    layers = np.interp(rows, np.arange(height), field(rng, height, height / 25))
    y, x = np.mgrid[:height, :width] - np.array([0.45 * height, rng.uniform(0.3, 0.7) * width])[:, None, None]
    lesion = np.hypot(y, x) < 0.13 * height * (1 + 0.2 * np.sin(3 * np.arctan2(y, x)))
    level = 20 * np.log10(speckle(rng, size, grain) + 1e-3) + 6 * layers - 14 * depth - 15 * lesion
    return np.clip(np.maximum(105 + 4.25 * level, (5 + 12 * depth**2) * speckle(rng, size, grain)), 0, 255)


def contrast(rng, size, kind):
    """Noise that grows with depth, and perfused tissue where it is amber, (H, W, 3)."""
    height = size[0]
    grain = max(1, height / 450)
    depth = np.linspace(0, 1, height)[:, None]
    if kind == "black":
        return np.zeros((*size, 3))
    value = speckle(rng, size, grain) * (4 + (26 if kind == "amber" else 8) * depth**2)
    if kind == "amber":
        perfused = ndimage.gaussian_filter((field(rng, size, height / 6) > -0.3).astype(float), 3)
        value = value + perfused * speckle(rng, size, grain) ** 1.5 * 70
    tint = {"amber": AMBER, "dark": np.array([1, 0.8, 0.6]), "dark grey": np.ones(3)}[kind]
    return np.clip(value[..., None] * tint, 0, 255)


def sector(size):
    """What a curved probe shows: 70 degrees between two arcs, (H, W) bool."""
    height, width = size
    half = np.deg2rad(35)
    outer = width / 2 / np.sin(half)
    apex = height - outer
    y, x = np.mgrid[:height, :width] + 0.5 - np.array([apex, width / 2])[:, None, None]
    radius = np.hypot(y, x)
    inner = max(-apex / np.cos(half), 0.12 * outer)
    return (radius <= outer) & (radius >= inner) & (np.abs(np.arctan2(x, y)) <= half)


def draw(layout: Layout, seed: int = 0) -> Frame:
    """A frame of that layout; another seed, another patient."""
    rng = np.random.default_rng(seed)
    height, width = layout.size
    shape = (
        layout.header + height + layout.footer,
        2 * layout.margin + 2 * width + layout.gap + layout.text,
    )
    corners = [(layout.header, layout.margin), (layout.header, layout.margin + width + layout.gap)]
    places = dict(zip(("contrast", "bmode"), corners[:: 1 if layout.side == "left" else -1], strict=True))
    visible = sector(layout.size) if layout.sector else np.ones(layout.size, bool)
    image = np.full((*shape, 3), layout.background, float)
    for name, (top, left) in places.items():
        panel = (
            bmode(rng, layout.size)[..., None]
            if name == "bmode"
            else contrast(rng, layout.size, layout.contrast)
        )
        np.copyto(image[top : top + height, left : left + width], panel, where=visible[..., None])

    picture = Image.fromarray(image.astype(np.uint8))
    _furnish(ImageDraw.Draw(picture), layout, places, shape)
    if layout.jpeg:
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=layout.jpeg)
        picture = Image.open(stream)
    ys, xs = np.nonzero(visible)
    boxes = {
        name: (top + int(ys.min()), left + int(xs.min()), int(np.ptp(ys)) + 1, int(np.ptp(xs)) + 1)
        for name, (top, left) in places.items()
    }
    return Frame(np.array(picture).transpose(2, 0, 1), boxes["contrast"], boxes["bmode"])


def _furnish(pen, layout, places, shape):
    height, width = layout.size
    letters = max(9, height // 25)
    font = ImageFont.load_default(letters)
    if layout.header:
        pen.text((layout.margin + 3, 1), HEADER, (230, 230, 230), font)
        pen.ellipse([shape[1] - 40, 2, shape[1] - 20, 22], (20, 60, 200))
    if layout.header > 2 * letters + 8:
        pen.text((layout.margin + 3, letters + 4), "Abdomen CEUS", (255, 255, 0), font)
    if layout.footer:
        pen.text((layout.margin, shape[0] - layout.footer + 4), "GN 54  DR 65  12 cm", (200, 200, 200), font)
    for row in range(12 if layout.text else 0):
        at = shape[1] - layout.text + 6, layout.header + 6 + row * letters * 3 // 2
        pen.text(at, f"Gain {row}%", (220, 220, 220), font)
    for name, (top, left) in places.items():
        for depth in range(6 if layout.ruler else 0):
            y, x = top + height * depth // 6 + 3, left + width - 12
            pen.rectangle([x, y, x + 5 + 3 * (depth % 2), y + 1], (255, 255, 255))
            pen.text((x + 2, y + 2), str(depth), (255, 255, 255), font)
        if layout.logo:
            pen.ellipse([left + 2, top + 2, left + 22, top + 22], (60, 80, 170))
            pen.text((left + 7, top + 4), "P", (230, 230, 240), font)
        for row in range(100 if layout.bar else 0):
            x, shade = left + width + (3 if layout.bar == "outside" else -16), 200 - 2 * row
            tint = AMBER if name == "contrast" else np.ones(3)
            pen.line([x, top + 10 + row, x + 12, top + 10 + row], tuple((shade * tint).astype(int)))
    top, left = places["contrast"]
    if layout.line:
        pen.rectangle([left - 1, top - 1, left + width, top + height], outline=(180, 142, 124))
    if layout.label:
        y, x = places["bmode"][0] + height // 3, places["bmode"][1] + width // 3
        pen.rectangle([x, y, x + width // 5, y + height // 5], outline=(0, 40, 255), width=3)
        pen.rectangle([x, y - 24, x + width // 2, y], (0, 40, 255))
        pen.text((x + 2, y - 22), "lesion 0.91", (255, 255, 255), ImageFont.load_default(20))

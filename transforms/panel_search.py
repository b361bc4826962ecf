"""Find the two panels of a contrast-enhanced ultrasound frame.

A scanner shows the contrast image and the B-mode image beside each other, at the same size. Which side is
which differs between vendors, and headers, rulers, colour bars, logos and margins lie around and on them.
What tells an image from all of these is its grain: speckle varies a little from each pixel to the next, along
rows and along columns. Letters and lines vary too much, colour bars along columns only, margins not at all.

The B-mode panel is the largest region of grey grain. The contrast panel has its size, its shape and its rows,
so that only its column is to be found: where this shape catches most of the remaining grain. Where there is
too little of it, as before the bubbles arrive, it is where what both panels show alike (borders, rulers,
colour bars, logos) coincides. The contrast image is amber, or else much darker than the B-mode image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from monai.utils import convert_to_numpy
from scipy import ndimage

from .errors import ImageError

__all__ = ["PanelError", "Panels", "find_panels"]

Box = tuple[int, int, int, int]  # top, left, height, width, in pixels

# Steps between neighbours, in grey levels of 255: compression leaves fewer than 3 on black and fewer than 3 %
# on a colour bar; at the edge of a letter there are more than 80.
GRAIN, GRAIN_SHARE, LETTER = 3, 0.03, 80
TISSUE, NOISE = 8, 3  # least brightness of a B-mode image, and of a contrast image before the bubbles arrive
SURE = 0.5


class PanelError(ImageError):
    """The panels of a frame cannot be told for sure, or are not as given; the message says what to do."""


class Panels(NamedTuple):
    """The two panels of a frame.

    Attributes:
        contrast: (top, left, height, width) in pixels.
        bmode: the same of the B-mode panel; of the same height and width.
        sure: from 0.5, just sure enough, to 1, see `find_panels`; 1 where the boxes were given.
    """

    contrast: Box
    bmode: Box
    sure: float = 1.0


def find_panels(frame: np.ndarray | torch.Tensor) -> Panels:
    """Find the contrast and the B-mode panel of a frame that shows both beside each other.

    How sure it is, is the least of these figures, each scaled so that 0.5 is the least that is accepted:

    - where the contrast panel lies, by the grain: 1 less the number of columns that would catch as much of it
      (99.7 %) over 4 % of the panel's width, and not more than the share of the panel with grain over 0.4;
    - where it lies, by what coincides, only where the grain does not say it: twice the share by which the
      best column is better than any more than 3 pixels from it, and not more than the sum of the edges that
      coincide over 40 a row;
    - which it is: how much more of its light is amber, (R - B) / max(R, G, B), over 0.3, or 1 less its
      brightness relative to that of the B-mode panel over 0.8, whichever says more.

    Args:
        frame: (C, H, W), rows first, with 1 channel (grey), 3 (RGB) or 4 (RGBA, whose opacity is ignored), of
            any scale. The pixelwise maximum of some frames of a clip shows more than one frame.

    Returns:
        The boxes, without what is drawn around the images; right to about 2 pixels where they are rectangles
        and to about 3 % of their size where they are sectors, whose tips fade. A label that is drawn across
        the narrow end of a sector cuts it off, and strong compression (JPEG quality 75) may add rows of text
        that touch an image.

    Raises:
        PanelError: there are no such panels, or it is not sure enough.
        ValueError: the frame has another shape.
    """
    rgb = _rgb(frame)
    value = rgb.max(0)
    grey = np.clip(rgb.min(0) - np.maximum(rgb[0] - rgb[2], 0), 0, None)
    steps = [_steps(value, axis) for axis in (0, 1)]
    weak, strong = np.minimum(*steps), np.maximum(*steps)
    grain = (weak >= np.maximum(GRAIN, GRAIN_SHARE * value)) & (strong <= LETTER)
    flat = value[strong == 0].astype(np.int64)
    background = int(np.bincount(flat).argmax()) if flat.size else 0

    # Windows run along columns, so that a gap of one column between the panels stays open.
    window = max(7, len(value) // 48 | 1)
    grain = ndimage.uniform_filter1d(grain.astype(np.float32), window, axis=0) >= 0.25
    tissue = _solid(grain & (_level(grey - background, window) >= TISSUE))
    bmode, shape = _bmode(tissue, grey, np.abs(value - background), strong)
    left, placed = _place(bmode, shape, grain, _level(value - background, window), _edges(value))
    if placed < SURE:
        raise _unsure(
            f"one of {bmode[3]}x{bmode[2]} (width x height) and the other's place {placed:.2f} sure"
        )
    contrast = (bmode[0], left, bmode[2], bmode[3])
    told = _told_apart(*(_crop(rgb, box) * _crop(shape, bmode) for box in (contrast, bmode)))
    if told < SURE:
        raise _unsure(f"two, of which one is amber or much darker than the other {told:.2f} sure")
    return Panels(contrast, bmode, round(min(placed, told), 3))


def _rgb(frame: np.ndarray | torch.Tensor) -> np.ndarray:
    """float32 (3, H, W); the brightest value of the frame is 255."""
    array = np.asarray(convert_to_numpy(frame), np.float32)
    if array.ndim != 3 or len(array) not in (1, 3, 4) or min(array.shape[1:]) < 32:
        raise ValueError(
            "expected a frame of shape (C, H, W) with 1, 3 or 4 channels and at least 32x32 pixels, found "
            f"{array.shape}; load it channel first"
        )
    array = np.broadcast_to(array[:3], (3, *array.shape[1:]))
    return array * (255 / max(float(array.max()), 1e-6))


def _unsure(found: str) -> PanelError:
    return PanelError(
        f"expected a contrast and a B-mode panel of equal size side by side, at least {SURE} sure, found "
        f"{found}; give both in panels.json: "
        '{"contrast": [top, left, height, width], "bmode": [top, left, height, width]}'
    )


def _steps(image: np.ndarray, axis: int) -> np.ndarray:
    """The larger of the steps to both neighbours along an axis."""
    step = np.abs(np.diff(image, axis=axis))
    return np.maximum(*(np.insert(step, where, 0, axis=axis) for where in (0, step.shape[axis])))


def _level(image: np.ndarray, window: int) -> np.ndarray:
    """How bright it is about a pixel; a median, which text on black leaves dark, and edges where they are."""
    return ndimage.median_filter(np.abs(image).astype(np.uint8), (window, 1))


def _solid(grain: np.ndarray) -> np.ndarray:
    """The regions without those that are narrow, such as text."""
    size = max(15, len(grain) // 24 | 1)
    core = grain & (ndimage.uniform_filter(grain.astype(np.float32), size) >= 0.5)
    return ndimage.binary_propagation(core, mask=grain & ndimage.binary_dilation(core, iterations=size))


def _extent(count: np.ndarray, least: float) -> tuple[int, int]:
    """Where a profile of pixel counts begins and ends: `least`, and a quarter of what comes within 5 more."""

    def begin(count: np.ndarray) -> int:
        ahead = ndimage.maximum_filter1d(count, 6, origin=-3, mode="constant")
        return int(((count >= least) & (count >= ahead / 4)).argmax())

    return begin(count), len(count) - begin(count[::-1])


def _bmode(
    tissue: np.ndarray, grey: np.ndarray, bright: np.ndarray, steps: np.ndarray
) -> tuple[Box, np.ndarray]:
    """The box of the B-mode panel, and the shape of its image within it as a mask of the frame, (H, W) bool.

    Args:
        tissue: where there is grey grain, (H, W) bool.
        grey: how bright it is there.
        bright: how far every pixel is from the background.
        steps: and how far from its neighbours.
    """
    labels, number = ndimage.label(tissue)
    if not number:
        raise _unsure("no grey one")
    light = ndimage.sum_labels(grey, labels, np.arange(1, number + 1))
    columns = np.array([(part[1].start, part[1].stop) for part in ndimage.find_objects(labels)])
    first, last = columns[light.argmax()]
    # A dark layer or a label's box may cut the image in two; colour bars and logos are narrower than 12 %.
    wide = (columns[:, 1] - columns[:, 0] >= 0.12 * (last - first)) & (columns[:, 0] >= first - 3)
    image = np.isin(labels, 1 + np.flatnonzero(wide & (columns[:, 1] <= last + 3)))
    # The windows cost a sector its tips: grow into what is as bright and not flat.
    like = (bright >= max(TISSUE, 0.3 * np.median(grey[image]))) & (steps >= GRAIN)
    image |= ndimage.binary_dilation(image, np.ones((3, 3)), 3) & like

    left, right = _bmode_columns(image, grey)
    image[:, :left] = image[:, right:] = False
    rows = image.sum(1)
    bands, _ = ndimage.label((bright[:, left:right] >= TISSUE).sum(1) >= 0.015 * (right - left))
    lit = bands == 1 + np.argmax(ndimage.sum_labels(rows, bands, np.arange(1, bands.max() + 1)))
    top, bottom = _extent(rows * lit, max(3, 0.006 * (right - left)))  # a blank row parts it from a header
    image[:top] = image[bottom:] = False
    filled = np.maximum.accumulate(image, 1) & np.maximum.accumulate(image[:, ::-1], 1)[:, ::-1]
    return (top, left, bottom - top, right - left), filled


def _bmode_columns(image: np.ndarray, grey: np.ndarray) -> tuple[int, int]:
    """First column of the B-mode image and the one after its last, without a darker image that touches."""
    typical = np.array(
        [np.percentile(row[on], 80) if on.any() else 0 for row, on in zip(grey, image, strict=True)]
    )
    count = (image & (grey >= 0.4 * typical[:, None])).sum(0)
    left, right = _extent(image.sum(0), 3)
    lit = left + np.flatnonzero(count[left:right] >= 0.4 * np.percentile(count[left:right], 75))
    first, last = int(lit[0]), int(lit[-1]) + 1
    # Shade and the tips of a sector begin gradually, the other panel does not.
    before, after = min(4, first - left), min(4, right - last)
    if count[first - before : first].sum() < 0.5 * count[first : first + before].sum():
        left = first
    if count[last : last + after].sum() < 0.5 * count[last - after : last].sum():
        right = last
    return left, right


def _place(
    bmode: Box, shape: np.ndarray, grain: np.ndarray, level: np.ndarray, edges: np.ndarray
) -> tuple[int, float]:
    """The first column of the other panel, which is like `bmode`, and how sure that is.

    Args:
        bmode: its box.
        shape: of its image, (H, W) bool.
        grain: where there is grain, (H, W) bool.
        level: how bright it is there, over the background.
        edges: as `_edges` gives them.
    """
    top, left, height, width = bmode
    size = 2 * grain.shape[1]
    starts = np.arange(grain.shape[1] - width + 1)
    starts = starts[np.abs(starts - left) >= width - 3]  # compression may make an image wider by so much
    if not starts.size:
        return 0, 0.0
    other = _crop(grain & (level >= NOISE), (top, 0, height, size))
    other[:, left : left + width] = False
    if other.any():
        other &= level[top : top + height] >= 0.2 * np.median(level[top : top + height][other])
    shape = shape[top : top + height]
    far, near = (np.fft.rfft(mask.astype(np.float32), size, axis=1) for mask in (_solid(other), shape))
    caught = np.fft.irfft((far * near.conj()).sum(0), size)[starts - left] / shape.sum()
    most = float(caught.max())
    same = starts[caught >= 0.997 * most]
    sure = min(1 - (same[-1] - same[0]) / (0.04 * width), most / 0.4, 1.0)
    if sure >= SURE:
        return int(same[0] + same[-1]) // 2, float(sure)
    starts = starts[caught >= 0.9 * most]
    alike = _coincidence(bmode, edges, starts)
    best = int(alike.argmax())
    rest = alike[np.abs(starts - starts[best]) > 3].max(initial=0)
    return int(starts[best]), float(min(2 - 2 * rest / max(alike[best], 1), alike[best] / (40 * height), 1.0))


def _edges(value: np.ndarray) -> np.ndarray:
    """Vertical edges with their sign, averaged over 5 rows: lines, letters and bars survive it, grain not."""
    edges = ndimage.uniform_filter1d(ndimage.convolve1d(value, [1, 0, -1], axis=1), 5, axis=0)
    return np.sign(edges) * np.clip(np.abs(edges) - 5, 0, 60)


def _coincidence(bmode: Box, edges: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """How strong the edges are that coincide, of one sign, with the panel laid over each of these columns."""
    top, left, height, width = bmode
    margin = height // 30  # rulers begin a little above the image and stand a little beside it
    far = np.pad(edges[max(0, top - margin) : top + height + margin], ((0, 0), (width, width)))
    near = far[:, left - margin + width : left + margin + 2 * width].copy()
    far[:, left - 3 + width : left + 3 + 2 * width] = 0
    windows = (far[:, start - margin + width : start + margin + 2 * width] for start in starts)
    return np.array([np.minimum(abs(near), abs(window))[near * window > 0].sum() for window in windows])


def _crop(image: np.ndarray, box: Box) -> np.ndarray:
    top, left, height, width = box
    return image[..., top : top + height, left : left + width]


def _told_apart(contrast: np.ndarray, bmode: np.ndarray) -> float:
    """How sure it is that the first of two images (3, H, W) is the contrast image."""

    def amber(image: np.ndarray) -> float:
        return float((image[0] - image[2]).clip(0).sum() / max(image.max(0).sum(), 1))

    darker = 1 - contrast.max(0).mean() / max(bmode.max(0).mean(), 1) / 0.8
    return float(np.clip(max((amber(contrast) - amber(bmode)) / 0.3, darker), 0, 1))

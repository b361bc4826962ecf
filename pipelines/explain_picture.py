"""The picture of `featherseg explain`: a row for each channel of the image, a column for each method."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from monai.transforms import Resize

from pipelines.files import written_whole
from pipelines.report import DPI, PREDICTION, outline

LONGEST = 512  # pixels of a panel's longer side
TOP = 99.5  # the percentile at which colours end, so that a few pixels do not make the others dark
DIM = 2.0  # how much darker the image lies under the colours
# From nothing through blue to white: none of them is the outline's orange, and more is lighter.
COLOURS = [(0, (0, 0.2, 0.5, 0)), (0.2, (0, 0.35, 0.7, 0.8)), (0.6, (0.34, 0.71, 0.91, 1)), (1, "white")]
HEAT = LinearSegmentedColormap.from_list("heat", COLOURS)


@dataclass
class Saliency:
    """What is drawn of one image or slice.

    Attributes:
        image: (C, X, Y), as the network is given it.
        prediction: bool, (X, Y).
        channels: the names of the C channels.
        gradients: heading -> |gradient|, (C, X, Y).
        shares: heading -> of each channel its share of the sum, 0 to 1.
        cam: a map of all channels together, (X, Y), or None.
        layer: whose features it is of.
        spacing: distance of pixel centres along X and Y.
        volume: a slice in RAS orientation, shown as seen from the feet; else X goes right and Y down.
    """

    image: np.ndarray
    prediction: np.ndarray
    channels: Sequence[str]
    gradients: dict[str, np.ndarray] = field(default_factory=dict)
    shares: dict[str, Sequence[float]] = field(default_factory=dict)
    cam: np.ndarray | None = None
    layer: str = ""
    spacing: Sequence[float] = (1.0, 1.0)
    volume: bool = False


def draw(found: Saliency, path: str | Path, title: str, note: str) -> None:
    """Draw the channels with the outline of the prediction, and over each what the methods found.

    The colours of a method mean the same in all of its rows, and end at the 99.5th percentile of them all.
    Large images are drawn smaller, each pixel as the mean of those that fall together.

    Args:
        found: what to draw.
        path: the PNG to write.
        title: a line above, which names no patient.
        note: a line below.

    Raises:
        DataError: the folder cannot be written to.
    """
    rows, columns = len(found.channels), 1 + len(found.gradients) + (found.cam is not None)
    across, down = (side * step for side, step in zip(found.prediction.shape, found.spacing, strict=True))
    inches = {1: 4.2, 2: 3.2}.get(rows, 2.6) / max(across, down)
    width, height = columns * (max(across * inches, 1.8) + 0.2), rows * (down * inches + 0.25)
    figure = Figure(figsize=(max(width, 6.5) + 0.3, height + 1.6), layout="constrained")
    ratios = [down * inches] * rows + [0.12]
    grid = figure.subplots(rows + 1, columns, squeeze=False, gridspec_kw={"height_ratios": ratios})
    _column(grid[:, 0], found, "image")
    for axes, name in zip(grid[:-1, 0], found.channels, strict=True):
        axes.text(-0.05, 0.5, name, transform=axes.transAxes, rotation=90, ha="right", va="center")
    for column, (heading, maps) in enumerate(found.gradients.items(), start=1):
        words = [f"{100 * share:.1f} % of the sum" if rows > 1 else "" for share in found.shares[heading]]
        _column(grid[:, column], found, heading, words, maps, "logits per unit of the image")
    if found.cam is not None:
        maps, words = np.broadcast_to(found.cam, found.image.shape), [""] * rows
        words[0] = "the same map in every row" if rows > 1 else ""
        if not found.cam.any():
            words[0] = "zero everywhere"
        label = textwrap.fill(f"features of {found.layer}, weighted", 34)
        _column(grid[:, -1], found, "Grad-CAM", words, maps, label)
    letters = int(13 * figure.get_figwidth())
    figure.suptitle(textwrap.fill(title, letters), fontsize=10)
    figure.supxlabel(textwrap.fill(note, int(1.2 * letters)), fontsize=8)
    FigureCanvasAgg(figure)
    with written_whole(path) as beside:
        figure.savefig(beside, dpi=DPI, format="png")


def _column(
    places: np.ndarray,
    found: Saliency,
    heading: str,
    words: Sequence[str] | None = None,
    maps: np.ndarray | None = None,
    label: str = "",
) -> None:
    """A column: the channels, under colours where there are any, and the scale of these below."""
    *panels, below = places
    scale = None if maps is None else _scale(maps)
    for row, axes in enumerate(panels):
        _show(axes, found, found.image[row], None if maps is None else maps[row], scale)
        text = words[row] if words else ""
        axes.set_title(f"{heading}\n{text}" if row == 0 else text, fontsize=9)
    if maps is None or not maps.any():  # no scale of nothing
        below.set_axis_off()
        return
    bar = below.figure.colorbar(panels[0].images[-1], cax=below, orientation="horizontal", extend="max")
    below.set_facecolor("black")
    below.tick_params(labelsize=7)
    bar.locator, bar.formatter = MaxNLocator(4), FuncFormatter(lambda value, _: f"{value:.3g}")
    bar.set_label(label, fontsize=8)


def _show(
    axes: Axes,
    found: Saliency,
    grey: np.ndarray,
    heat: np.ndarray | None = None,
    scale: Normalize | None = None,
) -> None:
    """One panel: the image with the prediction's outline, under colours where there are any."""
    low, high = float(grey.min()), float(grey.max())
    aspect = found.spacing[1] / found.spacing[0]
    brightest = high if heat is None else low + DIM * (high - low)
    axes.imshow(_small(grey).T, cmap="gray", vmin=low, vmax=brightest, aspect=aspect)
    if heat is not None:
        axes.imshow(_small(heat).T, cmap=HEAT, norm=scale, aspect=aspect)
    axes.set_axis_off()
    axes.autoscale(False)  # or an outline at the border would widen the view
    outline(axes, _small(found.prediction) > 0, PREDICTION)
    if found.volume:
        axes.invert_xaxis()
        axes.invert_yaxis()
        for mark, place in (("R", 0.04), ("L", 0.96)):
            text = {"color": "white", "fontsize": 8, "ha": "center", "va": "center"}
            axes.text(place, 0.5, mark, transform=axes.transAxes, **text)


def _small(values: np.ndarray) -> np.ndarray:
    """(X, Y) with at most `LONGEST` pixels a side, each the mean of those that fall together."""
    values = values.astype(np.float32)
    if max(values.shape) <= LONGEST:
        return values
    return Resize(LONGEST, size_mode="longest", mode="area")(values[None])[0].numpy()


def _scale(maps: np.ndarray) -> Normalize:
    top = float(np.percentile([_small(one) for one in maps], TOP))
    return Normalize(0, top or float(maps.max()) or 1.0)

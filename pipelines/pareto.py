"""A Pareto plot: what a network costs against what one gets for it, with the networks that none betters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from pipelines.errors import DataError
from pipelines.files import written_whole
from pipelines.report import PREDICTION, TRUTH

OURS, OTHERS = TRUTH, PREDICTION


@dataclass(frozen=True)
class Point:
    """A network: its title, its two figures, both the lower the better, and whether it is of this package."""

    title: str
    x: float
    y: float
    ours: bool = True


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other is as good as in both figures and better in one, by rising `x`."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, p.y)):
        if not best or point.y < best[-1].y:
            best.append(point)
    return best


def draw(
    panels: Mapping[str, Sequence[Point]], path: str | Path, x_label: str, y_label: str, title: str
) -> None:
    """Draw points on logarithmic axes, a panel for each group that can be compared, with its Pareto front.

    Points are numbered, and the titles stand in a list beside each panel, in the order of `y`.

    Args:
        panels: heading -> the points.
        path: the picture to write, `.png` or `.svg`.
        x_label: what `x` is.
        y_label: what `y` is.
        title: what all of it was measured on.

    Raises:
        DataError: there is nothing to draw.
    """
    if not any(panels.values()):
        raise DataError("expected networks to draw, found none with a figure; measure some first")
    columns = min(len(panels), 2)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(7.5 * columns, 4.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (heading, points) in zip(grid, panels.items(), strict=False):
        _panel(axes, heading, sorted(points, key=lambda p: p.y), x_label, y_label)
    for axes in grid[len(panels) :]:
        axes.remove()
    kinds = [("o", OURS, "of this package"), ("s", OTHERS, "of others")]
    handles = [Line2D([], [], marker=m, color=c, ls="", ms=9, label=label) for m, c, label in kinds]
    handles.append(Line2D([], [], color="0.4", ls="--", label="Pareto front"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, title=title)
    FigureCanvasAgg(figure)
    kind = Path(path).suffix[1:]
    # The same figures make the same file: no date, no random names. Text stays text, which can be searched.
    repeatable = {"svg.hashsalt": "featherseg", "svg.fonttype": "none"}
    metadata = {"Date": None} if kind == "svg" else None
    with matplotlib.rc_context(repeatable), written_whole(path) as beside:
        figure.savefig(beside, dpi=120, format=kind, metadata=metadata)


def _panel(axes: Axes, heading: str, points: Sequence[Point], x_label: str, y_label: str) -> None:
    line = front(points)
    xs, ys = [p.x for p in line], [p.y for p in line]
    axes.plot(xs, ys, "--", color="0.4", lw=1, drawstyle="steps-post", zorder=1)
    for number, point in enumerate(points, start=1):
        marker, colour = ("o", OURS) if point.ours else ("s", OTHERS)
        axes.plot(point.x, point.y, marker, color=colour, ms=13, mec="white", zorder=2)
        axes.annotate(str(number), (point.x, point.y), ha="center", va="center", fontsize=8, zorder=3)
    axes.set(title=heading, xlabel=x_label, ylabel=y_label, xscale="log", yscale="log")
    axes.margins(0.12)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
        axis.set_minor_locator(LogLocator(subs=()))
    axes.grid(alpha=0.3)
    key = "\n".join(f"{number:2d}  {point.title}" for number, point in enumerate(points, start=1))
    axes.annotate(key, (1.02, 1), xycoords="axes fraction", va="top", fontsize=8, annotation_clip=False)


def _plain(value: float) -> str:
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"

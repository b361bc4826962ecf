"""Pictures that compare networks: Dice against latency, training curves, and the table itself.

They are made for print, wide enough for their text, in colours that the colour-blind can tell apart.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from pipelines import pareto as plot
from pipelines.errors import DataError
from pipelines.files import written_whole

DPI = 200

# Okabe and Ito's palette (2008) without its yellow, which is too pale on white. Networks beyond the seventh
# start it again in another style of line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":", "-.")

PANELS = {"train_loss": "Training loss", "val_loss": "Validation loss", "val_dice": "Validation Dice"}


@dataclass(frozen=True)
class Point:
    """A network in the plot of Dice against latency.

    Attributes:
        label: its name.
        latency_ms: milliseconds an image; None or nan where it was not measured.
        dice: mean Dice.
        dice_std: standard deviation of the Dice; nan draws none.
        parameters: how many it has.
    """

    label: str
    latency_ms: float | None
    dice: float
    dice_std: float
    parameters: int


def pareto(points: Sequence[Point], path: str | Path) -> None:
    """Draw Dice against latency, with standard deviations and the networks that none betters in both.

    Colours tell the parameters. Points are numbered, and the names stand in a list beside them, best Dice
    first. The axis of latency is logarithmic where it spans more than a decade. Points without latency are
    left out, and a line below says which.

    Args:
        points: the networks.
        path: the PNG to write.

    Raises:
        DataError: no point has a latency.
    """
    drawn = [p for p in points if p.latency_ms is not None and math.isfinite(p.latency_ms)]
    if not drawn:
        raise DataError(
            f"expected networks with a latency to draw, found none of {len(points)}; measure it first"
        )
    drawn.sort(key=lambda p: -p.dice)
    x, y = [p.latency_ms for p in drawn], [p.dice for p in drawn]
    key = "\n".join(
        # A figure space is as wide as a digit.
        textwrap.fill(f"{number:\u2007>2}  {p.label}, {p.parameters:,}", 46, subsequent_indent=" " * 6)
        for number, p in enumerate(drawn, start=1)
    )
    figure = Figure(figsize=(7.5, max(4.6, 0.16 * key.count("\n") + 1)), layout="constrained")
    axes = figure.subplots()
    best = plot.front([plot.Point(p.label, p.latency_ms, -p.dice) for p in drawn])
    front = [p.x for p in best], [-p.y for p in best]
    axes.plot(*front, "--", color="0.4", lw=1, drawstyle="steps-post", zorder=1)
    spread = [p.dice_std for p in drawn]
    axes.errorbar(x, y, yerr=spread, fmt="none", ecolor="0.65", lw=1, capsize=2, zorder=2)
    sizes = [p.parameters for p in drawn]
    # A colour bar needs two ends, where all have as many parameters too.
    ends = (min(sizes), max(sizes)) if min(sizes) < max(sizes) else (min(sizes) / 2, min(sizes) * 2)
    dots = axes.scatter(
        x, y, c=sizes, norm=LogNorm(*ends), cmap="viridis", s=60, ec="black", lw=0.6, zorder=3
    )
    bar = figure.colorbar(dots, ax=axes, label="parameters", pad=0.01, aspect=30)
    _plain_ticks(bar.ax.yaxis, lambda value, _: f"{value / 1e6:g} M")
    axes.set(xlabel="latency (ms an image)", ylabel="Dice")
    axes.margins(0.08)
    if max(x) > 10 * min(x):
        axes.set_xscale("log")
        _plain_ticks(axes.xaxis, lambda value, _: f"{value:g}")
    axes.grid(alpha=0.3)
    axes.set_title("dashed: Pareto front; bars: standard deviation", loc="left", fontsize=8)
    figure.text(1.01, 0.98, f"Networks, parameters\n{key}", va="top", fontsize=8)
    if left_out := [p.label for p in points if p not in drawn]:
        note = textwrap.fill(f"Without latency, left out: {'; '.join(left_out)}.", 130)
        figure.text(0, -0.01, note, va="top", fontsize=8)
    FigureCanvasAgg(figure).draw()
    _number(axes, x, y, spread)
    save(figure, path)


def curves(histories: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], path: str | Path) -> None:
    """Draw training loss, validation Dice, and validation loss where there is one, a line a network.

    A line is the mean over the runs of a network, the band around it reaches from their least to their
    largest value. Where not all of its runs got as far, the line is pale and the mean that of the others.

    Args:
        histories: label -> a history for each run -> a mapping for each epoch, with `epoch` and any of
            `train_loss`, `val_loss` and `val_dice`; a value may be missing, None or nan.
        path: the PNG to write.

    Raises:
        DataError: none of the runs has any of these values.
    """
    found = {
        name: {label: many for label, runs in histories.items() if (many := _by_epoch(runs, name))}
        for name in PANELS
    }
    found = {name: groups for name, groups in found.items() if groups}
    if not found:
        raise DataError("expected epochs with a loss or a Dice to draw, found none; train for an epoch first")
    styles = {
        label: {"color": COLOURS[n % len(COLOURS)], "ls": STYLES[n // len(COLOURS) % len(STYLES)]}
        for n, label in enumerate(histories)
    }
    names = [
        textwrap.fill(f"{label} ({len(runs)} {'run' if len(runs) == 1 else 'runs'})", 46)
        for label, runs in histories.items()
    ]
    columns = min(len(names), 3)
    lines = math.ceil(sum(1 + name.count("\n") for name in names) / columns) + 1
    width = max(4.6 * len(found), 3.2 * columns)
    figure = Figure(figsize=(width, 3.6 + 0.17 * lines), layout="constrained")
    pale, band = False, min(0.15, 0.6 / len(histories))  # many bands of more would hide the lines
    for axes, (name, groups) in zip(
        figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True
    ):
        for label, epochs in groups.items():
            pale |= _curve(axes, epochs, len(histories[label]), styles[label], band)
        axes.set(title=PANELS[name], xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    handles = [Line2D([], [], lw=1.6, **styles[label]) for label in histories]
    place = {"loc": "outside lower center", "ncols": columns, "handlelength": 3.2}
    figure.legend(handles, names, frameon=False, fontsize=8, **place)
    note = "line: mean of the runs; band: least to largest"
    figure.suptitle(f"{note}; pale: not all runs got as far" if pale else note, fontsize=8)
    save(figure, path)


def table(heading: Sequence[str], rows: Sequence[Sequence[str]], path: str | Path) -> None:
    """Draw a table as a picture as wide as its text needs, the first column to the left, others to the right.

    Args:
        heading: the columns' names.
        rows: text, as many cells each as there are columns.
        path: the PNG to write.

    Raises:
        DataError: there are no rows.
    """
    if not rows:
        raise DataError("expected a table with rows to draw, found none; compare at least one run")
    figure = Figure(figsize=(1, 1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    drawn = axes.table(cellText=[list(row) for row in rows], colLabels=list(heading), loc="center", edges="")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(9)
    drawn.auto_set_column_width(range(len(heading)))
    for (row, column), cell in drawn.get_celld().items():
        longest = max(len(str(line[column])) for line in (heading, *rows))
        # A share of the width; so it is about a letter everywhere, where the text is not but a letter itself.
        cell.PAD = 1.2 / max(longest, 5)
        cell.set_text_props(ha="left" if column == 0 else "right", weight="bold" if row == 0 else "normal")
        cell.set_height(0.22)  # inches, the axes being one
        cell.visible_edges = "BT" if row == 0 else "B" if row == len(rows) else ""
        cell.set_linewidth(0.8)
    save(figure, path)


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as a PNG for print, whole or not at all, with all that is written beside its axes."""
    FigureCanvasAgg(figure)
    with written_whole(path) as beside:
        figure.savefig(beside, dpi=DPI, format="png", bbox_inches="tight", pad_inches=0.08)


def _plain_ticks(axis, text) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(text))
    axis.set_minor_formatter(NullFormatter())


def _number(axes: Axes, x: Sequence[float], y: Sequence[float], spread: Sequence[float]) -> None:
    """Write the number of each point next to it, where it hides no point, bar or other number."""
    scale = axes.figure.dpi / 72  # pixels a point
    places = axes.transData.transform(np.column_stack([x, y]))
    taken = [Bbox.from_bounds(px - 4.5 * scale, py - 4.5 * scale, 9 * scale, 9 * scale) for px, py in places]
    for one, value, std in zip(x, y, spread, strict=True):
        if math.isfinite(std):
            (left, low), (_, high) = axes.transData.transform([(one, value - std), (one, value + std)])
            taken.append(Bbox.from_extents(left - scale, low, left + scale, high))
    for number, (px, py) in enumerate(places, start=1):
        width, height = 5.5 * len(str(number)) * scale, 8 * scale
        options = [
            (radius * math.cos(angle), radius * math.sin(angle))
            for radius in range(11, 83, 4)
            for angle in np.radians([45, 135, -45, -135, 0, 180, 90, -90, 22, 158, -22, -158])
        ]
        boxes = [
            Bbox.from_bounds(px + dx * scale - width / 2, py + dy * scale - height / 2, width, height)
            for dx, dy in options
        ]
        free = [n for n, box in enumerate(boxes) if not box.count_overlaps(taken)]
        chosen = free[0] if free else 0
        taken.append(boxes[chosen])
        far = math.hypot(*options[chosen]) > 11
        axes.annotate(
            str(number),
            (x[number - 1], y[number - 1]),
            xytext=options[chosen],
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            bbox={"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 0.5},
            arrowprops={"arrowstyle": "-", "lw": 0.5, "shrinkA": 0, "shrinkB": 4} if far else None,
            zorder=4,
        )


def _by_epoch(runs: Sequence[Sequence[Mapping[str, float]]], name: str) -> dict[int, list[float]]:
    """Epoch -> what the runs have there."""
    values: dict[int, list[float]] = {}
    for epoch in (epoch for run in runs for epoch in run):
        value = epoch.get(name)
        if value is not None and math.isfinite(value):
            values.setdefault(int(epoch["epoch"]), []).append(value)
    return dict(sorted(values.items()))


def _curve(
    axes: Axes, epochs: Mapping[int, Sequence[float]], runs: int, style: Mapping[str, str], band: float
) -> bool:
    """Draw a network's line and band; whether a part of it is pale."""
    where, values = list(epochs), list(epochs.values())
    mean = np.array([np.mean(one) for one in values])
    full = np.array([len(one) == runs for one in values])
    marker = "o" if len(where) == 1 else None  # a line through one epoch is not there
    axes.plot(where, np.where(full, mean, np.nan), lw=1.6, marker=marker, ms=4, **style)
    if not full.all():
        axes.plot(where, mean, lw=1.6, marker=marker, ms=4, alpha=0.3, **style)
    ends = [min(one) for one in values], [max(one) for one in values]
    axes.fill_between(where, *ends, color=style["color"], alpha=band, lw=0)
    return not full.all()

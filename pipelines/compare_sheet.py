"""A sheet of cases: how each network drew the lesions that are hardest, middling and easiest for all."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipelines import report
from pipelines.compare_pictures import save
from pipelines.datasets.checking import natural
from pipelines.errors import DataError
from pipelines.shown import Shown

MOST = 12  # networks on a sheet; more would not fit a page

# Inches: the width of a picture and of the column of names; the room below a picture, above and below all.
CELL, NAMES, CAPTION, HEAD, FOOT, GAP = 1.25, 2.1, 0.2, 0.4, 0.45, 0.06
TALLEST = 1.0  # times its width; a taller picture is made narrower


def choose(dice: Mapping[str, float]) -> dict[str, str]:
    """The two worst, two median and two best cases, by rising Dice; one of each of fewer than six cases.

    Args:
        dice: case -> Dice; of equal ones the case whose name comes first counts as worse.

    Returns:
        case -> "worst", "median" or "best"; each case once.
    """
    order = sorted(sorted(dice, key=natural), key=dice.__getitem__)
    many = 2 if len(order) >= 6 else 1
    middle = (len(order) - many) // 2
    parts = {"worst": order[:many], "best": order[-many:], "median": order[middle : middle + many]}
    kinds: dict[str, str] = {}
    for kind, part in parts.items():
        for case in part:
            kinds.setdefault(case, kind)
    return {case: kinds[case] for case in order if case in kinds}


def sheet(
    shown: Mapping[str, Mapping[str, Shown]], dice: Mapping[str, Mapping[str, float]], path: str | Path
) -> None:
    """Draw a row for each network and a column for each of up to six cases, with the outlines of both masks.

    The cases are the worst, median and best by their mean Dice over all networks. They are numbered in the
    natural order of the names of all that have a Dice, so that no name is in the picture. Of more than 12
    networks the first 12 are drawn, and a line below says so.

    Args:
        shown: label -> case -> its picture. Networks without any are left out.
        dice: label -> case -> Dice, such as the mean over seeds, written below each picture.
        path: the PNG to write.

    Raises:
        DataError: there is no case of which every network has a picture and a Dice.
    """
    labels = [label for label in dice if shown.get(label)]
    every = sorted({case for label in labels for case in dice[label]}, key=natural)
    common = [case for case in every if all(case in shown[one] and case in dice[one] for one in labels)]
    if not common:
        raise DataError(
            f"expected cases that each network has a picture and a Dice of, found none for {len(labels)} "
            "networks; evaluate their runs again"
        )
    kinds = choose({case: float(np.mean([dice[label][case] for label in labels])) for case in common})
    drawn = labels[:MOST]
    shapes = np.array([shown[drawn[0]][case].truth.shape for case in kinds])
    tall = CELL * min(TALLEST, float((shapes[:, 0] / shapes[:, 1]).max()))
    width = NAMES + len(kinds) * (CELL + GAP)
    height = HEAD + len(drawn) * (tall + CAPTION) + FOOT
    figure = Figure(figsize=(width, height))
    # One for all cells, in inches from the upper left corner: axes of its own for each would take most of the
    # time of a full sheet. They begin right of the names, so that what short names leave free is cut off.
    axes = figure.add_axes((NAMES / width, 0, 1 - NAMES / width, 1), xlim=(NAMES, width), ylim=(height, 0))
    axes.set_axis_off()
    lines: dict[str, list[np.ndarray]] = {report.TRUTH: [], report.PREDICTION: []}
    for row, label in enumerate(drawn):
        top = HEAD + row * (tall + CAPTION)
        name = textwrap.fill(label, 30, max_lines=6, placeholder=" ...")
        axes.text(NAMES - 0.1, top + tall / 2, name, ha="right", va="center", fontsize=8)
        for column, case in enumerate(kinds):
            place = _Place(NAMES + column * (CELL + GAP), top, tall)
            place.draw(axes, shown[label][case], f"{dice[label][case]:.3f}", lines)
    for colour, some in lines.items():
        axes.add_collection(LineCollection(some, colors=[colour], linewidths=report.LINE), autolim=False)
    for column, (case, kind) in enumerate(kinds.items()):
        middle = NAMES + column * (CELL + GAP) + CELL / 2
        heading = f"{kind}\ncase {every.index(case) + 1}"
        axes.text(middle, HEAD - 0.08, heading, ha="center", va="bottom", fontsize=8)
    figure.legend(
        handles=[
            Line2D([], [], color=report.TRUTH, label="truth"),
            Line2D([], [], color=report.PREDICTION, label="prediction"),
        ],
        loc="lower center",
        ncols=2,
        frameon=False,
        fontsize=8,
        title=f"the first {MOST} of {len(labels)} networks" if len(labels) > MOST else None,
        title_fontsize=8,
    )
    save(figure, path)


@dataclass(frozen=True)
class _Place:
    """Where a picture goes: left and top of its cell and the height of that, in inches."""

    left: float
    top: float
    tall: float

    def draw(self, axes: Axes, case: Shown, caption: str, lines: dict[str, list[np.ndarray]]) -> None:
        """Draw picture and caption, and add its outlines to those of their colour."""
        rows, columns = case.truth.shape
        pixel = min(CELL / columns, self.tall / rows)
        left = self.left + (CELL - columns * pixel) / 2
        extent = (left, left + columns * pixel, self.top + rows * pixel, self.top)
        axes.imshow(
            case.image, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=extent, aspect="auto"
        )
        for colour, mask in ((report.TRUTH, case.truth), (report.PREDICTION, case.prediction)):
            # The middle of the first pixel is half a pixel from the picture's corner.
            lines[colour] += [(left, self.top) + (line + 0.5) * pixel for line in report.borders(mask.T)]
        # Right below a picture, also one that is less tall than others.
        below = self.top + rows * pixel + 0.03
        axes.text(left + columns * pixel / 2, below, caption, ha="center", va="top", fontsize=8)

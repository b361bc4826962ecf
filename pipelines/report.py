"""Pictures and a page of a run: overlays, training curves, a chart of the cases, and `report.md`.

Everything takes plain arrays and mappings. Figures are matplotlib objects drawn off screen, so that nothing
here depends on a display or on what else draws in the process.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from skimage.measure import find_contours

from pipelines.errors import DataError
from pipelines.files import written_whole
from pipelines.scoring import binary_mask, cells, headings, mean_and_spread, note

# Of the palette of Okabe and Ito (2008), which the colour-blind can tell apart too; both stand out on grey.
TRUTH, PREDICTION, ALARM = "#56B4E9", "#E69F00", "#D55E00"

DPI = 120
LINE = 1.2  # points, the width of an outline

PANELS = (
    ("Loss", ("loss",), "linear"),
    ("Overlap", ("dice", "iou"), "linear"),
    ("HD95", ("hd95",), "linear"),
    ("Learning rate", ("lr",), "log"),
)
"""What is drawn together: the panel's title, how the names of its quantities end, and the scale."""

POLICY = """\
Means count every case. A missed case has a lesion, but no voxel of it was found; a false alarm is a
prediction where there is no lesion: Dice and IoU are 0 for both. Where there is neither lesion nor prediction
they are 1. HD95 is the image's diagonal if just one of the two masks is empty, 0 if both are. A lesion is
found if one voxel of it is predicted; a predicted component that holds no voxel of a lesion is false."""


def overlay(
    image: Any,
    truth: Any | None,
    prediction: Any | None,
    path: str | Path,
    title: str | None = None,
    spacing: Sequence[float] | None = None,
    numbers: Sequence[int] | None = None,
    colour: bool = False,
) -> None:
    """Draw the outlines of the true and the predicted lesions over the image.

    A volume is shown in its `telling_slices`. It lies in RAS orientation (axis 0 to the patient's right,
    axis 1 to the front) and is shown as radiologists do, seen from the feet: the patient's right on the
    left, marked R and L. A picture of two axes has no such marks and is shown upright, axis 0 to the right
    and axis 1 down, as MONAI reads it; a single slice of a volume is therefore passed as (X, Y, 1).

    Args:
        image: grey values in display range, (X, Y, Z) or (X, Y); the least is black and the largest white. A
            picture in colour is (X, Y, 3), uint8, and shown as it is.
        truth, prediction: binary masks of the same shape, or None.
        path: the PNG to write.
        title: a line above. It is burned into the picture, so it names no patient: `case 3`.
        spacing: distance of voxel centres along each axis, in mm or pixels; 1 if not given.
        numbers: where the slices of `image` were in the volume that they were taken from; all are shown.
        colour: the image is in colour.

    Raises:
        DataError: the shapes differ, a mask is not binary, or the image has not 2 or 3 axes.
    """
    image = np.asarray(image)
    if image.ndim not in (2, 3):
        raise DataError(
            f"expected an image with 2 or 3 axes, found the shape {image.shape}; choose a channel"
        )
    shape, volume = image.shape[: 2 if colour else None], image.ndim == 3 and not colour
    spacing = [1.0] * len(shape) if spacing is None else [float(step) for step in spacing]
    masks = [
        (name, colour, binary_mask(mask, f"the {name}"))
        for name, colour, mask in (("truth", TRUTH, truth), ("prediction", PREDICTION, prediction))
        if mask is not None
    ]
    for name, _, mask in masks:
        if mask.shape != shape:
            raise DataError(f"expected a {name} of the image's shape {shape}, found {mask.shape}")

    slices: list[Any] = [...]
    if volume:
        telling = telling_slices([mask for _, _, mask in masks], image.shape)
        slices = telling if numbers is None else list(range(len(numbers)))
    width, height = image.shape[0] * spacing[0], image.shape[1] * spacing[1]
    # A picture is never shown with fewer pixels than it has.
    inches = (4.5 if volume else max(4.5, max(shape) / DPI / 0.9)) / max(width, height)
    figure = Figure(
        figsize=(max(width * inches, 2.5) * len(slices), height * inches + 0.9), layout="constrained"
    )
    for axes, index in zip(figure.subplots(1, len(slices), squeeze=False)[0], slices, strict=True):
        _show(axes, image if index is ... else image[..., index], volume, spacing[1] / spacing[0])
        axes.images[0].set_clim(float(image.min()), float(image.max()))
        for _, colour, mask in masks:
            outline(axes, mask if index is ... else mask[..., index], colour)
        if index is not ... and image.shape[-1] > 1:
            axes.set_title(f"slice {index if numbers is None else numbers[index]}", fontsize=9)
    if masks:
        lines = [Line2D([], [], color=colour, label=name) for name, colour, _ in masks]
        figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11)
    _save(figure, path)


def telling_slices(masks: Sequence[np.ndarray], shape: Sequence[int]) -> list[int]:
    """The slices of a volume that say most: up to three indices along the last axis.

    The one with most truth (most prediction where there is no truth, the middle one where there is neither),
    and on either side the one of that tissue nearest to halfway to its end.

    Args:
        masks: binary masks, the truth first.
        shape: of the volume.
    """
    for mask in masks:
        areas = np.count_nonzero(mask, axis=(0, 1))
        if areas.any():
            best, filled = int(areas.argmax()), np.flatnonzero(areas)
            # Between two lesions there may be slices that show neither.
            sides = [side for side in (filled[filled < best], filled[filled > best]) if side.size]
            ends = [side[np.abs(side - best).argmax()] for side in sides]
            halfway = [
                int(side[np.abs(side - (end + best) / 2).argmin()])
                for side, end in zip(sides, ends, strict=True)
            ]
            return sorted([best, *halfway])
    return [shape[-1] // 2]


def curves(history: Sequence[Mapping[str, float]], path: str | Path) -> None:
    """Draw how a training went: loss, Dice and IoU, HD95, learning rate, and each other quantity by itself.

    Args:
        history: one mapping an epoch, with `epoch` and any of `train_loss`, `val_dice`, `val_iou`,
            `val_hd95`, `lr`, ...; an epoch may lack a quantity or have None or nan for it.
        path: the PNG to write.

    Raises:
        DataError: there is no epoch, or nothing but `epoch` in it.
    """
    names = list(dict.fromkeys(name for epoch in history for name in epoch if name != "epoch"))
    if not names:
        raise DataError("expected epochs with quantities to draw, found none; train for an epoch first")
    panels = []
    for heading, endings, scale in PANELS:
        shown = [name for name in names if name.split("_")[-1] in endings]
        names = [name for name in names if name not in shown]
        panels += [(heading, shown, scale)] if shown else []
    panels += [(name, [name], "linear") for name in names]

    columns = min(len(panels), 2)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5 * columns, 3.2 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (heading, shown, scale) in zip(grid, panels, strict=False):
        for name in shown:
            values = [(epoch["epoch"], epoch[name]) for epoch in history if _is_number(epoch.get(name))]
            # A point for each of a few epochs: a line through one is not there.
            axes.plot(*zip(*values, strict=True), marker="o" if len(values) < 30 else None, ms=4, label=name)
        axes.set(title=heading, xlabel="epoch", yscale=scale)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(history[0]["epoch"] - 0.5, history[-1]["epoch"] + 0.5)
        axes.grid(alpha=0.3)
        if heading == "Overlap":
            axes.set_ylim(0, 1)
        if len(shown) > 1 or shown[0] != heading:
            axes.legend(frameon=False, fontsize=9)
    for axes in grid[len(panels) :]:
        axes.remove()
    _save(figure, path)


def case_chart(rows: Iterable[Mapping[str, Any]], path: str | Path) -> None:
    """Draw the Dice of each case as a bar, best first, with missed and false-alarm cases marked.

    Cases are numbered from 1 in the order of `rows`, as in the report's table; their names stay out.

    Args:
        rows: mappings with the scores of `score_case`.
        path: the PNG to write.

    Raises:
        DataError: there are no rows.
    """
    cases = sorted(enumerate(rows, start=1), key=lambda case: -case[1]["dice"])
    if not cases:
        raise DataError("expected cases to draw, found none; check the split")
    dice = [row["dice"] for _, row in cases]
    figure = Figure(figsize=(min(max(5.0, 0.25 * len(cases) + 1.5), 14), 3.6), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(cases)), dice, color=TRUTH)
    axes.axhline(float(np.mean(dice)), color="0.3", lw=1, ls="--", label=f"mean {np.mean(dice):.3f}")
    for kind, marker in (("missed", "x"), ("false alarm", "^")):
        where = [place for place, (_, row) in enumerate(cases) if note(row) == kind]
        if where:
            label = f"{kind} ({len(where)})"
            axes.plot(where, [0.02] * len(where), marker, color=ALARM, label=label, clip_on=False)
    if len(cases) <= 60:
        axes.set_xticks(range(len(cases)), [str(number) for number, _ in cases], fontsize=8)
    else:
        axes.set_xticks([])
    axes.set(xlabel=f"case ({len(cases)})", ylabel="Dice", ylim=(0, 1), xlim=(-0.8, len(cases) - 0.2))
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    _save(figure, path)


def write_report(
    folder: str | Path,
    title: str,
    summary: Mapping[str, float],
    rows: Iterable[Mapping[str, Any]],
    facts: Mapping[str, Any],
    pictures: Mapping[str, str | Path],
    unit: str = "mm",
) -> Path:
    """Write `report.md`: what was run, what came out, case by case, and the pictures.

    Args:
        folder: where to; made if absent.
        title: the heading.
        summary: what `scoring.summarize` made of `rows`.
        rows: mappings with `case` and the scores of `score_case`.
        facts: what a reader needs to repeat it (network, parameters, data fingerprint, seed, checkpoint).
        pictures: caption to file; the page refers to them by a path relative to `folder`.
        unit: the unit of `hd95`.

    Returns:
        The path of the page.

    Raises:
        DataError: a picture is not there, or the folder cannot be written to.
    """
    folder = Path(folder)
    counts = [f"{summary[key]} of {summary['cases']}" for key in ("cases_missed", "cases_false_alarm")]
    scores = [
        ["Dice", mean_and_spread(summary, "dice"), f"{summary['dice_global']:.3f}", *counts],
        ["IoU", mean_and_spread(summary, "iou"), f"{summary['iou_global']:.3f}", *counts],
        [f"HD95 ({unit})", mean_and_spread(summary, "hd95"), "", *counts],
    ]
    lesions = [summary[key] for key in ("lesions", "lesions_found", "lesions_missed", "lesions_false")]
    lesions += [f"{summary['lesion_sensitivity']:.3f}", f"{summary['lesions_false_per_case']:.2f}"]
    point = "pixel" if unit == "pixels" else "voxel"
    parts = [
        f"# {_cell(title)}",
        markdown(["", ""], facts.items()),
        "## Scores",
        markdown(["", "mean ± standard deviation", f"all {point}s", "missed", "false alarm"], scores),
        markdown(["lesions", "found", "missed", "false", "sensitivity", "false per case"], [lesions]),
        POLICY.replace("voxel", point),
        *(f"![{_cell(caption)}]({_link(file, folder)})\n\n{caption}" for caption, file in pictures.items()),
        "## Cases",
        markdown(
            ["no.", *headings(unit)], ([number, *cells(row)] for number, row in enumerate(rows, start=1))
        ),
    ]
    path = folder / "report.md"
    with written_whole(path) as beside:
        beside.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def _show(axes: Axes, image: np.ndarray, radiological: bool, aspect: float) -> None:
    axes.imshow(image.swapaxes(0, 1), cmap="gray", origin="upper", aspect=aspect, interpolation="nearest")
    axes.set_axis_off()
    axes.autoscale(False)  # or an outline at the border would widen the view
    if radiological:
        axes.invert_xaxis()
        axes.invert_yaxis()
        for mark, place in (("R", 0.03), ("L", 0.97)):
            style = {
                "color": "white",
                "fontsize": 9,
                "bbox": {"facecolor": "black", "alpha": 0.5, "lw": 0, "pad": 1},
            }
            axes.text(place, 0.5, mark, transform=axes.transAxes, ha="center", va="center", **style)


def outline(axes: Axes, mask: np.ndarray, colour: str) -> None:
    axes.add_collection(LineCollection(borders(mask), colors=[colour], linewidths=LINE), autolim=False)


def borders(mask: np.ndarray) -> list[np.ndarray]:
    """The outlines of a mask (X, Y) as closed lines of points (N, 2); none of an empty one.

    Lines alone take a fraction of the time of matplotlib's contours, which counts where a sheet has many.
    """
    if not mask.any():
        return []
    # A border of nothing closes the outline of a lesion that touches the image's.
    return [line - 1 for line in find_contours(np.pad(mask, 1), 0.5, fully_connected="high")]


def _is_number(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _save(figure: Figure, path: str | Path) -> None:
    FigureCanvasAgg(figure)
    with written_whole(path) as beside:
        figure.savefig(beside, dpi=DPI, format="png")


def _cell(text: Any) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def markdown(heading: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _link(picture: str | Path, folder: Path) -> str:
    if not Path(picture).is_file():
        raise DataError(f"expected a picture at {picture}, found none; draw it before the report")
    return quote(Path(os.path.relpath(picture, folder)).as_posix())

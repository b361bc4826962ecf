"""The report of a comparison: tables for reading and for programs, pictures, and a page with all of them."""

from __future__ import annotations

import base64
import contextlib
import csv
import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines import compare, compare_latency, compare_pictures, compare_sheet
from pipelines.compare_groups import Group
from pipelines.compare_table import TESTS, against_best, explained, plain, show, table
from pipelines.files import written_whole
from pipelines.report import markdown
from pipelines.runs import ROOT
from pipelines.significance import Comparison

DRAWN = 12  # rows that a picture can still be read with

PICTURES = {
    "pareto.png": "Dice against latency",
    "curves.png": "Training curves",
    "cases.png": "Best, median and worst cases: truth and prediction",
    "table.png": "The table",
}

LITTLE = ("pareto.png", "table.png")  # of which little has to be sent to another process that draws them

CSS = """\
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto;
       padding: 0 1rem; max-width: 80rem; }
h1, h2 { line-height: 1.2; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #222; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
img { max-width: 100%; }
figure { margin: 2rem 0; }
"""


@dataclass(frozen=True)
class Extras:
    """What a report may have beside its tables.

    Attributes:
        latencies: label -> milliseconds.
        setting: what these were measured on.
        histories: label -> run -> epoch -> metrics, as `compare_pictures.curves` draws them.
        shown: label -> case -> picture, as `compare_sheet.sheet` draws them.
        dice: the same labels and cases -> Dice of what is drawn.
        notes: lines on what was left out, joined, or differs.
    """

    latencies: Mapping[str, float] = field(default_factory=dict)
    setting: str = ""
    histories: Mapping[str, Any] = field(default_factory=dict)
    shown: Mapping[str, Any] = field(default_factory=dict)
    dice: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def write(
    groups: Sequence[Group],
    comparisons: Sequence[Comparison],
    folder: str | Path,
    experiment: str,
    grid: bool = False,
    extras: Extras | None = None,
    pool: Executor | None = None,
) -> Path:
    """Write tables (Markdown, CSV), pictures, and `report.html`, which needs no other file.

    Pictures show the first 12 groups. One that there is nothing for is not drawn, and an old one removed.

    Args:
        groups: best first.
        comparisons: of any pairs of them.
        folder: made where it is not there.
        experiment: its name.
        grid: whether the scores are those on the network's grid.
        extras: latencies, curves, pictures of cases, and notes.
        pool: of another process, which draws some of the pictures meanwhile.

    Returns:
        The page.

    Raises:
        DataError: the folder cannot be written to.
    """
    folder, extras = Path(folder), extras or Extras()
    heading, rows = table(groups, extras.latencies)
    _csv(folder / "table.csv", [plain(group, extras.latencies) for group in groups])
    by_case = (
        {"network": group.label, "case": case, "dice": dice}
        for group in groups
        for case, dice in group.case_dice.items()
    )
    _csv(folder / "cases.csv", by_case)
    fields = list(Comparison.__dataclass_fields__)
    _csv(folder / "comparisons.csv", [asdict(one) for one in comparisons], fields)
    notes = list(extras.notes)
    if len(groups) > DRAWN:
        notes.append(f"pictures show the best {DRAWN} of {len(groups)} rows")
    drawn = _draw(groups[:DRAWN], folder, heading, rows[:DRAWN], extras, pool)
    tests = against_best(groups, comparisons)
    title = f"{experiment}: networks compared"
    meaning = explained(grid, extras.setting)
    parts = [f"# {title}", markdown(heading, rows), meaning]
    if tests[1]:
        parts += [f"## Against {groups[0].label}", markdown(*tests), TESTS]
    if notes:
        parts += ["## Left out, joined, different", "\n".join(f"- {note}" for note in notes)]
    parts += [f"![{PICTURES[name]}]({name})" for name in drawn if name != "table.png"]
    _text(folder / "table.md", "\n\n".join(parts) + "\n")
    body = [f"<h1>{html.escape(title)}</h1>", _html(heading, rows), f"<p>{html.escape(meaning)}</p>"]
    if tests[1]:
        body += [f"<h2>Against {html.escape(groups[0].label)}</h2>", _html(*tests)]
        body += [f"<p>{html.escape(TESTS)}</p>"]
    if notes:
        lines = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
        body += ["<h2>Left out, joined, different</h2>", f"<ul>{lines}</ul>"]
    body += [_figure(folder / name, PICTURES[name]) for name in drawn if name != "table.png"]
    page = "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>',
            f"<style>{CSS}</style></head><body>",
            *body,
            "</body></html>\n",
        ]
    )
    _text(folder / "report.html", page)
    return folder / "report.html"


def _draw(
    groups: Sequence[Group],
    folder: Path,
    heading: list[str],
    rows: list[list[str]],
    extras: Extras,
    pool: Executor | None,
) -> list[str]:
    """Draw what there is something for; the names of the pictures."""
    spreads = {group.label: group.spread("dice") for group in groups}
    points = [
        compare_pictures.Point(
            group.label,
            extras.latencies[group.label],
            spreads[group.label].mean,
            math.nan if spreads[group.label].std is None else spreads[group.label].std,
            group.parameters,
        )
        for group in groups
        if group.label in extras.latencies and group.parameters
    ]
    drawings: dict[str, tuple[Callable[..., None], *tuple[Any, ...]] | None] = {
        "pareto.png": (compare_pictures.pareto, points) if points else None,
        "curves.png": (compare_pictures.curves, extras.histories)
        if any(any(runs) for runs in extras.histories.values())
        else None,
        "cases.png": (compare_sheet.sheet, extras.shown, extras.dice) if extras.shown else None,
        "table.png": (compare_pictures.table, heading, rows),
    }
    here, there = [], []
    for name, drawing in drawings.items():
        if drawing is None:
            (folder / name).unlink(missing_ok=True)
        elif pool and name in LITTLE:
            there.append(pool.submit(*drawing, folder / name))
        else:
            here.append((*drawing, folder / name))
    for draw, *what in here:
        draw(*what)
    for one in there:
        one.result()
    return [name for name, drawing in drawings.items() if drawing]


def _csv(path: Path, rows: Iterable[Mapping[str, Any]], fields: Sequence[str] | None = None) -> None:
    rows = list(rows)
    with written_whole(path) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields or list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _text(path: Path, text: str) -> None:
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def _html(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in heading)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _figure(picture: Path, caption: str) -> str:
    data = base64.b64encode(picture.read_bytes()).decode()
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def make(
    experiment: str,
    folder: str | Path | None = None,
    uri: str | None = None,
    grid: bool = False,
    across: Sequence[str] = (),
    latency: bool = True,
    falling: Sequence[str] = (),
    console: Console | None = None,
) -> Path:
    """Read an experiment, compare its networks, print and write all of it.

    Args:
        experiment: its name in MLflow.
        folder: where the report goes; by default `runs/EXPERIMENT/comparison`.
        uri, across, grid: as of `compare.read`.
        latency: measure it, or take it from `latency.json` of the folder.
        falling: labels of networks whose Dice is predicted to fall in this order, to test that.
        console: to print to.

    Returns:
        The page.

    Raises:
        DataError: as `compare.read`, or the folder cannot be written to.
    """
    folder = ROOT / experiment / "comparison" if folder is None else Path(folder)
    known = folder / "latency.json"
    measured = compare_latency.Latencies({}, "", [])
    process = compare_latency.process(needed=not known.is_file()) if latency else contextlib.nullcontext()
    console = console or Console(width=max(Console().width, 170), highlight=False)
    with process as pool:
        reading = compare.read(experiment, uri, across, grid)
        comparisons, notes = compare.paired_tests(reading.groups)
        notes = [*reading.notes, *notes]
        if falling:
            notes.insert(0, compare.falling(reading.groups, falling))
        best = reading.groups[:DRAWN]
        shown, dice, unseen = compare.pictures(reading, best)
        curves = compare.curves(reading, best)
        if pool:  # while nothing else is done here
            measured = compare_latency.measure(reading, known, pool)
        notes += [*measured.notes, *unseen]
        extras = Extras(measured.of, measured.setting, curves, shown, dice, notes)
        show(reading.groups, comparisons, console, extras.latencies, explained(grid, extras.setting))
        for note in notes:
            console.print(f"- {note}", markup=False)
        page = write(reading.groups, comparisons, folder, experiment, grid, extras, pool)
    console.print(f"report: {page}", markup=False, soft_wrap=True)
    return page

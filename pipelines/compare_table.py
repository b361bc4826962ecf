"""A comparison as text: the table, the tests against its best row, what both mean, and their print."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.compare_groups import RESPECTS, Group, Spread
from pipelines.significance import Comparison


def table(groups: Sequence[Group], latencies: Mapping[str, float]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of the table, as text, in the order of the groups.

    IoU of slices is told where all runs have it, as those of a bundle whose paper reports it.
    """
    units = sorted({group.unit for group in groups})
    sliced = all("slice_iou" in row for group in groups for run in group.runs for row in run.rows)
    heading = ["network", "parameters", "GMACs", "seeds x folds", "Dice", f"HD95 ({' or '.join(units)})"]
    heading += ["IoU of slices"] * sliced
    heading += ["missed cases", "missed lesions", "false lesions a case", "false alarms"]
    heading += ["latency, ms", "images/s", "training, min"]
    rows = []
    for group in groups:
        counts = group.counts
        unit = f" {group.unit}" if len(units) > 1 else ""
        rows.append(
            [
                group.label,
                _number(group.parameters, ",d"),
                _number(group.gmacs, ",.2f"),
                _seeds_and_folds(group),
                _spread(group.spread("dice"), 3),
                _spread(group.spread("hd95"), 1) + unit,
                *[_spread(group.spread("slice_iou"), 3) for _ in range(sliced)],
                f"{counts['cases_missed']}/{counts['cases']}",
                f"{counts['lesions_missed']}/{counts['lesions']}",
                f"{counts['lesions_false_per_case']:.2f}",
                f"{counts['cases_false_alarm']}",
                _number(latencies.get(group.label), ".1f"),
                _number(group.images_per_second, ".1f"),
                _number(group.minutes, ".1f"),
            ]
        )
    return heading, rows


def _seeds_and_folds(group: Group) -> str:
    seeds, folds = len(group.by_seed), len(group.folds)
    whole = f"{seeds} x {folds}"
    return whole if len(group.runs) == seeds * folds else f"{len(group.runs)} of {whole}"


def _spread(spread: Spread, digits: int) -> str:
    mean, deviation = (_number(one, f".{digits}f") for one in (spread.mean, spread.std))
    return mean if deviation == "-" else f"{mean} ± {deviation}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None or not math.isfinite(value) else format(value, form)


def against_best(
    groups: Sequence[Group], comparisons: Iterable[Comparison]
) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of the tests of the first group against the others, in their order."""
    best = groups[0].label
    found = {}
    for one in comparisons:
        if one.first == best:
            found[one.second] = one.difference, one.low, one.high, one
        elif one.second == best:
            found[one.first] = -one.difference, -one.high, -one.low, one
    rows = []
    for label in (group.label for group in groups if group.label in found):
        difference, low, high, one = found[label]
        interval = f"{_number(difference, '.3f')} ({_number(low, '.3f')} to {_number(high, '.3f')})"
        p = "< 0.001" if one.p_holm < 0.001 else _number(one.p_holm, ".3f")
        rows.append([label, str(one.patients), interval, p, one.words])
    return ["network", "patients", "Dice below the best (95 % interval)", "p (Holm)", "in words"], rows


def explained(grid: bool, setting: str) -> str:
    """What the table's figures are."""
    where = "on the network's grid" if grid else "in their original geometry"
    text = (
        f"Held-out cases {where}. Dice and HD95: mean over cases, then mean ± sample standard deviation "
        "(n - 1) over seeds, of each the cases of all its folds together; no ± where there is one seed. "
        "Missed, false: counted over all runs, so a case counts once a seed. Images a second: of training, "
        "in the last epoch. Training: from start to end of a run."
    )
    return text + (f" Latency: {setting}." if setting else "")


TESTS = (
    "How much lower the Dice is than that of the best network on the same patients (mean over seeds and a "
    "patient's cases), and its interval: made so of each of many samples of such patients, 95 % would hold "
    "the true one (bootstrap; not corrected for the number of comparisons). p: the chance of a difference at "
    "least so consistent if both were equally good (Wilcoxon signed-rank), corrected for the number of "
    'comparisons (Holm); "no difference shown" is not proof that there is none. All pairs: comparisons.csv.'
)


def plain(group: Group, latencies: Mapping[str, float]) -> dict[str, Any]:
    """A row of `table.csv`: numbers as they are, nothing where there is none."""
    row: dict[str, Any] = {"label": group.label, "network": group.network, "overlay": group.overlay}
    row |= {respect: " ".join(group.values[respect]) for respect in RESPECTS}
    row |= {"parameters": group.parameters, "gmacs": group.gmacs, "runs": len(group.runs)}
    row |= {"seeds": len(group.by_seed), "folds": len(group.folds), "unit": group.unit}
    for score in ("dice", "iou", "hd95"):
        spread = group.spread(score)
        row |= {f"{score}_mean": spread.mean, f"{score}_std": spread.std}
    counts = ("cases", "cases_missed", "cases_false_alarm", "lesions", "lesions_missed", "lesions_false")
    row |= {count: group.counts[count] for count in (*counts, "lesions_false_per_case")}
    row |= {"latency_ms": latencies.get(group.label), "images_per_second": group.images_per_second}
    return row | {"training_minutes": group.minutes}


def show(
    groups: Sequence[Group],
    comparisons: Sequence[Comparison],
    console: Console,
    latencies: Mapping[str, float],
    explanation: str,
) -> None:
    """Print the table and the tests against its best row, each with what it means."""
    tables = {"": table(groups, latencies)}
    tests = against_best(groups, comparisons)
    if tests[1]:
        tables[f"Against {groups[0].label}, the best"] = tests
    for (title, (heading, rows)), below in zip(tables.items(), (explanation, TESTS), strict=False):
        if title:
            console.print(title, markup=False)
        drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for place, name in enumerate(heading):
            # A heading may take a line a word, a cell has but one.
            widest = max(map(len, [*name.split(), *(row[place] for row in rows)]))
            side = "right" if place else "left"
            drawn.add_column(name, justify=side, width=min(widest, 40), overflow="fold", vertical="bottom")
        for row in rows:
            drawn.add_row(*map(Text, row))  # a label may hold [brackets], which would be markup
        console.print(drawn)
        console.print(below + "\n", markup=False, soft_wrap=False)

"""Runs of an experiment side by side: read from MLflow, tested in pairs, and what a report shows of them."""

from __future__ import annotations

from collections import ChainMap, Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines import compare_mlflow, scoring, shown, significance
from pipelines.compare_groups import RESPECTS, TAGS, Group, ScoredRun, grouped, named, runs_in_words
from pipelines.errors import DataError
from pipelines.tracking import place

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CURVES = ("train_loss", "val_loss", "val_dice")
"""Metrics of each epoch that are drawn."""


@dataclass(frozen=True)
class Reading:
    """What MLflow has of an experiment.

    Attributes:
        experiment: its name.
        groups: best Dice first.
        notes: lines on what was left out, joined, or differs.
        grid: whether the scores are those on the network's grid.
        client: that they were read with.
    """

    experiment: str
    groups: list[Group]
    notes: list[str]
    grid: bool
    client: MlflowClient


def read(experiment: str, uri: str | None = None, across: Sequence[str] = (), grid: bool = False) -> Reading:
    """Read the finished and evaluated runs of an experiment, and group them.

    Runs of one network and overlay that differ in one of `RESPECTS` are groups of their own, whose labels say
    in what they differ.

    Args:
        experiment: its name, which is the bundle's unless the runs were given another.
        uri: of the tracking store; by default the one that trainings use.
        across: those of `RESPECTS` that may differ within a group.
        grid: take the scores on the network's grid, instead of those in the original geometry.

    Raises:
        DataError: no such experiment, store or respect; or none of its runs can be compared.
    """
    for respect in across:
        if respect not in RESPECTS:
            raise DataError(f"expected --across with one of {', '.join(RESPECTS)}, found {respect!r}")
    client = compare_mlflow.connect(uri)
    found = compare_mlflow.runs(client, compare_mlflow.experiment(client, experiment).experiment_id)
    usable, notes = _usable(found, experiment, "test_grid_dice" if grid else "test_dice")
    table = f"evaluation/cases{'_on_grid' if grid else ''}.csv"
    rows = compare_mlflow.contents(client, usable, table, scoring.read_cases)
    scored = [ScoredRun(run, rows[run.info.run_id]) for run in usable if rows.get(run.info.run_id)]
    if lacking := len(usable) - len(scored):
        notes.append(
            f"{runs_in_words(lacking)} without {table} in MLflow left out: send it with `featherseg track "
            "FOLDER`, or evaluate again"
        )
    if not scored:
        reasons = "; ".join(notes) or "no run at all; train one first"
        raise DataError(
            f"expected finished and evaluated runs of {experiment} in {place(client.tracking_uri)}, found "
            f"none: {reasons}"
        )
    groups, more = grouped(scored, tuple(across))
    groups.sort(key=lambda group: (-group.spread("dice").mean, group.label))
    return Reading(experiment, groups, notes + more, grid, client)


def falling(groups: Sequence[Group], labels: Sequence[str]) -> str:
    """In words, whether the Dice falls from network to network in an order that was predicted.

    Args:
        groups: those that were read.
        labels: of three or more of them, the one predicted best first.

    Raises:
        DataError: no group of such a label, or as `significance.trend`.
    """
    known = {group.label: group for group in groups}
    for label in labels:
        if label not in known:
            raise DataError(f"expected --falling with one of {'; '.join(known)}, found {label!r}")
    p = significance.trend([known[label].patient_dice for label in labels])
    shown = "shown" if p < significance.LEVEL else "not shown"
    words = f"p {p:.2g}" if p >= 0.001 else "p < 0.001"
    return (
        f"Dice falls in the order {', '.join(labels)}: {shown} ({words}, Page's test for a trend, one-sided)"
    )


def _usable(found: Sequence[Run], experiment: str, metric: str) -> tuple[list[Run], list[str]]:
    """The runs that can be compared, and a line on each kind of those that cannot."""
    usable, unscored, others, untagged = [], [], Counter(), 0
    for run in found:
        if any(not run.data.tags.get(tag) for tag in TAGS):
            untagged += 1
        elif run.info.status != "FINISHED":
            others[{"RUNNING": "running", "SCHEDULED": "waiting"}.get(run.info.status, "failed")] += 1
        elif metric not in run.data.metrics:
            unscored.append(run)
        else:
            usable.append(run)
    notes = [f"{runs_in_words(number)} {status}, left out" for status, number in sorted(others.items())]
    if unscored:
        tags = unscored[0].data.tags
        elsewhere = f" --experiment {experiment}" if experiment != tags["bundle"] else ""
        notes.append(
            f"{runs_in_words(len(unscored))} finished but not evaluated, left out; evaluate each with the "
            "options that it was trained with: python -m monai.bundle run evaluating --config_file "
            f"\"['bundles/{tags['bundle']}/train.json','bundles/common/evaluate.json']\"{elsewhere} "
            f"--run_name {unscored[0].info.run_name}"
        )
    if untagged:
        notes.append(
            f"{runs_in_words(untagged)} of an earlier version, without the tags that tell what can be "
            "compared, left out; train again to compare"
        )
    return usable, notes


def paired_tests(groups: Sequence[Group], seed: int = 0) -> tuple[list[significance.Comparison], list[str]]:
    """Every pair of groups with the same cases of the same data, by each patient's mean Dice.

    Returns:
        The comparisons, and lines on which groups could not be tested.
    """
    together: dict[Any, list[Group]] = defaultdict(list)
    for group in groups:
        same = frozenset(group.case_dice), frozenset(group.patient_dice), group.values["data"]
        together[same].append(group)
    comparisons: list[significance.Comparison] = []
    for same in together.values():
        if len(same) > 1:
            comparisons += significance.compare_all({one.label: one.patient_dice for one in same}, seed=seed)
    unknown = [group.label for group in groups if not group.knows_patients]
    notes = []
    if unknown:
        notes.append(
            f"{named(unknown)}: evaluated without telling which cases are of one patient, so each counts "
            "as one; evaluate again"
        )
    if len(together) > 1:
        notes.append(
            "tested against each other were only rows with the same cases of the same data: "
            + "; ".join(named([one.label for one in same]) for same in together.values())
        )
    return comparisons, notes


def curves(reading: Reading, groups: Sequence[Group]) -> dict[str, list[list[dict[str, float]]]]:
    """Label -> run -> epoch -> its metrics out of `CURVES`."""
    runs = [run.run for group in groups for run in group.runs]
    keys = [key for key in CURVES if any(key in run.data.metrics for run in runs)]
    found = compare_mlflow.histories(reading.client, [run.info.run_id for run in runs], keys)
    return {group.label: [found[run.run.info.run_id] for run in group.runs] for group in groups}


def pictures(
    reading: Reading, groups: Sequence[Group]
) -> tuple[dict[str, Mapping[str, shown.Shown]], dict[str, dict[str, float]], list[str]]:
    """What can be shown of the cases of each group's first seed.

    Returns:
        Label -> case -> picture; the same labels -> case -> Dice with that seed; lines on groups without
        pictures, or none of a case that those before have, too.
    """
    first = {group.label: next(iter(group.by_seed.values())) for group in groups}
    runs = [run.run for some in first.values() for run in some]
    found = compare_mlflow.contents(reading.client, runs, "evaluation/shown.npz", shown.Album)
    seen: dict[str, Mapping[str, shown.Shown]] = {}
    dice: dict[str, dict[str, float]] = {}
    common: set[tuple[Any, str]] = set()  # with their data, since a name may stand for another image there
    for group in groups:
        some = first[group.label]
        cases = ChainMap(*(found.get(run.run.info.run_id, {}) for run in reversed(some)))
        known = {(group.values["data"], case) for case in cases}
        if known and (not common or known & common):
            common = known & common or known
            seen[group.label] = cases
            dice[group.label] = {row["case"]: row["dice"] for run in some for row in run.rows}
    unseen = [label for label in first if label not in seen]
    notes = [f"no pictures of cases that others have, too: {named(unseen)}"] if unseen else []
    return seen, dice, notes

"""Runs grouped by network and overlay over seeds and folds, and the figures of a group."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines import scoring
from pipelines.runs import MAY_CHANGE

if TYPE_CHECKING:
    from mlflow.entities import Run

Key = tuple[str, ...]
"""Network, overlay, and the values of the respects in which groups are kept apart."""

RESPECTS = ("data", "split", "code", "recipe", "device")
"""Tags in which runs of one group agree, unless they are joined on purpose."""

TAGS = ("bundle", "network", "overlay", "seed", "fold", *RESPECTS)

NOT_RECIPE = {
    *(MAY_CHANGE - {"amp"}),
    *("seed", "fold", "validation_fold", "experiment", "network", "GMACs", "cases", "dataset_fingerprint"),
    *("code_version", "torch", "monai", "python"),
}
"""Params that do not tell one recipe from another."""


@dataclass(frozen=True)
class Spread:
    """A mean, and the sample standard deviation (n - 1) over initialisations, None where there is but one."""

    mean: float
    std: float | None


@dataclass(frozen=True)
class ScoredRun:
    """A run as MLflow has it, and the rows of its table of cases."""

    run: Run
    rows: list[dict[str, Any]]

    @property
    def seed(self) -> str:
        return self.run.data.tags["seed"]

    @property
    def fold(self) -> str:
        return self.run.data.tags["fold"]


@dataclass(frozen=True)
class Group:
    """Runs of one network with one overlay, over seeds and folds.

    Attributes:
        label: what it is called, unlike that of any other group.
        network, overlay: as in the tags; "-" for no overlay.
        values: of each of `RESPECTS`, what its runs have: one value, or several where they were joined.
        runs: by seed and fold, each once.
    """

    label: str
    network: str
    overlay: str
    values: dict[str, tuple[str, ...]]
    runs: list[ScoredRun]

    @cached_property
    def by_seed(self) -> dict[str, list[ScoredRun]]:
        """Seed -> its runs, one a fold."""
        found = defaultdict(list)
        for run in self.runs:
            found[run.seed].append(run)
        return dict(found)

    @cached_property
    def folds(self) -> list[str]:
        return sorted({run.fold for run in self.runs})

    def spread(self, score: str) -> Spread:
        """A score of `scoring.SCORES` over initialisations; of each, the mean over the cases of its folds."""
        means = [np.mean([row[score] for run in runs for row in run.rows]) for runs in self.by_seed.values()]
        return Spread(float(np.mean(means)), float(np.std(means, ddof=1)) if len(means) > 1 else None)

    @cached_property
    def counts(self) -> dict[str, Any]:
        """`scoring.summarize` of the cases of all runs; a case counts once an initialisation."""
        return scoring.summarize([row for run in self.runs for row in run.rows])

    @cached_property
    def case_dice(self) -> dict[str, float]:
        """Case -> Dice, averaged over initialisations."""
        found = defaultdict(list)
        for run in self.runs:
            for row in run.rows:
                found[row["case"]].append(row["dice"])
        return {case: float(np.mean(values)) for case, values in found.items()}

    @cached_property
    def patient_dice(self) -> dict[str, float]:
        """Patient -> mean Dice of their cases, averaged over initialisations.

        Cases of one patient are no independent samples, which tests and intervals need. Patients are numbers
        within their fold; a case of an evaluation that does not tell its patient stands for one.
        """
        of = {
            row["case"]: f"{run.fold}:{row['patient']}" if "patient" in row else row["case"]
            for run in self.runs
            for row in run.rows
        }
        found = defaultdict(list)
        for case, dice in self.case_dice.items():
            found[of[case]].append(dice)
        return {patient: float(np.mean(values)) for patient, values in found.items()}

    @property
    def knows_patients(self) -> bool:
        """Whether every case tells its patient."""
        return all("patient" in row for run in self.runs for row in run.rows)

    def param(self, name: str) -> str | None:
        """A param as text; that of the first run where runs were joined."""
        return self.runs[0].run.data.params.get(name)

    @property
    def parameters(self) -> int | None:
        value = self.param("parameters")
        return None if value is None else int(value)

    @property
    def gmacs(self) -> float | None:
        value = self.param("GMACs")
        return None if value is None else float(value)

    @property
    def unit(self) -> str:
        """That of HD95."""
        return self.param("unit") or "mm"

    @property
    def images_per_second(self) -> float | None:
        """Of training, in the last epoch, mean over the runs that tell."""
        found = [run.run.data.metrics.get("images_per_second") for run in self.runs]
        return _mean(found)

    @property
    def minutes(self) -> float | None:
        """From the start of a training to its end, mean over runs."""
        infos = [run.run.info for run in self.runs]
        return _mean((info.end_time - info.start_time) / 60_000 for info in infos if info.end_time)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def grouped(scored: Sequence[ScoredRun], across: tuple[str, ...]) -> tuple[list[Group], list[str]]:
    """The groups, and lines on what was joined, done twice, or differs between them."""
    apart = [respect for respect in RESPECTS if respect not in across]
    found: dict[Key, list[ScoredRun]] = defaultdict(list)
    for run in scored:
        tags = run.run.data.tags
        found[tags["network"], tags["overlay"], *(tags[respect] for respect in apart)].append(run)
    labels = _labels(found, apart)
    groups, twice = [], 0
    for key, runs in found.items():
        newest: dict[tuple[str, str], ScoredRun] = {}
        for run in sorted(runs, key=lambda run: (run.run.info.start_time, run.run.info.run_id)):
            newest[run.seed, run.fold] = run
        twice += len(runs) - len(newest)
        kept = [newest[place] for place in sorted(newest)]
        values = {one: tuple(sorted({run.run.data.tags[one] for run in kept})) for one in RESPECTS}
        groups.append(Group(labels[key], key[0], key[1], values, kept))
    return groups, _notes(groups, across, twice)


def _notes(groups: Sequence[Group], across: Sequence[str], twice: int) -> list[str]:
    notes = []
    if twice:
        notes.append(
            f"{runs_in_words(twice)} left out: the same seed and fold ran again, and the newest counts"
        )
    for respect in across:
        joined = [one.label for one in groups if len(one.values[respect]) > 1]
        if joined:
            notes.append(f"joined on purpose though they differ in {respect}: the runs of {named(joined)}")
    for respect in ("data", "split", "code", "device"):  # the recipe names the network, so it always differs
        if len({one.values[respect] for one in groups}) > 1:
            notes.append(f"not all rows have the same {respect}: see that column of table.csv")
    uneven = [
        one.label
        for one in groups
        if any({run.fold for run in runs} != set(one.folds) for runs in one.by_seed.values())
    ]
    if uneven:
        notes.append(f"not every seed has every fold in {named(uneven)}: their ± is that of other cases, too")
    return notes


def runs_in_words(number: int) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} run{'s' if number != 1 else ''}"


def named(labels: Sequence[str]) -> str:
    """Labels in a line, of many only the first."""
    return ", ".join(labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")


def _labels(found: dict[Key, list[ScoredRun]], apart: Sequence[str]) -> dict[Key, str]:
    """A name for each group; where a network and overlay have several, with what differs between these."""
    alike: dict[Key, list[Key]] = defaultdict(list)
    for key in found:
        alike[key[:2]].append(key)
    labels: dict[Key, str] = {}
    for (network, overlay), keys in alike.items():
        name = network if overlay == "-" else f"{network}, {overlay}"
        words: dict[str, dict[str, str]] = {}  # respect -> value -> what the label says
        for place, respect in enumerate(apart, start=2):
            runs: dict[str, list[ScoredRun]] = defaultdict(list)
            for key in keys:
                runs[key[place]] += found[key]
            if len(runs) > 1:
                words[respect] = _recipes(runs) if respect == "recipe" else _digests(respect, runs)
        for key in keys:
            told = [words[one][value] for one, value in zip(apart, key[2:], strict=True) if one in words]
            label = ", ".join([name, *told])
            # "A, b" may be a network, or the network A with the overlay b.
            labels[key] = label if label not in labels.values() else f"{label} ({len(labels)})"
    return labels


def _digests(respect: str, values: Iterable[str]) -> dict[str, str]:
    return {value: f"{respect} {value if respect == 'device' else value[:6]}" for value in values}


def _recipes(runs: dict[str, list[ScoredRun]]) -> dict[str, str]:
    """Recipe -> `max_epochs=20`: the params, three at most, that are one in each recipe and not in all.

    Where they do not tell a recipe from the others, its digest does.
    """
    own: dict[str, dict[str, set[str]]] = {}
    names = {name for some in runs.values() for run in some for name in run.run.data.params} - NOT_RECIPE
    for recipe, some in runs.items():
        own[recipe] = {name: {run.run.data.params.get(name, "-") for run in some} for name in names}
    telling = [
        name
        for name in sorted(names)
        if all(len(values[name]) == 1 for values in own.values())
        and len(set.union(*(values[name] for values in own.values()))) > 1
    ]
    if len(telling) > 3:
        telling = []
    words = {
        recipe: ", ".join(f"{name}={next(iter(values[name]))}" for name in telling)
        for recipe, values in own.items()
    }
    times = Counter(words.values())
    digests = _digests("recipe", runs)
    return {
        recipe: text if text and times[text] == 1 else ", ".join(filter(None, [text, digests[recipe]]))
        for recipe, text in words.items()
    }

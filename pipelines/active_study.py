"""Whether a model learns more from the studies that it doubts: Dice after N annotated cases, beside chance.

python -m pipelines.active_study            # eight projects, two at a time: 40 minutes on two cores
python -m pipelines.active_study --seeds 2 --rounds 2 --out runs/try

It plays an annotation project. For each seed the phantom's patients are dealt anew: some test, some are
annotated at the start, the others wait. A network is trained on the annotated cases; then again and again a
few waiting cases get their label, and the network goes on learning from all that have one, as a training from
annotations does. One way gives the next labels to the cases that the network doubts most, the other to cases
drawn at random. Both begin with the same network, and have as many steps of training.

There are two lists of waiting cases. In that of the phantom one patient in twelve has no lesion, and all
others are much alike. In the other one three in four have none, as where nobody chose whom to scan.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.bundle import ConfigParser
from rich.console import Console
from rich.table import Table
from scipy import stats
from tqdm import tqdm

from pipelines import compare_pictures, datasets, machine, uncertainty
from pipelines.errors import DataError
from pipelines.files import read_json, write_json
from pipelines.slices import VolumeDataset

WAYS = CHANCE, DOUBT = "at random", "most doubtful"
COLOURS = {CHANCE: "0.45", DOUBT: "tab:orange"}
LISTS = {"as the phantom": 1 / 12, "most without a lesion": 3 / 4}  # the share that has none
TEST, WAITING, START, STEP = (22, 2), 24, 4, 2  # of those that test, with a lesion and without
FIRST_STEPS, FURTHER_STEPS, EPOCHS = 300, 100, 5
SETTING: dict[str, Any] = {
    "image_size": [64, 64],
    "batch_size": 16,
    "learning_rate": 0.003,
    "learning_rate_power": 0.9,
    "lesion_weight": 1.0,
    "num_workers": 0,
    "device": "cpu",
    "network_def": {
        "_target_": "monai.networks.nets.BasicUNet",
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": 1,
        "features": [8, 8, 16, 32, 64, 8],
    },
}


class Learner:
    """A network of the lits bundle that learns from a growing number of cases.

    Args:
        data: folder of the dataset.
        cache: folder of prepared slices.
        scratch: folder for what each training leaves.
        test: cases that the network is tested on after each training.
        seed: of weights, batches and augmentation.
    """

    def __init__(self, data: Path, cache: Path, scratch: Path, test: Sequence[dict], seed: int) -> None:
        self.data, self.cache, self.scratch = data, cache, scratch
        self.test, self.seed = list(test), seed
        self.weights: dict[str, torch.Tensor] | None = None
        self.trainings = 0
        self.parser: ConfigParser | None = None

    def copy(self, scratch: Path) -> Learner:
        """Another one that knows as much and goes on in a folder of its own."""
        other = Learner(self.data, self.cache, scratch, self.test, self.seed)
        other.weights, other.trainings, other.parser = self.weights, self.trainings, self.parser
        return other

    def learn(self, cases: Sequence[dict[str, Any]], steps: int) -> dict[str, float]:
        """Train on cases, from the weights so far; how the network is afterwards.

        Returns:
            The bundle's validation metrics over the test cases, on the network's grid.
        """
        self.trainings += 1
        parser = ConfigParser()
        parser.read_config("bundles/lits/train.json")
        parser.update(
            {
                **SETTING,
                "dataset_dir": str(self.data),
                "cache_dir": str(self.cache),
                "output_dir": str(self.scratch / str(self.trainings)),
                "cases": [*cases, *self.test],
                "split": [[one["case"] for one in group] for group in (self.test, cases)],
                "training_cases": list(cases),
                "validation_cases": self.test,
                "max_epochs": EPOCHS,
                "epoch_length": steps // EPOCHS,
                "val_interval": EPOCHS,  # the last epoch is kept: the test cases choose none
                "seed": self.seed + 1000 * self.trainings,
            }
        )
        with _quiet():
            parser.get_parsed_content("initialize")
            network = parser.get_parsed_content("network_def")
            if self.weights is not None:
                network.load_state_dict(self.weights)
            parser.get_parsed_content("run")
        self.weights = {key: value.detach().clone() for key, value in network.state_dict().items()}
        self.parser = parser
        return dict(parser.get_parsed_content("validate#evaluator").state.metrics)

    def doubts(self, cases: Sequence[dict[str, Any]]) -> list[float]:
        """How much the network doubts each case."""
        part = self.parser.get_parsed_content
        with _quiet():
            prepared = VolumeDataset(
                cases, part("preprocessing"), part("validate#preprocessing"), cache_dir=self.cache
            )
        network, inferer = part("network_def").eval(), part("validate#inferer")
        network.load_state_dict(self.weights)

        def infer(batch: torch.Tensor) -> torch.Tensor:
            return inferer(batch, network)

        volumes = (prepared[index]["image"] for index in range(len(prepared)))
        return [
            uncertainty.doubt(uncertainty.candidates(uncertainty.probabilities(volume, infer)))
            for volume in volumes
        ]


def deal(cases: Sequence[dict[str, Any]], seed: int, share: float) -> tuple[list, list, list]:
    """Patients who test, who are annotated at the start, all with a lesion, and who wait; shuffled.

    Args:
        cases: of the phantom, of which every fifth of twelve has no lesion.
        seed: of the shuffling.
        share: of the waiting ones who have no lesion.
    """
    dealt = sorted(cases, key=lambda one: int(one["case"].rpartition("-")[2]))
    none = [one for one in dealt if _is_empty(one)]
    some = [one for one in dealt if not _is_empty(one)]
    draw = random.Random(seed)
    draw.shuffle(some)
    draw.shuffle(none)
    without = round(share * WAITING)
    test = some[: TEST[0]] + none[: TEST[1]]
    some, none = some[TEST[0] :], none[TEST[1] :]
    waiting = some[START:][: WAITING - without] + none[:without]
    draw.shuffle(waiting)
    return test, some[:START], waiting


def project(data: Path, cache: Path, seed: int, rounds: int) -> list[dict[str, Any]]:
    """Play the annotation project once with each list and each way of choosing.

    Args:
        data: folder of the dataset.
        cache: folder of prepared slices.
        seed: of everything that is drawn.
        rounds: how often `STEP` further cases get their label.

    Returns:
        A record for each way and number of cases: `list`, `seed`, `way`, `cases`, `without`, how many of the
        cases added since the start have no lesion, and the bundle's metrics.
    """
    torch.set_num_threads(1)
    cases = datasets.get("lits").index(data)
    records = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{scratch}/mlruns.db"
        test, first, _ = deal(cases, seed, 0)  # the same of every list
        start = Learner(data, cache, Path(scratch) / "start", test, seed)
        found = start.learn(first, FIRST_STEPS)
        for number, (name, way) in enumerate(itertools.product(LISTS, WAYS)):
            told = {"list": name, "seed": seed, "way": way}
            records.append({**told, "cases": START, "without": 0, **found})
            learner = start.copy(Path(scratch) / str(number))
            added, left = [], deal(cases, seed, LISTS[name])[2]
            for _ in range(rounds):
                order = list(range(len(left)))  # they were shuffled
                if way == DOUBT:
                    doubts = learner.doubts(left)
                    order.sort(key=lambda index: -doubts[index])
                chosen = order[:STEP]
                added += [left[index] for index in chosen]
                left = [one for index, one in enumerate(left) if index not in chosen]
                further = learner.learn([*first, *added], FURTHER_STEPS)
                counted = {"cases": START + len(added), "without": sum(map(_is_empty, added))}
                records.append({**told, **counted, **further})
    return records


def _is_empty(case: dict[str, Any]) -> bool:
    """Whether a case of the phantom has no lesion."""
    return int(case["case"].rpartition("-")[2]) % 12 == 4


@contextlib.contextmanager
def _quiet():
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def dice_of(records: Sequence[dict[str, Any]], way: str, cases: int) -> np.ndarray:
    """The mean Dice over the test cases of each seed, in the order of the seeds."""
    own = [one for one in records if one["way"] == way and one["cases"] == cases]
    return np.array([one["val_dice"] for one in sorted(own, key=lambda one: one["seed"])])


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """The mean over seeds and Student's 95 % interval of it; nan for the ends of a single seed's."""
    mean, number = float(np.mean(values)), len(values)
    if number < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, number - 1) * np.std(values, ddof=1) / np.sqrt(number))
    return mean, mean - half, mean + half


def gains(records: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """What doubt adds to the Dice of chance, for each seed: after each number of cases, and over all of them.

    The first number of cases, at which both are one network, counts neither alone nor in the mean.
    """
    numbers = sorted({one["cases"] for one in records})[1:]
    found = {
        f"{number} cases": dice_of(records, DOUBT, number) - dice_of(records, CHANCE, number)
        for number in numbers
    }
    return {**found, "mean over rounds": np.mean(list(found.values()), axis=0)}


def tables(records: Sequence[dict[str, Any]], name: str) -> list[Table]:
    """Dice by the number of annotated cases for both ways, and the difference; intervals are over seeds."""
    seeds, tested = len({one["seed"] for one in records}), sum(TEST)
    title = f"LiTS phantom, waiting cases {name}: Dice of {tested} test cases, mean over {seeds} seeds"
    curve = Table(title=f"{title} (95 % interval)", title_justify="left")
    counted = {
        "missed": "val_cases_missed",
        "false alarms": "val_cases_false_alarm",
        "false lesions": "val_lesions_false",
        "added without a lesion": "without",
    }
    for heading in ("annotated cases", CHANCE, DOUBT, *counted):
        curve.add_column(heading, justify="right")
    for number in sorted({one["cases"] for one in records}):
        of = {way: [one for one in records if (one["way"], one["cases"]) == (way, number)] for way in WAYS}
        counts = [
            " / ".join(f"{np.mean([one[key] for one in own]):.1f}" for own in of.values())
            for key in counted.values()
        ]
        curve.add_row(str(number), *(_text(dice_of(records, way, number)) for way in WAYS), *counts)
    gain = Table(title=f"Dice, {DOUBT} less {CHANCE}: paired by seed", title_justify="left")
    for heading in ("after", "difference (95 % interval)", "better in", "p"):
        gain.add_column(heading, justify="right")
    for after, values in gains(records).items():
        p = stats.ttest_1samp(values, 0).pvalue if len(values) > 1 and np.ptp(values) else float("nan")
        better = f"{np.count_nonzero(values > 0)} of {len(values)}"
        gain.add_row(after, _text(values, "+.3f"), better, f"{p:.3f}")
    return [curve, gain]


def _text(values: np.ndarray, form: str = ".3f") -> str:
    mean, low, high = interval(values)
    return f"{mean:{form}} ({low:{form}} to {high:{form}})"


def picture(records: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Draw the learning curves of both ways with their intervals, and the gain of each seed; a row a list."""
    names = [name for name in LISTS if any(one["list"] == name for one in records)]
    figure = Figure(figsize=(9.6, 3.4 * len(names) + 0.4), layout="constrained")
    grid = figure.subplots(len(names), 2, width_ratios=(3, 2), squeeze=False)
    for (curve, gain), name in zip(grid, names, strict=True):
        own = [one for one in records if one["list"] == name]
        numbers, seeds = sorted({one["cases"] for one in own}), len({one["seed"] for one in own})
        for way in WAYS:
            means, low, high = np.array([interval(dice_of(own, way, number)) for number in numbers]).T
            curve.plot(numbers, means, "o-", color=COLOURS[way], label=f"next cases {way}")
            curve.fill_between(numbers, low, high, color=COLOURS[way], alpha=0.18, lw=0)
        curve.set(xlabel="annotated cases", ylabel="Dice", xticks=numbers)
        curve.set_title(f"waiting cases {name}; {seeds} seeds, 95 % interval", loc="left", fontsize=9)
        curve.legend(loc="lower right", frameon=False)
        gained = gains(own)
        for index, values in enumerate(gained.values()):
            mean, low, high = interval(values)
            gain.plot(np.full(len(values), index), values, "o", color="0.7", ms=4, zorder=1)
            gain.errorbar(
                index, mean, [[mean - low], [high - mean]], fmt="o", color=COLOURS[DOUBT], capsize=4
            )
        gain.axhline(0, color="0.3", lw=0.8)
        words = [after.replace(" cases", "").replace("mean over ", "mean over\n") for after in gained]
        gain.set_xticks(range(len(words)), words)
        gain.set(xlabel="annotated cases", ylabel="gain in Dice")
        gain.set_title("each seed, mean and interval", loc="left", fontsize=9)
        for axes in (curve, gain):
            axes.grid(alpha=0.3)
    figure.suptitle("LiTS phantom: labels for the cases that the model doubts most", fontsize=11)
    compare_pictures.save(figure, path)


def study(out: Path, seeds: Sequence[int], rounds: int, cases: int, jobs: int) -> list[dict[str, Any]]:
    """Play the projects that were not played before, with a progress bar, and keep what they gave.

    Args:
        out: folder for the phantom, prepared slices and `active.json`.
        seeds: a project each.
        rounds: as for `project`.
        cases: patients of the phantom.
        jobs: projects at a time, each with one thread.

    Returns:
        The records of these projects.

    Raises:
        DataError: too few patients or rounds, or the folder holds a study of another setting.
    """
    none = TEST[1] + round(max(LISTS.values()) * WAITING)
    if cases // 12 < none:
        raise DataError(f"expected at least {12 * none} patients, found {cases}")
    if not 0 < rounds * STEP < WAITING or not seeds:
        raise DataError(f"expected 1 to {WAITING // STEP - 1} rounds and at least one seed, found {rounds}")
    datasets.get("lits").phantom(out / "phantom", cases=cases, seed=0, size=96)
    setting = {**SETTING, "cases": cases, "rounds": rounds, **machine.describe(), "threads": 1}
    found = out / "active.json"
    kept = read_json(found) if found.is_file() else {"setting": setting, "records": []}
    if kept["setting"] != setting:
        raise DataError(f"expected a study of the same setting in {found}, found another; see --out")
    left = sorted(set(seeds) - {one["seed"] for one in kept["records"]})
    # A process each, since what a bundle sets up is a process's own.
    with (
        ProcessPoolExecutor(jobs, get_context("spawn"), max_tasks_per_child=1) as pool,
        tqdm(total=len(left), unit="project") as bar,
    ):
        tasks = [pool.submit(project, out / "phantom", out / "cache", seed, rounds) for seed in left]
        for task in as_completed(tasks):
            kept["records"] += task.result()
            write_json(found, kept)
            bar.update()
    return [one for one in kept["records"] if one["seed"] in seeds]


def main() -> None:
    """Carry out the study, print its tables and draw `active.png`."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--out", type=Path, default=Path("runs/lits-active"), help="folder for what is found")
    words.add_argument("--seeds", type=int, default=8, help="projects")
    words.add_argument("--first-seed", type=int, default=0, help="of the first project")
    words.add_argument("--rounds", type=int, default=3, help="of labels and training after the first one")
    words.add_argument("--cases", type=int, default=240, help="patients of the phantom")
    words.add_argument("--jobs", type=int, default=2, help="projects at a time, each with one thread")
    given = words.parse_args()
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    records = study(given.out, seeds, given.rounds, given.cases, given.jobs)
    picture(records, given.out / "active.png")
    for name in LISTS:
        for table in tables([one for one in records if one["list"] == name], name):
            Console(highlight=False).print(table)
    print(f"picture: {given.out / 'active.png'}")


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        sys.exit(f"featherseg: {error}")

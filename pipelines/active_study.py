"""Whether a model learns more from the studies that it doubts: Dice after N annotated cases, beside chance.

python -m pipelines.active_study            # ten projects with each list, which takes an hour or more
python -m pipelines.active_study --seeds 2 --rounds 2 --out runs/try

It plays an annotation project. For each seed the phantom's patients are dealt anew: some test, some are
annotated at the start, the others wait. A network is trained on the annotated cases; then again and again two
waiting cases get their label, and the network goes on learning from all that have one, as a training from
annotations does. One way gives the next labels to the cases that the network doubts most, the other to cases
drawn at random. Both begin with the same network, and have as many steps of training.

All cases at the start are in the portal venous phase and have a lesion. There are three lists of waiting
cases. In the first one, four of 30 look otherwise, in the arterial phase or with a fatty liver, and as many
of each look test; so one can see whether what is rare is asked for. In the second one all look alike, and one
in twelve has no lesion. In the third one all look alike, and three in four have no lesion, as where nobody
chose whom to scan.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from monai.bundle import ConfigParser
from monai.engines.utils import default_prepare_batch
from monai.networks.layers import AffineTransform
from rich.console import Console
from rich.table import Table
from scipy import stats
from tqdm import tqdm

from pipelines import compare_pictures, datasets, machine, report, uncertainty
from pipelines.datasets.lits_phantom import has_lesions, look_of
from pipelines.errors import DataError
from pipelines.files import read_json, write_json, written_whole
from pipelines.slices import VolumeDataset

WAYS = CHANCE, DOUBT = "at random", "most doubtful"
COLOURS = {CHANCE: "0.45", DOUBT: "tab:orange"}
LOOKS = ("portal", "arterial", "fatty")
NONE = "without a lesion"


class Dealt(NamedTuple):
    """How many cases of each kind, a look or `NONE`, wait and test."""

    waiting: dict[str, int]
    test: dict[str, int]


LISTS = {
    "of several looks": Dealt(
        {"portal": 24, "arterial": 2, "fatty": 2, NONE: 2}, {"portal": 8, "arterial": 8, "fatty": 8, NONE: 2}
    ),
    "of one look": Dealt({"portal": 22, NONE: 2}, {"portal": 22, NONE: 2}),
    "most without a lesion": Dealt({"portal": 6, NONE: 18}, {"portal": 22, NONE: 2}),
}
START, STEP = 4, 2
TURN, SCALE, SHIFT = math.pi / 12, 0.2, 0.1  # the last one in halves of a slice
FIRST_STEPS, FURTHER_STEPS, EPOCH = 800, 600, 20  # which slices without a lesion: anew each epoch
SETTING: dict[str, Any] = {
    "image_size": [64, 64],
    "batch_size": 8,
    "learning_rate": 0.003,
    "learning_rate_power": 0.9,
    "balance": "balanced",
    "num_workers": 0,
    "device": "cpu",
    "network_def": {
        "_target_": "monai.networks.nets.UNet",
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": 1,
        "channels": [16, 32, 64, 128],
        "strides": [2, 2, 2],
    },
    "loss": {"_target_": "DiceCELoss", "sigmoid": True, "batch": True},
    "normalizing": [],  # the network normalizes each instance itself
    "augmenting": [{"_target_": "EnsureTyped", "keys": ["image", "label"], "track_meta": False}],
    "train#trainer#prepare_batch": {"_target_": "pipelines.active_study.augmented", "_mode_": "callable"},
    "validate#handlers": [],  # pictures, of which there would be thousands
}


def augmented(
    batch: dict[str, torch.Tensor], device: torch.device, non_blocking: bool = False, **_: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn, scale and shift each slice of a batch at random: all at once, for one by one takes longer.

    Args:
        batch: `image` and `label`, (N, C, X, Y).
        device, non_blocking: as of MONAI's `default_prepare_batch`.

    Returns:
        Image and label.
    """
    image, label = default_prepare_batch(batch, device, non_blocking)
    turn, scale, *shift = 2 * torch.rand(4, len(image)) - 1
    cosine, sine = torch.cos(TURN * turn) / (1 + SCALE * scale), torch.sin(TURN * turn) / (1 + SCALE * scale)
    rows = [cosine, -sine, SHIFT * shift[0], sine, cosine, SHIFT * shift[1]]
    theta = torch.stack(rows, 1).reshape(-1, 2, 3)
    warp = {"normalized": True, "padding_mode": "zeros", "align_corners": False}
    return AffineTransform(**warp)(image, theta), AffineTransform(mode="nearest", **warp)(label, theta)


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
            The bundle's validation metrics over the test cases, on the network's grid, and `dice_LOOK`, the
            mean Dice over those of a look that have a lesion.
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
                "max_epochs": steps // EPOCH,
                "epoch_length": EPOCH,
                "val_interval": steps // EPOCH,  # the last epoch is kept: the test cases choose none
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
        dice = {row["case"]: row["dice"] for row in parser.get_parsed_content("validate#scores").rows}
        kinds = {kind: [dice[one["case"]] for one in self.test if kind_of(one) == kind] for kind in LOOKS}
        by_look = {f"dice_{kind}": float(np.mean(values)) for kind, values in kinds.items() if values}
        return {**parser.get_parsed_content("validate#evaluator").state.metrics, **by_look}

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
        return [uncertainty.doubt(uncertainty.probabilities(volume, infer)) for volume in volumes]


def _number(case: dict[str, Any]) -> int:
    return int(case["case"].rpartition("-")[2])


def kind_of(case: dict[str, Any]) -> str:
    """The look of a case of the varied phantom, or `NONE`."""
    return look_of(_number(case), "varied") if has_lesions(_number(case)) else NONE


def deal(cases: Sequence[dict[str, Any]], seed: int, dealt: Dealt) -> tuple[list, list, list]:
    """Patients who test, who are annotated at the start, and who wait; the last ones shuffled.

    Args:
        cases: of the varied phantom.
        seed: of the shuffling.
        dealt: how many of each kind. Those without a lesion are in the portal phase.

    Raises:
        DataError: too few of a kind.
    """
    draw = random.Random(seed)
    left: dict[str, list] = {kind: [] for kind in (*LOOKS, NONE)}
    for one in sorted(cases, key=_number):
        if has_lesions(_number(one)) or look_of(_number(one), "varied") == "portal":
            left[kind_of(one)].append(one)
    for some in left.values():
        draw.shuffle(some)

    def take(wanted: dict[str, int]) -> list[dict[str, Any]]:
        taken = []
        for kind, number in wanted.items():
            if len(left[kind]) < number:
                raise DataError(f"expected more patients, found too few ({kind}); give --cases more")
            taken += [left[kind].pop() for _ in range(number)]
        return taken

    test, first, waiting = take(dealt.test), take({"portal": START}), take(dealt.waiting)
    draw.shuffle(waiting)
    return test, first, waiting


def project(data: Path, cache: Path, seed: int, name: str, rounds: int) -> list[dict[str, Any]]:
    """Play the annotation project once with each way of choosing.

    Args:
        data: folder of the dataset.
        cache: folder of prepared slices.
        seed: of everything that is drawn.
        name: of the list of waiting cases, out of `LISTS`.
        rounds: how often `STEP` further cases get their label.

    Returns:
        A record for each way and number of cases: `list`, `seed`, `way`, `cases`, `without`, how many of the
        cases added since the start have no lesion, `rare`, how many of them are not in the portal phase, and
        the metrics of `Learner.learn`.
    """
    torch.set_num_threads(1)
    test, first, waiting = deal(datasets.get("lits").index(data), seed, LISTS[name])
    records = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{scratch}/mlruns.db"
        start = Learner(data, cache, Path(scratch) / "start", test, seed)
        found = start.learn(first, FIRST_STEPS)
        for way in WAYS:
            told = {"list": name, "seed": seed, "way": way}
            records.append({**told, "cases": START, "without": 0, "rare": 0, **found})
            learner = start.copy(Path(scratch) / way)
            added, left = [], waiting
            for _ in range(rounds):
                order = list(range(len(left)))  # they were shuffled
                if way == DOUBT:
                    doubts = learner.doubts(left)
                    order.sort(key=lambda index: -doubts[index])
                chosen = order[:STEP]
                added += [left[index] for index in chosen]
                left = [one for index, one in enumerate(left) if index not in chosen]
                further = learner.learn([*first, *added], FURTHER_STEPS)
                kinds = [kind_of(one) for one in added]
                rare = sum(kind not in ("portal", NONE) for kind in kinds)
                counted = {"cases": START + len(added), "without": kinds.count(NONE), "rare": rare}
                records.append({**told, **counted, **further})
    return records


@contextlib.contextmanager
def _quiet():
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


class TextTable(NamedTuple):
    """A table to print and to write."""

    title: str
    heading: list[str]
    rows: list[list[str]]

    def print(self, console: Console) -> None:
        """Print it, the title above."""
        table = Table(title=self.title, title_justify="left")
        for heading in self.heading:
            table.add_column(heading, justify="right")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)

    def markdown(self) -> str:
        """Title and table."""
        return f"{self.title}\n\n{report.markdown(self.heading, self.rows)}\n"


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


def tables(records: Sequence[dict[str, Any]], name: str) -> list[TextTable]:
    """Dice by the number of annotated cases for both ways, and the difference; intervals are over seeds."""
    seeds, tested = len({one["seed"] for one in records}), sum(LISTS[name].test.values())
    counted = {
        "missed": "val_cases_missed",
        "false alarms": "val_cases_false_alarm",
        "false lesions": "val_lesions_false",
        "added without a lesion": "without",
    }
    if any(one["rare"] for one in records):
        counted["added of a rare look"] = "rare"
        counted |= {f"Dice, {kind}": f"dice_{kind}" for kind in LOOKS}
    curve = TextTable(
        f"LiTS phantom, waiting cases {name}: Dice of {tested} test cases, mean over {seeds} seeds (95 % "
        f"interval); counts are {CHANCE} / {DOUBT}",
        ["annotated cases", f"Dice, {CHANCE}", f"Dice, {DOUBT}", *counted],
        [],
    )
    for number in sorted({one["cases"] for one in records}):
        of = {way: [one for one in records if (one["way"], one["cases"]) == (way, number)] for way in WAYS}
        counts = [
            " / ".join(f"{np.mean([one[key] for one in own]):{_digits(key)}}" for own in of.values())
            for key in counted.values()
        ]
        curve.rows.append([str(number), *(_text(dice_of(records, way, number)) for way in WAYS), *counts])
    gain = TextTable(
        f"Dice, {DOUBT} less {CHANCE}: paired by seed",
        ["after", "difference (95 % interval)", "better in", "p"],
        [],
    )
    for after, values in gains(records).items():
        p = stats.ttest_1samp(values, 0).pvalue if len(values) > 1 and np.ptp(values) else float("nan")
        better = f"{np.count_nonzero(values > 0)} of {len(values)}"
        gain.rows.append([after, _text(values, "+.3f"), better, f"{p:.3f}"])
    return [curve, gain]


def _digits(key: str) -> str:
    return ".3f" if key.startswith("dice") else ".1f"


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
        curve.legend(loc="upper left", frameon=False)
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


def study(
    out: Path, seeds: Sequence[int], rounds: int, cases: int, jobs: int, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Play the projects that were not played before, with a progress bar, and keep what they gave.

    Args:
        out: folder for the phantom, prepared slices and `active.json`.
        seeds: a project each, with each list.
        rounds: as for `project`.
        cases: patients of the phantom.
        jobs: projects at a time, each with one thread.
        names: of the lists.

    Returns:
        The records of these projects.

    Raises:
        DataError: too few patients or rounds, or the folder holds a study of another setting.
    """
    waiting = min(sum(LISTS[name].waiting.values()) for name in names)
    if not 0 < rounds * STEP < waiting or not seeds:
        raise DataError(f"expected 1 to {waiting // STEP - 1} rounds and at least one seed, found {rounds}")
    numbered = [{"case": f"volume-{number}"} for number in range(cases)]
    for name in names:
        deal(numbered, 0, LISTS[name])
    datasets.get("lits").phantom(out / "phantom", cases=cases, seed=0, size=96, looks="varied")
    setting = {**SETTING, "cases": cases, "rounds": rounds, **machine.describe(), "threads": 1}
    found = out / "active.json"
    kept = read_json(found) if found.is_file() else {"setting": setting, "records": []}
    if kept["setting"] != setting:
        raise DataError(f"expected a study of the same setting in {found}, found another; see --out")
    played = {(one["seed"], one["list"]) for one in kept["records"]}
    left = [(seed, name) for seed in seeds for name in names if (seed, name) not in played]
    # A process each, since what a bundle sets up is a process's own.
    with (
        ProcessPoolExecutor(jobs, get_context("spawn"), max_tasks_per_child=1) as pool,
        tqdm(total=len(left), unit="project") as bar,
    ):
        tasks = [pool.submit(project, out / "phantom", out / "cache", *one, rounds) for one in left]
        for task in as_completed(tasks):
            kept["records"] += task.result()
            write_json(found, kept)
            bar.update()
    return [one for one in kept["records"] if one["seed"] in seeds and one["list"] in names]


def main() -> None:
    """Carry out the study, print its tables, write them to `active.md`, and draw `active.png`."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    words.add_argument("--out", type=Path, default=Path("runs/lits-active"), help="folder for what is found")
    words.add_argument("--seeds", type=int, default=10, help="projects with each list")
    words.add_argument("--list", action="append", choices=LISTS, help="play with this one; may be repeated")
    words.add_argument("--first-seed", type=int, default=0, help="of the first project")
    words.add_argument("--rounds", type=int, default=3, help="of labels and training after the first one")
    words.add_argument("--cases", type=int, default=420, help="patients of the phantom")
    words.add_argument("--jobs", type=int, default=2, help="projects at a time, each with one thread")
    given = words.parse_args()
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    names = [name for name in LISTS if name in (given.list or LISTS)]
    records = study(given.out, seeds, given.rounds, given.cases, given.jobs, names)
    picture(records, given.out / "active.png")
    found = [
        table for name in names for table in tables([one for one in records if one["list"] == name], name)
    ]
    for table in found:
        table.print(Console(width=max(Console().width, 190), highlight=False))
    with written_whole(given.out / "active.md") as beside:
        beside.write_text("\n".join(table.markdown() for table in found), encoding="utf-8")
    print(f"tables and picture: {given.out / 'active.md'}, {given.out / 'active.png'}")


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        sys.exit(f"featherseg: {error}")

"""Experiments of a bundle side by side: each trained and evaluated by the commands that a user types.

    python -m pipelines.study dce_us ladder_1_start ladder_2_augmentation --seeds 0 1 2 -- --max_epochs 20

What follows `--` goes to every training and evaluation. A run that finished is not trained again, so that a
study can be stopped and started at any time. Its runs lie in `runs/BUNDLE-study` and in an experiment of that
name in MLflow, apart from those that inference looks for.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from pipelines import scoring
from pipelines.errors import DataError, user_message
from pipelines.files import read_json, write_json, written_whole
from pipelines.report import markdown
from pipelines.runs import FINISHED, ROOT

BUNDLE = "bundle"  # the experiment that is the bundle's train.json with nothing over it
EVALUATE = "bundles/common/evaluate.json"
SCORES = ("dice", "iou", "hd95")


def configs(bundle: str, experiment: str) -> list[str]:
    """The configuration files of an experiment: the bundle's, and one of its overlays.

    Raises:
        DataError: an unknown bundle or experiment; the message lists those there are.
    """
    folder = Path("bundles") / bundle
    overlays = sorted(path.stem for path in (folder / "experiments").glob("*.json"))
    if not (folder / "train.json").is_file():
        raise DataError(f"expected a bundle at {folder}, found none; start from the repository's root")
    if experiment not in (BUNDLE, *overlays):
        known = ", ".join((BUNDLE, *overlays))
        raise DataError(f"expected an experiment of {bundle} out of {known}, found {experiment!r}")
    files = [folder / "train.json"]
    files += [folder / "experiments" / f"{experiment}.json"] if experiment != BUNDLE else []
    return [path.as_posix() for path in files]


def commands(bundle: str, experiment: str, seed: int, options: Sequence[str]) -> dict[str, list[str]]:
    """The training and the evaluation of one experiment with one seed, as the words of a command line."""
    run = [sys.executable, "-m", "monai.bundle", "run"]
    files = configs(bundle, experiment)
    name = ["--experiment", f"{bundle}-study", "--run_name", run_name(experiment, seed), *options]
    return {
        "training": [*run, "training", "--config_file", str(files), "--seed", str(seed), *name],
        "evaluating": [*run, "evaluating", "--config_file", str([*files, EVALUATE]), *name],
    }


def folder_of(bundle: str) -> Path:
    """Where the runs of a bundle's studies lie."""
    return ROOT / f"{bundle}-study"


def run_name(experiment: str, seed: int) -> str:
    """What the run of an experiment is called, so that it is found again."""
    return f"{experiment}-seed{seed}"


def carry_out(bundle: str, experiment: str, seed: int, options: Sequence[str]) -> list[dict[str, Any]]:
    """Train and evaluate unless that was done before; returns the held-out cases on the network's grid.

    Raises:
        DataError: a command failed, whose output is in the log that the message names; or the run is there,
            but of other options or another overlay.
    """
    runs = folder_of(bundle)
    folder = runs / run_name(experiment, seed)
    log, asked = runs / "study" / f"{folder.name}.log", runs / "study" / f"{folder.name}.json"
    cases = folder / "evaluation" / "cases_on_grid.csv"
    steps = commands(bundle, experiment, seed, options)
    note = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    # An overlay may have changed as well as an option.
    what = {"options": list(options), "files": [read_json(file) for file in configs(bundle, experiment)]}
    if note and (not asked.is_file() or read_json(asked) != what):
        raise DataError(
            f"expected {folder} to be of the same options and overlay as now, found others; remove it to "
            "train it again"
        )
    if note.get("status") == FINISHED:
        del steps["training"]
    elif note:
        steps["training"] += ["--resume", "true"]
    if note.get("status") == FINISHED and cases.is_file():
        return scoring.read_cases(cases)
    write_json(asked, what)
    for step, words in steps.items():
        with log.open("a", encoding="utf-8") as output:
            done = subprocess.run(words, stdout=output, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            reason = lines[-1] if lines else "no word"
            raise DataError(f"expected the {step} of {folder.name} to end well, found: {reason}; see {log}")
    return scoring.read_cases(cases)


def figures(runs: Sequence[Sequence[dict[str, Any]]]) -> dict[str, float]:
    """Mean and standard deviation over the runs of an experiment, each run being the mean of its cases.

    Args:
        runs: the scored cases of each run.

    Returns:
        `runs`, `dice_mean`, `dice_std` (of the population, 0 for one run), the same for `iou` and `hd95`, and
        `cases`, `missed`, `false_alarms`, summed over the runs.
    """
    summaries = [scoring.summarize(rows) for rows in runs]
    found: dict[str, float] = {"runs": len(runs)}
    for score in SCORES:
        means = [summary[f"{score}_mean"] for summary in summaries]
        found |= {f"{score}_mean": float(np.mean(means)), f"{score}_std": float(np.std(means))}
    for name, key in (("cases", "cases"), ("missed", "cases_missed"), ("false_alarms", "cases_false_alarm")):
        found[name] = int(sum(summary[key] for summary in summaries))
    return found


def rows_of(results: dict[str, dict[str, float]]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the table of a study."""
    heading = ["experiment", "runs", "Dice", "IoU", "HD95", "cases", "missed", "false alarms"]
    lines = [
        [name, str(found["runs"])]
        + [_mean(found, score) for score in SCORES]
        + [str(found[key]) for key in ("cases", "missed", "false_alarms")]
        for name, found in results.items()
    ]
    return heading, lines


def _mean(found: dict[str, float], score: str) -> str:
    """One run has no spread to show."""
    text = scoring.mean_and_spread(found, score)
    return text if found["runs"] > 1 else text.split(" ")[0]


def study(
    bundle: str, experiments: Sequence[str], seeds: Sequence[int], options: Sequence[str] = ()
) -> dict[str, dict[str, float]]:
    """Carry out every experiment with every seed; returns the figures of each experiment.

    Raises:
        DataError: as `configs` and `carry_out`.
    """
    for experiment in experiments:
        configs(bundle, experiment)  # so that a mistyped one is not found after hours
    results = {}
    bar = tqdm(total=len(experiments) * len(seeds), desc=bundle, unit="run", disable=None)
    for experiment in experiments:
        runs = []
        for seed in seeds:
            bar.set_postfix_str(run_name(experiment, seed))
            runs.append(carry_out(bundle, experiment, seed, options))
            bar.update()
        results[experiment] = figures(runs)
    bar.close()
    return results


def main() -> None:
    """Run a study, print its table, and keep it in `runs/BUNDLE-study/study/`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", help="such as dce_us")
    parser.add_argument("experiments", nargs="+", help=f"names of overlays, or '{BUNDLE}' for none")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="an initialisation each")
    own = sys.argv[1:]
    own, options = (own[: own.index("--")], own[own.index("--") + 1 :]) if "--" in own else (own, [])
    given = parser.parse_args(own)
    try:
        results = study(given.bundle, given.experiments, given.seeds, options)
    except DataError as error:
        sys.exit(f"featherseg: {user_message(error)}")
    heading, lines = rows_of(results)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(heading):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    Console(width=120, highlight=False).print(table)
    print("Mean ± standard deviation over runs (seeds), of held-out cases on the network's grid.")
    folder = folder_of(given.bundle) / "study"
    name = f"{given.experiments[0]}_to_{given.experiments[-1]}"
    write_json(folder / f"{name}.json", {"options": options, "seeds": given.seeds, "results": results})
    with written_whole(folder / f"{name}.md") as beside:
        beside.write_text(markdown(heading, lines) + "\n", encoding="utf-8")
    print(f"table: {folder / name}.md")


if __name__ == "__main__":
    main()

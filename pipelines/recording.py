"""The handler that follows a training from its start to its end, good or bad, and records it."""

from __future__ import annotations

import functools
import hashlib
import platform
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import monai
import torch
from ignite.engine import Engine, Events

import networks
from pipelines import folds, report, scoring, slice_scores, sources
from pipelines.checkpoints import BEST, save
from pipelines.datasets.fingerprint import fingerprint
from pipelines.errors import DataError
from pipelines.files import read_json
from pipelines.runs import FAILED, FINISHED, Run, dead_runs, network_label, recipe
from pipelines.tracking import Tracker, close_dead_runs


class TrainingRecord:
    """Record loss, learning rate and validation of each epoch, and at the end the report and the model.

    Only the first process of a distributed run records. An exception, Ctrl-C or a termination signal
    closes the run as FAILED; a run killed without a word is closed by the next one on this machine.

    Args:
        run: the run's folder and name.
        evaluator: the validation engine.
        network: the bare module.
        optimizer: whose learning rate is recorded.
        input_shape: (C, H, W) for the number of multiply-accumulates.
        data: cases of the whole dataset, for its fingerprint.
        unit: of the distances that the evaluator scores.
    """

    def __init__(
        self,
        run: Run,
        evaluator: Engine,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        input_shape: Sequence[int],
        data: Sequence[dict[str, Any]],
        unit: str = "mm",
    ) -> None:
        self.run = run
        self.evaluator = evaluator
        self.network = network
        self.optimizer = optimizer
        self.input_shape = tuple(input_shape)
        self.data = data
        self.unit = unit
        self.tracker = Tracker(run)

    def attach(self, engine: Engine) -> None:
        """Ignite's way to register the handler, on the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.STARTED, self.started)
            engine.add_event_handler(Events.COMPLETED, self.completed)
            engine.add_event_handler(Events.EXCEPTION_RAISED, self.failed)

    def facts(self) -> dict[str, Any]:
        """What was trained, on what, with which code."""
        note = self.run.note
        return {
            "network": type(self.network).__name__,
            "parameters": networks.count_parameters(self.network),
            "GMACs": round(networks.count_gmacs(self.network, self.input_shape), 3),
            "input_shape": list(self.input_shape),
            "dataset_fingerprint": fingerprint(self.data),
            "cases": len(self.data),
            "code_version": note["code_version"],
            "torch": torch.__version__,
            "monai": monai.__version__,
            "python": platform.python_version(),
        }

    def tags(self, facts: dict[str, Any]) -> dict[str, Any]:
        """What runs are grouped by, and told apart by, where they are compared."""
        note, config = self.run.note, read_json(self.run.folder / "config.json")
        values, device = note["values"], next(self.network.parameters()).device
        return {
            "bundle": values.get("bundle", self.run.bundle),
            "network": network_label(config),
            "overlay": values.get("overlay") or "-",
            "seed": values.get("seed"),
            "fold": note["fold"],
            "data": facts["dataset_fingerprint"],
            "split": folds.digest(folds.read_split(self.run.folder / "split.json")),
            "code": sources.loaded(),
            "recipe": recipe(config),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        }

    def started(self, engine: Engine) -> None:
        """Open the run, or go on in it."""
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        close_dead_runs([run for run in dead_runs(self.run.bundle) if run.folder != self.run.folder])
        note, facts = self.run.note, self.facts()
        same_data(self.run.folder, self.data)
        self.tracker.add("status", status="RUNNING")
        tags, sent = self.tags(facts), self.tracker.tags()
        if not sent:
            self.tracker.add("params", values={**note["values"], **facts})
            for name in ("config.json", "split.json"):
                self.tracker.add("artifact", path=name)
            self.tracker.add("tags", values=tags)
        changed = {key: tags[key] for key in ("code", "device") if sent and sent[key] != tags[key]}
        if changed:  # partly trained with the one and partly with the other, it is like neither
            both = {key: hashlib.sha256(f"{sent[key]} {tags[key]}".encode()).hexdigest() for key in changed}
            self.tracker.add("tags", values={key: value[:12] for key, value in both.items()})
        self.run.update(facts=facts)
        self.tracker.send()

    def epoch_started(self, engine: Engine) -> None:
        """Start the epoch's sums; its learning rate, since validation may end with another."""
        self.rate = self.optimizer.param_groups[0]["lr"]
        self.since = time.perf_counter()
        self.loss = torch.zeros((), dtype=torch.float64)
        self.iterations, self.images, self.trained = 0, 0, 0.0

    def iteration_completed(self, engine: Engine) -> None:
        """Add an iteration's loss; on a GPU it stays there, so that the step is not waited for."""
        loss = engine.state.output["loss"].detach()
        self.loss = self.loss.to(loss.device) + loss
        self.iterations += 1
        self.images += len(engine.state.batch["image"]) * idist.get_world_size()
        if engine.state.iteration % engine.state.epoch_length == 0:
            float(self.loss)  # waits for the GPU, which the clock does not
            self.trained = time.perf_counter() - self.since

    def epoch_completed(self, engine: Engine) -> None:
        """Record the epoch and say in one line how it went."""
        loss = float(idist.all_reduce(float(self.loss) / max(1, self.iterations)) / idist.get_world_size())
        if idist.get_rank() > 0:
            return
        epoch, seconds = engine.state.epoch, time.perf_counter() - self.since
        values = {"train_loss": loss, "lr": self.rate, "epoch_seconds": seconds}
        values["images_per_second"] = self.images / max(self.trained, 1e-9)
        line = f"epoch {epoch}/{engine.state.max_epochs}  loss {loss:.4f}"
        state = self.evaluator.state
        if state.epoch == epoch:
            values.update({key: float(value) for key, value in state.metrics.items()})
            line += f"  validation {state.metrics['val_loss']:.4f}" if "val_loss" in state.metrics else ""
            slices = state.metrics.get("val_slice_iou")
            line += "" if slices is None else f"  slices' IoU {slices:.3f}"
            line += f"  Dice {state.metrics['val_dice']:.3f}  kept: epoch {state.best_metric_epoch}"
        print(f"{line}  {seconds:.1f} s", flush=True)
        self.tracker.add("metrics", step=epoch, values=values)
        self.tracker.send()

    def completed(self, engine: Engine) -> None:
        """Write the report, hand everything to MLflow, and close the run."""
        folder = self.run.folder
        if not (folder / BEST).is_file():  # no epoch was validated
            save(self.network.state_dict(), folder / BEST)
        curves = folder / "pictures" / "curves.png"
        shown = ("epoch", "train_loss", "val_loss", "val_dice", "val_iou", "val_slice_iou", "val_hd95", "lr")
        history = [{k: v for k, v in epoch.items() if k in shown} for epoch in self.tracker.metrics()]
        report.curves(history, curves)
        pictures = {"Training curves": curves}
        if (folder / "cases.csv").is_file():
            rows = scoring.read_cases(folder / "cases.csv")
            names = {"cases": "Dice of each case", "best": "The best case", "median": "The median case"}
            for name, caption in {**names, "worst": "The worst case"}.items():
                if (folder / "pictures" / f"{name}.png").is_file():
                    pictures[caption] = folder / "pictures" / f"{name}.png"
            facts = {**self.run.note["facts"], "seed": self.run.note["values"].get("seed")}
            facts |= {"fold": self.run.note["fold"], "epoch kept": self.evaluator.state.best_metric_epoch}
            slices = slice_scores.summarize(rows)
            facts |= {"slice by slice": slice_scores.in_words(slices)} if slices else {}
            title = f"{self.run.bundle}: held-out cases at the epoch kept, on the network's grid"
            report.write_report(folder, title, scoring.summarize(rows), rows, facts, pictures, self.unit)
        for name in ("cases.csv", "report.md", BEST):
            self.tracker.add("artifact", path=name)
        for picture in pictures.values():
            self.tracker.add("artifact", path=str(picture.relative_to(folder)), folder="pictures")
        self.tracker.add("status", status="FINISHED")
        self.tracker.send(patient=True)
        self.run.end(FINISHED)  # last, so that a run killed before is one that can go on
        print(f"model: {folder / BEST}\nreport: {folder / 'report.md'}")

    def failed(self, engine: Engine, error: BaseException) -> None:
        """Close the run as failed, and pass on what happened."""
        self.tracker.add("status", status="FAILED")
        self.run.end(FAILED)
        self.tracker.send(patient=True)
        raise error


def same_data(run_folder: str | Path, cases: Sequence[dict[str, Any]]) -> None:
    """Refuse other images than a run began with, whose figures would stand for these.

    Raises:
        DataError: a file of the dataset changed, came or went.
    """
    before = Run(str(run_folder), "").note.get("facts", {}).get("dataset_fingerprint")
    found = fingerprint(cases)
    if before not in (None, found):
        raise DataError(
            f"expected the dataset that {run_folder} was trained with (fingerprint {before}), found another "
            f"({found}); give its folder by --dataset_dir, or train a new run"
        )


def is_own(run_folder: str | Path, weights: str | Path) -> bool:
    """Whether weights are the run's best ones, whose evaluation is the run's own.

    The folder of a registered version holds no others.
    """
    best = Path(run_folder) / BEST
    return not best.is_file() or best.resolve() == Path(weights).resolve()


def evaluation_folder(run_folder: str | Path, weights: str | Path) -> Path:
    """Where an evaluation goes: `evaluation`, but for weights that are not the run's best."""
    own = is_own(run_folder, weights)
    return Path(run_folder) / ("evaluation" if own else f"evaluation-{Path(weights).name}")


def recorder(run_folder: str | Path, weights: str | Path) -> Callable[[dict[str, float], Path], None] | None:
    """What adds an evaluation to the run in MLflow; None for weights that are not its best."""
    return functools.partial(record_evaluation, run_folder) if is_own(run_folder, weights) else None


def record_evaluation(run_folder: str | Path, figures: dict[str, float], folder: Path) -> None:
    """Add an evaluation's figures and files to the run whose model was evaluated."""
    run = Run(str(run_folder), "")
    run.bundle = run.note["bundle"]
    tracker = Tracker(run)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            where = Path("evaluation") / path.relative_to(folder).parent
            tracker.add("artifact", path=str(path.relative_to(run.folder)), folder=where.as_posix())
    # Last, since a run with these figures is taken for evaluated, wherever a kill comes.
    tracker.add("metrics", step=None, values=figures)
    tracker.send(patient=True)

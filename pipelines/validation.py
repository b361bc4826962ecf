"""Whole cases scored by MONAI's engines: the metric, and what is written about its cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import Orientation
from monai.utils import convert_to_tensor

from pipelines import report, scoring, shown, significance, slice_scores
from pipelines.datasets.checking import natural
from pipelines.slices import case_name


class CaseScores(Metric):
    """Dice, IoU, HD95 and lesions of every case, by the policy of `scoring.score_case`.

    The metric itself is the mean Dice over the cases; `scoring.summarize`'s other figures appear beside it
    in `engine.state.metrics` as PREFIX_dice_std, PREFIX_hd95_mean, and so on. In a distributed run, each
    process scores the cases it has and all know the rows of all.

    Args:
        prefix: of the metrics' names, such as "val".
        truth_key: where the batch holds the mask that the prediction is compared with.
        image_key: where it holds the image for pictures, on the grid of the truth; None keeps none.
        pred_key: where the engine's output holds the prediction, on the same grid.
        display_range: grey values of black and white in pictures; the image's own range by default.
        unit: of distances, "mm", or "pixels" of that grid.
        slices: score the axial slices of volumes too, see `slice_scores`: PREFIX_slice_iou, and so on.
    """

    def __init__(
        self,
        prefix: str = "val",
        truth_key: str = "label",
        image_key: str | None = "image",
        pred_key: str = "pred",
        display_range: Sequence[float] | None = None,
        unit: str = "mm",
        slices: bool = False,
    ) -> None:
        self.prefix = prefix
        self.truth_key = truth_key
        self.image_key = image_key
        self.pred_key = pred_key
        self.display_range = display_range
        self.unit = unit
        self.slices = slices
        super().__init__()

    def reset(self) -> None:
        """Forget the cases of the last epoch."""
        self.rows: list[dict[str, Any]] = []
        self.shown: dict[str, dict[str, Any]] = {}

    def iteration_completed(self, engine: Engine) -> None:
        """Score the cases of a batch; the engine has taken it apart into one dictionary a case."""
        for source, result in zip(engine.state.batch, engine.state.output, strict=True):
            self.update((source, result))

    def update(self, output: tuple[dict[str, Any], dict[str, Any]]) -> None:
        """Score one case: what went into the network, and what came out and was post-processed."""
        source, result = output
        truth, prediction = source[self.truth_key], result[self.pred_key]
        masks = _mask(prediction), _mask(truth)
        scores = scoring.score_case(*masks, self._spacing(truth))
        if self.slices:
            scores |= slice_scores.score_slices(*masks, slice_scores.axial(truth.affine))
        self.rows.append({"case": source["case"], **scores})
        if self.image_key is not None:
            # What was done to an image as it was read, such as bringing sequences onto one grid.
            if said := getattr(source[self.image_key], "meta", {}).get("registration"):
                self.rows[-1]["registration"] = said
            self.shown[source["case"]] = self._shown(source[self.image_key], truth, prediction)

    def compute(self) -> float:
        """The mean Dice of all cases of all processes."""
        if idist.get_world_size() > 1:
            parts: list[Any] = [None] * idist.get_world_size()
            torch.distributed.all_gather_object(parts, self.rows)
            self.rows = [row for part in parts for row in part]
        self.rows.sort(key=lambda row: natural(row["case"]))
        self.summary = scoring.summarize(self.rows) | slice_scores.summarize(self.rows)
        return self.summary["dice_mean"]

    def completed(self, engine: Engine, name: str) -> None:
        """Put the metric and all figures beside it into the engine's state; `name` may be any of these."""
        engine.state.metrics[name] = self.compute()
        engine.state.metrics.update(self.figures())

    def figures(self) -> dict[str, float]:
        """The summary of the cases under the names that are tracked: val_dice, val_dice_std, val_hd95, ..."""
        return {
            f"{self.prefix}_{key.removesuffix('_mean')}": float(value) for key, value in self.summary.items()
        }

    def _spacing(self, image: MetaTensor) -> list[float]:
        axes = image.ndim - 1
        return [1.0] * axes if self.unit == "pixels" else affine_to_spacing(image.affine, r=axes).tolist()

    def _shown(self, image: torch.Tensor, truth: MetaTensor, prediction: torch.Tensor) -> dict[str, Any]:
        """The slices of a case that a picture needs, so that whole volumes need not be kept."""
        spatial = truth.ndim - 1
        parts = [
            MetaTensor(convert_to_tensor(one, track_meta=False).cpu(), affine=truth.affine)
            for one in (image, truth, prediction)
        ]
        if spatial == 3:
            parts = [Orientation(axcodes="RAS", labels=None)(part) for part in parts]
        kept: dict[str, Any] = {"spacing": self._spacing(parts[0])}
        image, true, predicted = parts[0].numpy(), _mask(parts[1]), _mask(parts[2])
        if spatial == 3:
            kept["numbers"] = report.telling_slices([true, predicted], true.shape)
        if spatial == 2 and len(image) == 3:
            kept["colour"] = True
            image = np.moveaxis(np.rint(image * (1 if image.max() > 1 else 255)).astype(np.uint8), 0, -1)
        else:
            image = image[0] if self.display_range is None else np.clip(image[0], *self.display_range)
        if spatial == 2:
            image, true, predicted = shown.reduced(image, true, predicted)
        for name, array in (("image", image), ("truth", true), ("prediction", predicted)):
            kept[name] = array[..., kept["numbers"]] if spatial == 3 else array
        return kept


def _mask(volume: torch.Tensor) -> np.ndarray:
    return volume[0].detach().cpu().numpy() > 0.5


def write_pictures(scores: CaseScores, folder: Path) -> dict[str, Path]:
    """Overlays of the worst, the median and the best case that this process has, and a chart of all.

    Returns:
        caption to file, the best case last.
    """
    chart = folder / "cases.png"
    report.case_chart(scores.rows, chart)
    numbered = [
        (number, row) for number, row in enumerate(scores.rows, start=1) if row["case"] in scores.shown
    ]
    own = sorted(numbered, key=lambda one: one[1]["dice"])
    pictures = {"Dice of each case": chart}
    chosen = {"worst": 0, "median": len(own) // 2, "best": len(own) - 1} if own else {}
    for title, place in chosen.items():
        number, row = own[place]
        path = folder / f"{title}.png"
        caption = f"{title} case (no. {number}), Dice {row['dice']:.2f}"
        report.overlay(**scores.shown[row["case"]], path=path, title=caption)
        pictures[caption.capitalize()] = path
    return pictures


def thumbnails(scores: CaseScores) -> dict[str, shown.Shown]:
    """A small picture of every case that this process has, for comparisons with other networks."""
    parts = ("image", "truth", "prediction")
    return {
        case: shown.thumbnail(*(kept[part] for part in parts), colour=kept.get("colour", False))
        for case, kept in scores.shown.items()
    }


class BestCases:
    """Write the table and pictures of the validated cases whenever an epoch is the best so far.

    Args:
        folder: of the run; `cases.csv` and `pictures/` are put there.
        scores: a metric of the evaluator.
    """

    def __init__(self, folder: str | Path, scores: CaseScores) -> None:
        self.folder = Path(folder)
        self.scores = scores

    def attach(self, engine: Engine) -> None:
        """Ignite's way to register the handler, on the evaluator."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if engine.state.best_metric_epoch == engine.state.epoch and idist.get_rank() == 0:
            scoring.write_cases(self.scores.rows, self.folder / "cases.csv")
            write_pictures(self.scores, self.folder / "pictures")


class StopEarly:
    """End the training once the key metric has not improved for some epochs.

    The epoch of the best metric is part of every checkpoint, so the count survives an interruption, which
    that of MONAI's `EarlyStopHandler` does not.

    Args:
        evaluator: the validation engine.
        patience: epochs without improvement; None never stops.
    """

    def __init__(self, evaluator: Engine, patience: int | None) -> None:
        self.evaluator = evaluator
        self.patience = patience

    def attach(self, engine: Engine) -> None:
        """Ignite's way to register the handler, on the trainer, after validation and checkpoints."""
        if self.patience is not None:
            # A run may have been killed when it had stopped, before its report was written.
            engine.add_event_handler(Events.STARTED, self)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, trainer: Engine) -> None:
        best = self.evaluator.state.best_metric_epoch
        if best > 0 and trainer.state.epoch - best >= self.patience:
            trainer.terminate()


class EvaluationReport:
    """Write and print what an evaluation found: table of cases, report and pictures.

    Args:
        folder: where they go.
        scores: the key metric of the evaluator.
        title: of the report.
        facts: what the figures were measured on and with, as (name, value).
        grid_scores: the same cases on the network's grid, as papers score them.
        record: called with the figures, for tracking.
        data: cases that were evaluated, with their `patient`; cases without one are patients of their own.
        further: other metrics of the evaluator, such as `froc.Froc`, whose `figures` are tracked, whose
            `facts` are told, and which `write` files of their own.
    """

    def __init__(
        self,
        folder: str | Path,
        scores: CaseScores,
        title: str,
        facts: dict[str, Any],
        grid_scores: CaseScores,
        record: Callable[[dict[str, float], Path], None] | None = None,
        data: Sequence[dict[str, Any]] = (),
        further: Sequence[Any] = (),
    ) -> None:
        self.data = data
        self.further = further
        self.folder = Path(folder)
        self.scores = scores
        self.title = title
        self.facts = facts
        self.grid_scores = grid_scores
        self.record = record

    def attach(self, engine: Engine) -> None:
        """Ignite's way to register the handler, on the evaluator."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if idist.get_rank() > 0:
            return
        self._name_patients()
        rows, summary, unit = self.scores.rows, self.scores.summary, self.scores.unit
        on_grid = scoring.in_words(self.grid_scores.summary, self.grid_scores.unit)
        intervals = [self._interval(one) for one in (self.scores, self.grid_scores)]
        low, high = intervals[0].values()
        likely = f"{low:.3f} to {high:.3f}" if np.isfinite(low) else "unknown, of one case"
        scoring.write_cases(rows, self.folder / "cases.csv")
        scoring.write_cases(self.grid_scores.rows, self.folder / "cases_on_grid.csv")
        pictures = write_pictures(self.scores, self.folder / "pictures")
        shown.write(self.folder / "shown.npz", thumbnails(self.scores))
        facts = {
            **self.facts,
            "on the network's grid": on_grid,
            "mean Dice over patients, 95 % interval": likely,
        }
        told = {
            f"slice by slice{where}": slice_scores.in_words(scores.summary)
            for where, scores in (("", self.scores), (", on the network's grid", self.grid_scores))
            if scores.slices
        }
        if moved := sum("registration" in row for row in rows):
            told["registered by header only"] = f"{moved} of {len(rows)} cases, see cases.csv"
        told |= {name: fact for one in self.further for name, fact in one.facts().items()}
        facts |= told
        for one in self.further:
            pictures |= one.write(self.folder)
        report.write_report(self.folder, self.title, summary, rows, facts, pictures, unit)
        print(scoring.format_table(rows, summary, unit))
        print(f"Mean Dice over patients, 95 % interval: {likely} (bootstrap).")
        print(f"On the network's grid: {on_grid}.")
        for what, figures in told.items():
            print(f"{what.capitalize()}: {figures}.")
        print(f"report: {self.folder / 'report.md'}\npictures: {self.folder / 'pictures'}")
        if self.record is not None:
            figures = {**self.scores.figures(), **self.grid_scores.figures()}
            figures |= {name: figure for one in self.further for name, figure in one.figures().items()}
            figures |= {name: end for one in intervals for name, end in one.items() if np.isfinite(end)}
            self.record(figures, self.folder)

    def _interval(self, scores: CaseScores) -> dict[str, float]:
        """Both ends of the 95 % interval of the mean Dice, under the names that are tracked."""
        by_patient: dict[Any, list[float]] = {}
        for row in scores.rows:
            by_patient.setdefault(row.get("patient", row["case"]), []).append(row["dice"])
        _, low, high = significance.interval([float(np.mean(dice)) for dice in by_patient.values()])
        return {f"{scores.prefix}_dice_low": low, f"{scores.prefix}_dice_high": high}

    def _name_patients(self) -> None:
        """Add the number of its patient to each row, so that cases of one patient are known as such."""
        patients = {case_name(case): str(case.get("patient", case_name(case))) for case in self.data}
        numbers = {patient: place for place, patient in enumerate(sorted(set(patients.values())), start=1)}
        for row in (*self.scores.rows, *self.grid_scores.rows):
            if row["case"] in patients:
                row["patient"] = numbers[patients[row["case"]]]

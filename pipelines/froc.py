"""Lesions found against false alarms an image, at every threshold: the free-response ROC, through MONAI."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine
from ignite.metrics import Metric
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from monai.data import ImageReader
from monai.metrics import compute_fp_tp_probs_nd, compute_froc_curve_data, compute_froc_score
from scipy import ndimage

from pipelines.datasets.checking import natural
from pipelines.files import written_whole
from pipelines.slices import case_name

RATES = (0.25, 0.5, 1, 2, 4, 8)
"""False detections an image at which `compute_froc_score` takes the sensitivity, by its defaults."""

NEIGHBOURS = np.ones((3, 3))  # a component holds together by edges and corners, as in `scoring`
COLOURS = ("black", "#0072B2", "#D55E00", "#009E73")  # of the palette of Okabe and Ito (2008)


class Hits(NamedTuple):
    """What an image's detections hit: the peaks of the false ones and of each lesion, 0 where not found."""

    false: np.ndarray
    lesions: np.ndarray


class Curve(NamedTuple):
    """A free-response ROC.

    Attributes:
        thresholds: that a detection's peak reaches, rising; above the last one there are no detections.
        false_per_image, sensitivity: at these, and 0 above.
        score: the mean sensitivity at `RATES` false detections an image.
        lesions, images: of which they are.
    """

    thresholds: np.ndarray
    false_per_image: np.ndarray
    sensitivity: np.ndarray
    score: float
    lesions: int
    images: int

    def at(self, rate: float) -> float:
        """The sensitivity at a rate of false detections, interpolated as for the score."""
        return float(np.interp(rate, self.false_per_image[::-1], self.sensitivity[::-1]))


def detections(probability: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The peaks of what a network sees: one for each component of pixels above a threshold.

    Args:
        probability: of a lesion, shape (W, H).
        threshold: the higher it is, the less runs together, and the fewer detections there are at all.

    Returns:
        The highest probability of each component, and the pixel that has it, (N, 2). Where several have it,
        as in the middle of a lesion that a network is sure of, it is the one nearest to their mean.
    """
    labels, count = ndimage.label(probability > threshold, NEIGHBOURS)
    peaks = np.zeros(count + 1, probability.dtype)
    np.maximum.at(peaks, labels.ravel(), probability.ravel())
    places = np.argwhere((probability == peaks[labels]) & (labels > 0))
    number = labels[tuple(places.T)]
    sizes = np.maximum(np.bincount(number, minlength=count + 1), 1)
    means = np.stack([np.bincount(number, axis, minlength=count + 1) / sizes for axis in places.T], axis=-1)
    far = ((places - means[number]) ** 2).sum(axis=1)
    least = np.full(count + 1, np.inf)
    np.minimum.at(least, number, far)
    nearest = places[far == least[number]]
    _, first = np.unique(labels[tuple(nearest.T)], return_index=True)
    return peaks[1:], nearest[first]


def hits(probability: np.ndarray, wanted: np.ndarray, ignored: np.ndarray, threshold: float) -> Hits:
    """Which lesions an image's detections hit, by MONAI's `compute_fp_tp_probs_nd`.

    A lesion is a component of `wanted`, and found by a detection whose peak lies in it; its own value is the
    highest of these. A detection in no lesion is false, but in what is ignored it counts for nothing.

    Args:
        probability, threshold: as for `detections`.
        wanted: bool, the lesions that are to be found, in the image's own pixels.
        ignored: bool, what else there is, such as lesions of another kind.
    """
    lesions, count = ndimage.label(wanted, NEIGHBOURS)
    lesions[ignored & ~wanted] = count + 1
    peaks, places = detections(probability, threshold)
    false, found, _ = compute_fp_tp_probs_nd(peaks, places, lesions, labels_to_exclude=[count + 1])
    return Hits(false.astype(np.float32), found[:count])


def curve(images: Sequence[Hits]) -> Curve | None:
    """The free-response ROC of some images, by MONAI; None where they show no lesion."""
    lesions = int(sum(len(image.lesions) for image in images))
    if not lesions:
        return None
    false = np.concatenate([image.false for image in images])
    # MONAI leaves out the lowest value, as that of lesions that were not found, even where all are.
    found = np.concatenate([np.zeros(1, np.float32), *(image.lesions for image in images)])
    rates, sensitivity = compute_froc_curve_data(false, found, lesions, len(images))
    score = float(compute_froc_score(rates, sensitivity, RATES))
    return Curve(np.unique([*false, *found])[1:], rates, sensitivity, score, lesions, len(images))


class Froc(Metric):
    """The free-response ROC of an evaluation, of all lesions together and of each kind by itself.

    The metric is `Curve.score` of all kinds together; PREFIX_KIND and PREFIX_lesions, PREFIX_KIND_lesions
    appear beside it. It is measured in pixels of the original image. In a distributed run each process looks
    at the cases it has, and all know of all.

    Args:
        data: the cases, with their `label` as the reader takes it.
        reader: gives a MONAI reader of the label maps for the labels that are to be drawn in them.
        kinds: name to label, such as `{"mass": 1}`. Each is drawn by itself, so that one that lies on
            another leaves no hole.
        others: labels of what is neither lesion nor false.
        threshold: for `detections`.
        prefix: of the names.
        pred_key: where the engine's output holds the probabilities, (1, W, H), on the image's grid.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        reader: Callable[[Sequence[int]], ImageReader],
        kinds: Mapping[str, int],
        others: Sequence[int] = (),
        threshold: float = 0.1,
        prefix: str = "test_froc",
        pred_key: str = "probability",
    ) -> None:
        self.labels = {case_name(case): case["label"] for case in data}
        self.kinds = dict(kinds)
        self.threshold = threshold
        self.prefix = prefix
        self.pred_key = pred_key
        drawn = {**{name: [label] for name, label in self.kinds.items()}, "": list(others)}
        self._readers = {name: reader(labels) for name, labels in drawn.items() if labels}
        super().__init__()

    def reset(self) -> None:
        """Forget the cases of the last evaluation."""
        self.found: dict[str, dict[str, Hits]] = {}
        self.curves: dict[str, Curve] = {}

    def iteration_completed(self, engine: Engine) -> None:
        """Look at the cases of a batch; the engine has taken it apart into one dictionary a case."""
        for source, result in zip(engine.state.batch, engine.state.output, strict=True):
            self.update((source["case"], result[self.pred_key]))

    def update(self, output: tuple[str, torch.Tensor]) -> None:
        """Look at one case: its name, and the probabilities."""
        case, probability = output
        probability = np.asarray(torch.as_tensor(probability)[0].float().cpu())
        drawn = {name: self._drawn(reader, case) for name, reader in self._readers.items()}
        everything = np.logical_or.reduce(list(drawn.values()))
        lesions = np.logical_or.reduce([drawn[name] for name in self.kinds])
        wanted = {"": lesions, **{name: drawn[name] for name in self.kinds}}
        self.found[case] = {
            name: hits(probability, mask, everything, self.threshold) for name, mask in wanted.items()
        }

    def _drawn(self, reader: ImageReader, case: str) -> np.ndarray:
        labels, _ = reader.get_data(reader.read(self.labels[case]))
        return labels > 0

    def compute(self) -> float:
        """The score of all kinds together; nan where no case shows a lesion."""
        if idist.get_world_size() > 1:
            parts: list[Any] = [None] * idist.get_world_size()
            torch.distributed.all_gather_object(parts, self.found)
            self.found = {case: found for part in parts for case, found in part.items()}
        cases = [self.found[case] for case in sorted(self.found, key=natural)]
        curves = {name: curve([found[name] for found in cases]) for name in ("", *self.kinds)}
        self.curves = {name: one for name, one in curves.items() if one}
        return self.curves[""].score if self.curves else float("nan")

    def completed(self, engine: Engine, name: str) -> None:
        """Put the metric and the figures beside it into the engine's state."""
        engine.state.metrics[name] = self.compute()
        engine.state.metrics.update(self.figures())

    def figures(self) -> dict[str, float]:
        """What is tracked: the scores of all and of each kind, and of how many lesions they are."""
        names = {kind: f"{self.prefix}_{kind}".removesuffix("_") for kind in self.curves}
        scores = {names[kind]: one.score for kind, one in self.curves.items()}
        return scores | {f"{names[kind]}_lesions": float(one.lesions) for kind, one in self.curves.items()}

    def facts(self) -> dict[str, str]:
        """A line for all lesions and for each kind, for a report."""
        rates = ", ".join(f"{rate:g}" for rate in RATES)
        return {
            f"sensitivity at {rates} false an image, {_plural(kind)}": (
                f"{', '.join(f'{one.at(rate):.3f}' for rate in RATES)}; mean {one.score:.3f} "
                f"({one.lesions} in {one.images} images, detections above {self.threshold:g})"
            )
            for kind, one in self.curves.items()
        }

    def write(self, folder: str | Path) -> dict[str, Path]:
        """Write `froc.csv` and the picture `froc.png`.

        Returns:
            Caption to picture, for a report; nothing where there is no lesion.
        """
        if not self.curves:
            return {}
        table, picture = Path(folder) / "froc.csv", Path(folder) / "froc.png"
        with written_whole(table) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["lesions", "threshold", "false_per_image", "sensitivity"])
            for kind, one in self.curves.items():
                # Above all of them nothing is detected.
                points = zip([*one.thresholds, ""], one.false_per_image, one.sensitivity, strict=True)
                writer.writerows([kind or "all", *point] for point in points)
        draw(self.curves, picture)
        return {"Lesions found against false detections (FROC)": picture}


def draw(curves: Mapping[str, Curve], path: str | Path) -> None:
    """Draw the curves of kinds of lesions, "" for all, with the points that a score is the mean of."""
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("symlog", linthresh=RATES[0], linscale=0.5)
    for (kind, one), colour in zip(curves.items(), COLOURS, strict=False):
        label = f"{_plural(kind)} ({one.lesions}): {one.score:.3f}"
        axes.plot(one.false_per_image, one.sensitivity, color=colour, label=label)
        # Where there are no more false detections, no more lesions are found either.
        last = [one.false_per_image[0], max(RATES[-1], one.false_per_image[0])]
        axes.plot(last, [one.sensitivity[0]] * 2, color=colour, ls=":")
        axes.plot(RATES, [one.at(rate) for rate in RATES], "o", color=colour, ms=5)
    axes.xaxis.set_major_locator(FixedLocator([0, *RATES]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(xlabel="false detections an image", ylabel="lesions found", ylim=(-0.02, 1.02), xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9, title="number, mean of the points", loc="best")
    FigureCanvasAgg(figure)
    with written_whole(path) as beside:
        figure.savefig(beside, dpi=120, format="png")


def _plural(kind: str) -> str:
    return f"{kind}{'es' if kind.endswith('s') else 's'}" if kind else "all lesions"

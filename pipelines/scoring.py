"""Scores of a segmentation, with a stated policy for the cases where a score is not defined.

Means count every case. MONAI's metrics return nan for an empty truth and leave it out of the mean, which
flatters a network that sees lesions where there are none; here such a case has a score (see `score_case`),
and the number of missed and of false-alarm cases stands beside every mean.

Dice and IoU (the Jaccard index) are both reported: Pandey et al. (2018, the `lits` recipe) call Dice what
their formula says is the Jaccard index, so either may be the number that theirs is compared with.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from scipy.spatial import KDTree

from pipelines.errors import DataError
from pipelines.files import written_whole

SCORES: dict[str, type] = {
    "dice": float,
    "iou": float,
    "hd95": float,
    "missed": bool,
    "false_alarm": bool,
    "lesions": int,
    "lesions_found": int,
    "lesions_missed": int,
    "lesions_false": int,
    "true_positive": int,
    "false_positive": int,
    "false_negative": int,
    "truth_volume_ml": float,
    "prediction_volume_ml": float,
    "truth_area": float,
    "prediction_area": float,
    "slices": int,
    "slice_dice": float,
    "slice_iou": float,
    "slices_missed": int,
    "slices_false_alarm": int,
}
"""The scores of a case, or of its slices, and their types, in the order of the columns of a table."""


def binary_mask(mask: Any, name: str) -> np.ndarray:
    """`mask` as a NumPy array of bool.

    Args:
        mask: NumPy array or torch tensor of any shape; bool, or numbers that are all 0 or 1.
        name: what the mask is called in an error.

    Raises:
        DataError: a value is NaN, or neither 0 nor 1.
    """
    if not isinstance(mask, np.ndarray):
        from monai.utils import convert_to_numpy  # reading scores needs none of MONAI

        mask = convert_to_numpy(mask)
    array = np.asarray(mask)
    if array.dtype == bool:
        return array
    ones = array == 1
    wrong = ~ones & (array != 0)
    if wrong.any():
        found = f"{array[wrong][0]} (and {int(wrong.sum()) - 1} more values that are neither)"
        raise DataError(f"expected {name} to be a mask of 0 and 1, found {found}; threshold it first")
    return ones


def score_case(prediction: Any, truth: Any, spacing: Sequence[float]) -> dict[str, float | int | bool]:
    """Score one predicted mask against the true one.

    Undefined cases follow one policy. Empty prediction on empty truth: Dice and IoU 1, HD95 0. Prediction on
    empty truth (a false alarm): Dice and IoU 0, HD95 the image's diagonal. Empty prediction on a lesion: Dice
    and IoU 0, HD95 the diagonal. The diagonal is the distance between the centres of opposite corner voxels,
    `norm((shape - 1) * spacing)`: no distance in the image is larger, so nothing is worse than a missed case.

    HD95 is the larger of the two directed 95th percentiles (linearly interpolated) of the distances from the
    surface voxels of one mask to the nearest surface voxel of the other. MONAI's `compute_hausdorff_distance`
    and the evaluation of the WMH challenge (Kuijf et al., IEEE TMI 38(11), 2019,
    doi:10.1109/TMI.2019.2905770) take the same percentile; MedPy's `hd95` pools the two directions first,
    which differs. A surface voxel is one with a face neighbour outside the mask, and what is beyond the image
    is outside.

    A lesion is a connected component by faces, edges and corners (26 neighbours in 3D, 8 in 2D). It is found
    if the prediction shares at least one voxel with it; a predicted component that shares none with the truth
    is false. This is the rule of the same challenge. How well a lesion is outlined is left to Dice and HD95.

    Args:
        prediction: binary mask, 2 or 3 spatial axes and no channel; NumPy or torch, bool or 0 and 1.
        truth: binary mask of the same shape.
        spacing: distance of voxel centres along each axis, in mm (or 1 for pixels).

    Returns:
        `dice` and `iou` (0 to 1); `hd95` in the unit of `spacing`; `missed` (there is a lesion, and no
        overlap at all); `false_alarm` (no lesion, but a prediction); `lesions`, `lesions_found` and
        `lesions_missed` (components of the truth); `lesions_false` (components of the prediction); the
        numbers of voxels `true_positive`, `false_positive` and `false_negative`; in 3D `truth_volume_ml` and
        `prediction_volume_ml` (`spacing` in mm), in 2D `truth_area` and `prediction_area` (unit squared).

    Raises:
        DataError: (a ValueError) the shapes differ, a mask is not binary or holds NaN, there are not 2 or 3
            axes, or `spacing` is not one positive number an axis.
    """
    prediction, truth = binary_mask(prediction, "the prediction"), binary_mask(truth, "the truth")
    if prediction.shape != truth.shape:
        raise DataError(
            f"expected a prediction in the geometry of the truth, {truth.shape}, found {prediction.shape}; "
            "invert its preprocessing"
        )
    if truth.ndim not in (2, 3):
        raise DataError(
            f"expected masks with 2 or 3 axes, found the shape {truth.shape}; take the channel away"
        )
    spacing = np.asarray(spacing, dtype=float)
    if spacing.shape != (truth.ndim,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise DataError(f"expected {truth.ndim} positive numbers as spacing, found {spacing.tolist()}")

    diagonal = float(np.linalg.norm((np.array(truth.shape) - 1) * spacing))
    # Nothing outside the two masks counts, and a lesion is small beside the volume it is in.
    boxes = ndimage.find_objects((prediction | truth).view(np.uint8))
    if boxes:
        prediction, truth = prediction[boxes[0]], truth[boxes[0]]

    both = int(np.count_nonzero(prediction & truth))
    predicted, true = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    dice, iou = _overlap(both, predicted - both, true - both)
    lesions, found = _components(truth, prediction)
    components, right = _components(prediction, truth)
    scores = {
        "dice": dice,
        "iou": iou,
        "hd95": _hd95(prediction, truth, spacing)
        if predicted and true
        else diagonal * bool(predicted or true),
        "missed": true > 0 and both == 0,
        "false_alarm": true == 0 and predicted > 0,
        "lesions": lesions,
        "lesions_found": found,
        "lesions_missed": lesions - found,
        "lesions_false": components - right,
        "true_positive": both,
        "false_positive": predicted - both,
        "false_negative": true - both,
    }
    voxel = float(spacing.prod())
    if truth.ndim == 3:
        return scores | {
            "truth_volume_ml": true * voxel / 1000,
            "prediction_volume_ml": predicted * voxel / 1000,
        }
    return scores | {"truth_area": true * voxel, "prediction_area": predicted * voxel}


def summarize(rows: Iterable[Mapping[str, Any]]) -> dict[str, float | int]:
    """The scores of a set of cases.

    Args:
        rows: what `score_case` returned, one mapping a case; other keys are left alone.

    Returns:
        `cases`; `dice_mean`, `dice_std` and the same for `iou` and `hd95`, over all cases (the standard
        deviation is the population's, so it is 0 for one case); `dice_global` and `iou_global` from the
        voxels of all cases together (1 where there are none); `cases_missed`, `cases_false_alarm`; the sums
        `lesions`, `lesions_found`, `lesions_missed`, `lesions_false`; `lesion_sensitivity`, the part of the
        lesions that was found (1 where there are none); `lesions_false_per_case`.

    Raises:
        DataError: there are no rows.
    """
    rows = list(rows)
    if not rows:
        raise DataError("expected cases to summarize, found none; check the split")

    def total(score: str) -> int:
        return int(sum(row[score] for row in rows))

    summary: dict[str, float | int] = {"cases": len(rows)}
    for score in ("dice", "iou", "hd95"):
        values = [row[score] for row in rows]
        summary |= {f"{score}_mean": float(np.mean(values)), f"{score}_std": float(np.std(values))}
    dice, iou = _overlap(total("true_positive"), total("false_positive"), total("false_negative"))
    lesions, found = total("lesions"), total("lesions_found")
    return summary | {
        "dice_global": dice,
        "iou_global": iou,
        "cases_missed": total("missed"),
        "cases_false_alarm": total("false_alarm"),
        "lesions": lesions,
        "lesions_found": found,
        "lesions_missed": total("lesions_missed"),
        "lesions_false": total("lesions_false"),
        "lesion_sensitivity": found / lesions if lesions else 1.0,
        "lesions_false_per_case": total("lesions_false") / len(rows),
    }


def write_cases(rows: Iterable[Mapping[str, Any]], path: str | Path) -> None:
    """Write a CSV with one row a case: `case`, whatever else is not a score (`fold`), then `SCORES`.

    Args:
        rows: mappings with `case` (its name) and the scores; a row may lack a column, which is then empty.
        path: the file; its folder is made.

    Raises:
        DataError: the disk is full or the folder cannot be written to.
    """
    rows = list(rows)
    keys = dict.fromkeys(key for row in rows for key in row)
    columns = ["case", *(key for key in keys if key != "case" and key not in SCORES)]
    columns += [score for score in SCORES if score in keys]
    with written_whole(path) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_cases(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a file of `write_cases`: scores in their types, `fold` an int, all else text.

    An empty cell gives no key.

    Raises:
        DataError: the file is missing or not such a table.
    """
    if not Path(path).is_file():
        raise DataError(f"expected a table of cases at {path}, found none; evaluate first")
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        heading = next(reader, None)
        if "case" not in (heading or ()):
            raise DataError(f"expected a column 'case' in {path}, found {heading}; is it a table of cases?")
        columns = [(key, _parser(key)) for key in heading]
        try:
            # A line that is cut short, as by a full disk, lacks its last columns.
            return [
                {key: parse(cell) for (key, parse), cell in zip(columns, row, strict=False) if cell}
                for row in reader
                if row
            ]
        except (ValueError, KeyError) as error:
            raise DataError(f"expected scores in {path}, line {reader.line_num}, found: {error}") from error


def mean_and_spread(summary: Mapping[str, float], score: str) -> str:
    """`0.612 ± 0.204` for `dice` and `iou`, with one digit after the point for `hd95`."""
    digits = 1 if score == "hd95" else 3
    return f"{summary[f'{score}_mean']:.{digits}f} ± {summary[f'{score}_std']:.{digits}f}"


def in_words(summary: Mapping[str, float], unit: str) -> str:
    """The means of a summary with the cases they hide, in a line; `unit` is that of `hd95`."""
    scores = [f"{name} {mean_and_spread(summary, name.lower())}" for name in ("Dice", "IoU", "HD95")]
    missed, alarms = summary["cases_missed"], summary["cases_false_alarm"]
    return f"{', '.join(scores)} {unit}; of {summary['cases']} cases {missed} missed, {alarms} false alarms"


def note(row: Mapping[str, Any]) -> str:
    """`missed` or `false alarm` where the case is one, else nothing."""
    return "missed" if row["missed"] else "false alarm" if row["false_alarm"] else ""


def headings(unit: str) -> list[str]:
    """The headings of a table of cases, `unit` being that of `hd95`."""
    return ["case", "Dice", "IoU", f"HD95 ({unit})", "lesions", "lesions missed", "lesions false", ""]


def cells(row: Mapping[str, Any]) -> list[str]:
    """A case as text, under `headings`."""
    scores = [f"{row['dice']:.3f}", f"{row['iou']:.3f}", f"{row['hd95']:.1f}"]
    lesions = [str(row[key]) for key in ("lesions", "lesions_missed", "lesions_false")]
    return [str(row["case"]), *scores, *lesions, note(row)]


def format_table(rows: Iterable[Mapping[str, Any]], summary: Mapping[str, float], unit: str = "mm") -> str:
    """A table for the terminal, plain text: a line a case, then means, global scores and lesions.

    Args:
        rows: mappings with `case` and the scores of `score_case`.
        summary: what `summarize` made of them.
        unit: the unit of `hd95`.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, heading in enumerate(headings(unit)):
        table.add_column(heading, justify="left" if place in (0, 7) else "right", no_wrap=place > 0)
    for row in rows:
        table.add_row(*cells(row))
    table.add_section()
    means = (mean_and_spread(summary, score) for score in ("dice", "iou", "hd95"))
    counts = (str(summary[key]) for key in ("lesions", "lesions_missed", "lesions_false"))
    table.add_row("mean ± std. dev.", *means, *counts)
    table.add_row("global", f"{summary['dice_global']:.3f}", f"{summary['iou_global']:.3f}")

    text = io.StringIO()
    # A case may be called anything, [red] too; and the text is the same whatever terminal asks for it.
    console = Console(file=text, width=160, markup=False, highlight=False, emoji=False, color_system=None)
    console.print(table)
    console.print(
        f"Of {summary['cases']} cases: missed {summary['cases_missed']}, false alarm "
        f"{summary['cases_false_alarm']}. {summary['lesions_found']} of {summary['lesions']} lesions found "
        f"({summary['lesion_sensitivity']:.1%}), {summary['lesions_false_per_case']:.2f} false a case.",
        soft_wrap=True,
    )
    return "\n".join(line.rstrip() for line in text.getvalue().strip("\n").splitlines())


def _overlap(both: int, only_prediction: int, only_truth: int) -> tuple[float, float]:
    """Dice and IoU from numbers of voxels; two empty masks agree."""
    union = both + only_prediction + only_truth
    return (2 * both / (both + union), both / union) if union else (1.0, 1.0)


def _components(mask: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """The number of connected components of `mask`, and of those that share a voxel with `other`."""
    labels, number = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, mask.ndim))
    return number, np.unique(labels[mask & other]).size


def _hd95(prediction: np.ndarray, truth: np.ndarray, spacing: np.ndarray) -> float:
    """The larger of the two directed 95th percentiles; neither mask is empty.

    Edges are MONAI's, distances SciPy's: MONAI rounds distances to single precision (3e-5 mm at 500 mm), and
    `torch.quantile` refuses more than 16 million values, which the noise of an untrained network can have.
    """
    from monai.metrics import get_mask_edges

    edges = [np.argwhere(edge) * spacing for edge in get_mask_edges(prediction, truth)]
    there = KDTree(edges[1]).query(edges[0])[0]
    back = KDTree(edges[0]).query(edges[1])[0]
    return max(float(np.percentile(distances, 95)) for distances in (there, back))


def _parser(key: str) -> Callable[[str], Any]:
    """What makes the value of a column of its text."""
    kind = int if key == "fold" else SCORES.get(key, str)
    return {float: _finite, bool: {"True": True, "False": False}.__getitem__}.get(kind, kind)


def _finite(cell: str) -> float:
    value = float(cell)
    if not math.isfinite(value):
        raise ValueError(cell)
    return value

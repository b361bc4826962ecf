"""Scores of a volume's axial slices, each as if it were a case, as papers that train on slices report them.

Such a mean differs from the one over volumes: a volume with many slices weighs more, and the many slices
without a lesion count 1 where nothing is found in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np

from pipelines.scoring import binary_mask

MEANS, COUNTS = ("slice_dice", "slice_iou"), ("slices_missed", "slices_false_alarm")


def axial(affine: Any) -> int:
    """The axis of a volume that runs from foot to head, along which its axial slices lie.

    Args:
        affine: (4, 4), from indices to mm (RAS+).
    """
    return int(np.flatnonzero(nib.io_orientation(np.asarray(affine))[:, 0] == 2)[0])


def score_slices(prediction: Any, truth: Any, axis: int) -> dict[str, float | int]:
    """Score each slice of a volume by the policy of `scoring.score_case`.

    Dice and IoU are 1 for an empty prediction on an empty slice, 0 for a lesion that is missed or invented.

    Args:
        prediction, truth: binary masks of one shape, three axes and no channel.
        axis: along which the slices lie.

    Returns:
        `slices`, their number; `slice_dice` and `slice_iou`, means over all of them; `slices_missed` (there
        is a lesion, and no overlap at all) and `slices_false_alarm` (no lesion, but a prediction).

    Raises:
        DataError: a mask is not binary or holds NaN.
    """
    prediction, truth = binary_mask(prediction, "the prediction"), binary_mask(truth, "the truth")
    within = tuple(other for other in range(truth.ndim) if other != axis)
    both, predicted, true = (
        np.count_nonzero(mask, axis=within) for mask in (prediction & truth, prediction, truth)
    )
    union = predicted + true - both
    return {
        "slices": truth.shape[axis],
        "slice_dice": float(np.where(union, 2 * both / np.maximum(predicted + true, 1), 1.0).mean()),
        "slice_iou": float(np.where(union, both / np.maximum(union, 1), 1.0).mean()),
        "slices_missed": int(np.count_nonzero((true > 0) & (both == 0))),
        "slices_false_alarm": int(np.count_nonzero((true == 0) & (predicted > 0))),
    }


def summarize(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | int]:
    """The scores of all slices of all cases.

    Args:
        rows: a mapping a case; those that `score_slices` gave nothing to are left out.

    Returns:
        `slices`, `slices_missed` and `slices_false_alarm`, their sums; `slice_dice_mean` and
        `slice_iou_mean`, in which each slice counts once, whichever case it is of; nothing without slices.
    """
    rows = [row for row in rows if "slices" in row]
    if not rows:
        return {}
    counts = [row["slices"] for row in rows]
    summary = {f"{key}_mean": float(np.average([row[key] for row in rows], weights=counts)) for key in MEANS}
    return summary | {key: sum(row[key] for row in rows) for key in ("slices", *COUNTS)}


def in_words(summary: Mapping[str, float]) -> str:
    """The means of a summary with what they hide, in a line."""
    dice, iou = summary["slice_dice_mean"], summary["slice_iou_mean"]
    missed, alarms = (summary[key] for key in COUNTS)
    return (
        f"Dice {dice:.3f}, IoU {iou:.3f}; of {summary['slices']} axial slices {missed} missed, "
        f"{alarms} false alarms"
    )

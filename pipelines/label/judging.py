"""Whether a new model is served: only where it is better than the served one on labels that neither saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Verdict:
    """What was decided, why in one sentence, and the figures that it rests on."""

    better: bool
    reason: str
    figures: dict[str, float]


def judge(
    served: Sequence[dict[str, Any]], candidate: Sequence[dict[str, Any]], version: int | None
) -> Verdict:
    """Compare two models by their mean Dice over patients; a patient with several images counts once.

    Args:
        served, candidate: `scoring.score_case` of the same labels, each with its `patient`.
        version: the served one's number.
    """
    before, after = _over_patients(served), _over_patients(candidate)
    better = after > before
    patients = len({row["patient"] for row in candidate})
    held_out = f"{_counted(len(candidate), 'label')} of {_counted(patients, 'patient')} held out"
    missed = [sum(row["missed"] or row["false_alarm"] for row in rows) for rows in (candidate, served)]
    reason = (
        f"Dice {after:.3f} on {held_out} ({missed[0]} missed or false), "
        f"{'better than' if better else 'no better than'} {before:.3f} of version {version} "
        f"({missed[1]} missed or false)"
    )
    figures = {"label_dice": after, "label_dice_served": before, "label_patients": float(patients)}
    return Verdict(better, reason, figures)


def _over_patients(rows: Sequence[dict[str, Any]]) -> float:
    by_patient: dict[str, list[float]] = {}
    for row in rows:
        by_patient.setdefault(row["patient"], []).append(float(row["dice"]))
    return float(np.mean([np.mean(dice) for dice in by_patient.values()]))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count > 1)}"

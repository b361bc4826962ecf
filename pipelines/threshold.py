"""The best fixed band of Hounsfield units: the baseline that a network for CT has to beat.

A voxel is lesion where `lowest <= HU <= highest`, everywhere in the volume, with the one pair of integers
that gives the training cases the highest mean Dice. No pair is left out: the Dice of all 45,451 bands in the
window follows in closed form from cumulative histograms of all voxels and of the lesion's, so that every
volume is read once and only its histograms are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
from tqdm import tqdm

from pipelines import datasets, folds
from pipelines.errors import DataError
from pipelines.files import read_json
from pipelines.scoring import binary_mask, score_case

LOWEST, HIGHEST = -100, 200
"""The window that bands are looked for in, HU: that of Pandey et al. (2018) for the liver."""

Case = TypeVar("Case")


def best_band(volumes: Iterable[tuple[np.ndarray, Any]]) -> tuple[int, int]:
    """The band of HU with the highest mean Dice over the training cases.

    A case without a lesion counts as in `score_case`: Dice 1 if none of its voxels is in the band, else 0. Of
    bands that are equally good, the one with the lowest lower end is taken, then with the lowest upper end.

    Args:
        volumes: pairs of a volume in HU (any shape, integers or floats) and the binary mask of its lesions
            (the same shape), one pair a case; gone through once.

    Returns:
        `(lowest, highest)`, integers from -100 to 200, both within the band.

    Raises:
        DataError: there is no case, the shapes of a case differ, its mask is not binary, or a HU is NaN.
    """
    total, cases = np.zeros((HIGHEST - LOWEST + 1, HIGHEST - LOWEST + 1)), 0
    for hu, truth in volumes:
        total += _dice_of_bands(_checked(hu), binary_mask(truth, "the truth"))
        cases += 1
    if not cases:
        raise DataError("expected training cases to choose a band of HU from, found none; check the split")
    total[np.tril_indices_from(total, -1)] = -1
    lower, upper = np.unravel_index(np.argmax(total), total.shape)
    return int(lower) + LOWEST, int(upper) + LOWEST


def band_rows(
    volumes: Iterable[tuple[str, np.ndarray, Any, Sequence[float]]], band: tuple[int, int]
) -> list[dict[str, Any]]:
    """Score a band on held-out cases.

    Args:
        volumes: `(case, hu, truth, spacing)` for each: its name, a volume in HU, the binary mask of its
            lesions (the same shape), and the distance of voxel centres along each axis in mm.
        band: the lowest and the highest HU that are lesion.

    Returns:
        A row a case: `case` and what `score_case` returns.

    Raises:
        DataError: a HU is NaN, and as `score_case`.
    """
    lowest, highest = band
    rows = []
    for case, hu, truth, spacing in volumes:
        hu = _checked(hu)
        rows.append({"case": case, **score_case((hu >= lowest) & (hu <= highest), truth, spacing)})
    return rows


def fixed_threshold(
    train_cases: Sequence[Case],
    heldout_cases: Sequence[Case],
    load: Callable[[Case], tuple[str, np.ndarray, Any, Sequence[float]]],
) -> tuple[tuple[int, int], list[dict[str, Any]]]:
    """Choose the band on the training cases and score it on the held-out ones, with a progress bar for each.

    Args:
        train_cases, heldout_cases: whatever `load` understands.
        load: reads a case and returns `(case, hu, truth, spacing)` as `band_rows` wants it. One volume is
            held at a time.

    Returns:
        The band, and a row a held-out case.
    """
    training = (load(case)[1:3] for case in tqdm(train_cases, desc="fixed threshold: choose", unit="case"))
    band = best_band(training)
    heldout = (load(case) for case in tqdm(heldout_cases, desc="fixed threshold: score", unit="case"))
    return band, band_rows(heldout, band)


def beside_run(folder: str | Path) -> tuple[tuple[int, int], list[dict[str, Any]]]:
    """The baseline on the cases of a run: chosen on those it was trained on, scored on those held out.

    Args:
        folder: of the run; its split, fold, dataset and target labels are used.

    Returns:
        The band, and a row a held-out case.

    Raises:
        DataError: no run there, or its dataset is gone.
    """
    note = read_json(Path(folder) / "run.json")
    cases = datasets.get(note["bundle"]).index(note["values"]["dataset_dir"])
    split = folds.split(cases, 0, file=Path(folder) / "split.json")
    targets = note["model_settings"]["target_labels"]

    def load(case: dict[str, str]) -> tuple[str, np.ndarray, np.ndarray, Sequence[float]]:
        image, label = nib.load(case["image"]), nib.load(case["label"])
        truth = np.isin(np.rint(label.dataobj), targets)
        return case["case"], np.asarray(image.dataobj), truth, image.header.get_zooms()[:3]

    training = folds.training_cases(cases, split, note["fold"])
    held_out = folds.held_out_cases(cases, split, note["fold"])
    return fixed_threshold(training, held_out, load)


def _checked(hu: Any) -> np.ndarray:
    hu = np.asarray(hu)
    if np.isnan(hu).any():
        raise DataError("expected a volume in HU, found NaN in it; check the file and how it was read")
    return hu


def _dice_of_bands(hu: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The Dice of every band on one case, `[lowest, highest]` from -100 on; meaningless where they cross."""
    if hu.shape != truth.shape:
        raise DataError(
            f"expected HU and truth of one shape, found {hu.shape} and {truth.shape}; check the case"
        )
    within, lesion = _voxels_of_bands(hu), _voxels_of_bands(hu[truth])
    sizes = within + np.count_nonzero(truth)
    return np.where(sizes == 0, 1.0, 2 * lesion / np.maximum(sizes, 1))


def _voxels_of_bands(hu: np.ndarray) -> np.ndarray:
    """How many voxels each band holds, `[lowest, highest]`: those up to its highest HU, less those below."""
    levels = HIGHEST - LOWEST + 1
    up_to, below = np.zeros(levels + 2, np.int64), np.zeros(levels + 2, np.int64)
    # A piece at a time: the bins of a whole volume would take several times its memory.
    for piece in np.array_split(hu.ravel(order="K"), hu.size // 2**20 + 1):
        # 10.5 HU is not up to 10, and not below 10 either: the two ends round differently.
        for counts, rounded in ((up_to, np.ceil), (below, np.floor)):
            bins = np.clip(rounded(piece.astype(float)), LOWEST - 1, HIGHEST + 1) - (LOWEST - 1)
            counts += np.bincount(bins.astype(np.int64), minlength=levels + 2)
    return np.cumsum(up_to)[None, 1 : levels + 1] - np.cumsum(below)[:levels, None]

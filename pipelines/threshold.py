"""The best fixed band of HU or grey levels: the baseline that a network has to beat.

A voxel (or pixel) is lesion where `lowest <= value <= highest`, everywhere in the image, with the one pair of
integers that gives the training cases the highest mean Dice. No pair is left out: the Dice of every band in
the dataset's levels (45,451 for the liver's window in CT, 32,896 for grey levels) follows in closed form from
cumulative histograms of all voxels and of the lesion's, so that every image is read once and only its
histograms are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from monai.bundle import ConfigParser
from tqdm import tqdm

from pipelines import datasets
from pipelines.datasets.reading import Levels
from pipelines.errors import DataError, user_message
from pipelines.files import read_json
from pipelines.scoring import binary_mask, read_cases, score_case

Case = TypeVar("Case")


class Comparison(NamedTuple):
    """What is printed of a fixed threshold beside a network."""

    band: tuple[int, int]
    levels: Levels  # that the band was looked for in
    rows: list[dict[str, Any]]  # one a held-out case, by the band
    network: list[dict[str, Any]]  # the same cases by the network
    unit: str  # of distances


def best_band(images: Iterable[tuple[np.ndarray, Any]], levels: Levels) -> tuple[int, int]:
    """The band of levels with the highest mean Dice over the training cases.

    A case without a lesion counts as in `score_case`: Dice 1 if none of its voxels is in the band, else 0. Of
    bands that are equally good, the one with the lowest lower end is taken, then with the lowest upper end.

    Args:
        images: pairs of an image (any shape, integers or floats) and the binary mask of its lesions (the same
            shape), one pair a case; gone through once.
        levels: the dataset's, such as `datasets.lits.LEVELS`.

    Returns:
        `(lowest, highest)`, integers within `levels`, both within the band.

    Raises:
        DataError: there is no case, the shapes of a case differ, its mask is not binary, or a value is NaN.
    """
    count, cases = levels.highest - levels.lowest + 1, 0
    total = np.zeros((count, count))
    for values, truth in images:
        total += _dice_of_bands(_checked(values), binary_mask(truth, "the truth"), levels)
        cases += 1
    if not cases:
        raise DataError("expected training cases to choose a threshold from, found none; check the split")
    total[np.tril_indices_from(total, -1)] = -1
    lower, upper = np.unravel_index(np.argmax(total), total.shape)
    return int(lower) + levels.lowest, int(upper) + levels.lowest


def band_rows(
    images: Iterable[tuple[str, np.ndarray, Any, Sequence[float]]], band: tuple[int, int]
) -> list[dict[str, Any]]:
    """Score a band on held-out cases.

    Args:
        images: `(case, values, truth, spacing)` for each: its name, an image, the binary mask of its lesions
            (the same shape), and the distance of voxel centres along each axis, in mm (or 1 for pixels).
        band: the lowest and the highest value that are lesion.

    Returns:
        A row a case: `case` and what `score_case` returns.

    Raises:
        DataError: a value is NaN, and as `score_case`.
    """
    lowest, highest = band
    rows = []
    for case, values, truth, spacing in images:
        values = _checked(values)
        rows.append({"case": case, **score_case((values >= lowest) & (values <= highest), truth, spacing)})
    return rows


def fixed_threshold(
    train_cases: Sequence[Case],
    heldout_cases: Sequence[Case],
    load: Callable[[Case], tuple[str, np.ndarray, Any, Sequence[float]]],
    levels: Levels,
) -> tuple[tuple[int, int], list[dict[str, Any]]]:
    """Choose the band on the training cases and score it on the held-out ones, with a progress bar for each.

    Args:
        train_cases, heldout_cases: whatever `load` understands.
        load: reads a case and returns `(case, values, truth, spacing)` as `band_rows` wants it. One image is
            held at a time.
        levels: as for `best_band`.

    Returns:
        The band, and a row a held-out case.
    """
    training = (load(case)[1:3] for case in tqdm(train_cases, desc="fixed threshold: choose", unit="case"))
    band = best_band(training, levels)
    heldout = (load(case) for case in tqdm(heldout_cases, desc="fixed threshold: score", unit="case"))
    return band, band_rows(heldout, band)


def beside_run(folder: str | Path) -> Comparison:
    """The baseline on the cases of a run: chosen on those it was trained on, scored on those held out.

    Which cases these are is asked of the run's own configuration, so that whatever it leaves out, such as
    images without a lesion or the fold that chose the best epoch, is left out here.

    Args:
        folder: of an evaluated run.

    Raises:
        DataError: no evaluated run there, its dataset is gone, or not the cases held out were evaluated.
    """
    folder = Path(folder)
    table = folder / "evaluation" / "cases.csv"
    network = read_cases(table)
    parts = ("bundle", "target_labels", "unit", "training_cases", "test_cases")
    name, targets, unit, training, held_out = _configured(folder, *parts)
    scored, expected = {row["case"] for row in network}, {case["case"] for case in held_out}
    if scored != expected:
        raise DataError(
            f"expected the {len(expected)} cases that {folder} held out in {table}, found "
            f"{len(expected - scored)} of them missing and {len(scored - expected)} others; "
            "evaluate the run again"
        )
    dataset = datasets.get(name)

    def load(case: dict[str, Any]) -> tuple[str, np.ndarray, np.ndarray, Sequence[float]]:
        return case["case"], *dataset.read(case, targets)

    band, rows = fixed_threshold(training, held_out, load, dataset.LEVELS)
    return Comparison(band, dataset.LEVELS, rows, network, unit)


def _configured(folder: Path, *parts: str) -> list[Any]:
    """Parts of a run's configuration, evaluated with the split that the run used."""
    parser = ConfigParser(read_json(folder / "config.json"))
    parser["split_file"] = str(folder / "split.json")
    try:
        return [parser.get_parsed_content(part) for part in parts]
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        raise DataError(message) from error


def _checked(values: Any) -> np.ndarray:
    values = np.asarray(values)
    if np.isnan(values).any():
        raise DataError("expected an image of numbers, found NaN in it; check the file and how it was read")
    return values


def _dice_of_bands(values: np.ndarray, truth: np.ndarray, levels: Levels) -> np.ndarray:
    """The Dice of every band on one case, `[lowest, highest]` of `levels`; meaningless where they cross."""
    if values.shape != truth.shape:
        raise DataError(
            f"expected image and truth of one shape, found {values.shape} and {truth.shape}; check the case"
        )
    within, lesion = _voxels_of_bands(values, levels), _voxels_of_bands(values[truth], levels)
    sizes = within + np.count_nonzero(truth)
    return np.where(sizes == 0, 1.0, 2 * lesion / np.maximum(sizes, 1))


def _voxels_of_bands(values: np.ndarray, levels: Levels) -> np.ndarray:
    """How many voxels each band holds, `[lowest, highest]`: those up to its highest, less those below."""
    _, lowest, highest = levels
    count = highest - lowest + 1
    up_to, below = np.zeros(count + 2, np.int64), np.zeros(count + 2, np.int64)
    # A piece at a time: the bins of a whole volume would take several times its memory.
    for piece in np.array_split(values.ravel(order="K"), values.size // 2**20 + 1):
        # 10.5 is not up to 10, and not below 10 either: the two ends round differently.
        for counts, rounded in ((up_to, np.ceil), (below, np.floor)):
            bins = np.clip(rounded(piece.astype(float)), lowest - 1, highest + 1) - (lowest - 1)
            counts += np.bincount(bins.astype(np.int64), minlength=count + 2)
    return np.cumsum(up_to)[None, 1 : count + 1] - np.cumsum(below)[:count, None]

"""Whether networks differ on the same cases: paired tests, intervals by resampling, and a test for a trend.

All of it takes one score a patient, the higher the better, such as the Dice, averaged over the seeds of a
network and over the patient's cases. Cases of one patient are not independent of each other: taken as if they
were, p is too small and intervals are too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from pipelines.errors import DataError

LEVEL = 0.05
RESAMPLES = 5000  # an end of the interval then moves by about 1 % of its width from seed to seed
DIGITS = 10  # one pixel changes a score by more; what is left beyond is rounding, which would break ties


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same cases.

    Attributes:
        first, second: their labels.
        patients: how many.
        difference: mean over the cases of the first's score minus the second's.
        low, high: its 95 % interval (see `interval`).
        p: of the two-sided Wilcoxon signed-rank test.
        p_holm: the same, corrected for all pairs that were compared, by Holm.
        words: which of the two is better, if that was shown.
    """

    first: str
    second: str
    patients: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    words: str


def compare_all(scores: Mapping[str, Mapping[str, float]], seed: int = 0) -> list[Comparison]:
    """Compare every network with every other, case by case.

    The test is Wilcoxon's (1945) with the zeros of Pratt (1959): cases on which both score the same are
    ranked but count for neither. Its null hypothesis is that the differences are symmetric about zero. Up to
    13 cases p is exact, up to 50 where no two differences are equal and none is zero; else it is that of the
    normal distribution. p is corrected as in Holm (1979), so that if no two networks differ, the chance of
    one or more "better" is at most 0.05.

    Args:
        scores: label -> case -> score, the higher the better.
        seed: of the resampling.

    Returns:
        The pairs in the order of the labels. Their `words` are "no difference" where every case has the same
        score, "no difference shown" where `p_holm` is 0.05 or more, "LABEL better" else. Where ranks, on
        which the test rests, and mean point to different networks, the words say so.

    Raises:
        DataError: the networks were not scored on the same cases, on none, or a score is not a number.
    """
    pairs = list(combinations(scores, 2))
    differences = [_differences(scores, *pair) for pair in pairs]
    ps = [_wilcoxon(one) for one in differences]
    found = []
    for (first, second), one, ends, p, p_holm in zip(
        pairs, differences, _intervals(differences, seed), ps, holm(ps), strict=True
    ):
        mean, low, high = ends
        words = _words(first, second, one, p_holm)
        found.append(Comparison(first, second, len(one), mean, low, high, p, p_holm, words))
    return found


def holm(ps: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in their order (Holm, Scand J Stat 6:65, 1979).

    The smallest of m is multiplied by m, the next by m - 1, and so on; none is above 1, nor below one that
    was smaller before.
    """
    order = np.argsort(ps, kind="stable")
    steps = np.asarray(ps, float)[order] * np.arange(len(ps), 0, -1)
    corrected = np.empty(len(ps))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected.tolist()


def interval(values: Iterable[float], seed: int = 0) -> tuple[float, float, float]:
    """A mean over cases and its interval: made so of many samples of cases, 95 % would hold the true mean.

    Bootstrap, bias-corrected and accelerated (Efron, JASA 82:171, 1987). It says nothing of what another
    initialisation would have given. Of few cases, say below 20, it is too narrow.

    Args:
        values: one a case.
        seed: of the resampling.

    Returns:
        Mean, low and high. Of a single case both ends are nan; of equal values they are that value.

    Raises:
        DataError: there are no values, or one is not a number.
    """
    return _intervals([_numbers(values)], seed)[0]


def _intervals(rows: Sequence[np.ndarray], seed: int) -> list[tuple[float, float, float]]:
    """`interval` of several rows of one length, all with the same resamples.

    What is resampled are the numbers of the cases. How often each was drawn, times the rows, are the means of
    all rows at once.
    """
    found = [
        (float(row.mean()),) * 3 if len(row) > 1 else (float(row[0]), math.nan, math.nan) for row in rows
    ]
    # Of equal values no resample differs, which the correction divides by.
    several = [number for number, row in enumerate(rows) if np.ptp(row)]
    if not several:
        return found
    values = np.stack([rows[number] for number in several])
    cases = values.shape[1]

    def means(drawn: np.ndarray, axis: int) -> np.ndarray:
        lines = np.atleast_2d(np.moveaxis(drawn, axis, -1))
        places = lines + cases * np.arange(len(lines))[:, None]
        times = np.bincount(places.ravel(), minlength=cases * len(lines)).reshape(-1, cases)
        # Ties with the mean itself count half, so they may not be broken by rounding.
        found = np.round(values @ times.T / lines.shape[1], DIGITS + 2)
        return found if drawn.ndim > 1 else found[:, 0]

    ends = stats.bootstrap(
        (np.arange(cases),),
        means,
        n_resamples=RESAMPLES,
        batch=500,
        vectorized=True,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    for number, low, high in zip(several, ends.low, ends.high, strict=True):
        found[number] = found[number][0], float(low), float(high)
    return found


def trend(scores: Sequence[Mapping[str, float]]) -> float:
    """p of Page's test (1963) for a predicted order of networks on the same cases.

    Small where the scores fall along the sequence, as "Dice falls with the group size" predicts for group
    sizes of 128, 64, ..., 1; near 1 where they rise. The null hypothesis is that all networks are equally
    good, so a small p says that some later network is worse than some earlier one, not that each step is. As
    few as 3 networks on 2 cases can be tested; the test is one-sided, and ignores by how much scores differ.

    Args:
        scores: case -> score, the higher the better, of each network, the one predicted best first.

    Raises:
        DataError: fewer than 3 networks or 2 cases, or not the same cases for all.
    """
    numbered = {str(number): one for number, one in enumerate(scores, start=1)}
    if len(numbered) < 3 or len(numbered["1"]) < 2:
        found = f"{len(numbered)} and {min(map(len, numbered.values()), default=0)}"
        raise DataError(
            f"expected 3 networks and 2 cases or more to test for a trend, found {found}; add some"
        )
    for label in numbered:
        _same_cases("1", label, numbered)
    columns = [_numbers(one[case] for case in numbered["1"]) for one in reversed(numbered.values())]
    return float(stats.page_trend_test(np.round(np.transpose(columns), DIGITS)).pvalue)


def _differences(scores: Mapping[str, Mapping[str, float]], first: str, second: str) -> np.ndarray:
    """First minus second of each case, without what is but rounding."""
    _same_cases(first, second, scores)
    one, other = (_numbers(scores[label][case] for case in scores[first]) for label in (first, second))
    return np.round(one - other, DIGITS)


def _same_cases(first: str, second: str, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Cases are counted, not named, since they may be called after patients."""
    only_first, only_second = (
        len(scores[one].keys() - scores[other].keys()) for one, other in ((first, second), (second, first))
    )
    if only_first or only_second:
        raise DataError(
            f"expected the same cases for {first} and {second}, found {only_first} only in {first} and "
            f"{only_second} only in {second}; compare runs of the same data and folds"
        )


def _numbers(values: Iterable[float]) -> np.ndarray:
    values = np.fromiter(values, float)
    if not len(values):
        raise DataError("expected cases with a score, found none; evaluate first")
    if wrong := int((~np.isfinite(values)).sum()):
        raise DataError(
            f"expected a number as the score of each case, found {wrong} of {len(values)} that are none; "
            "evaluate again"
        )
    return values


def _wilcoxon(differences: np.ndarray) -> float:
    if not differences.any():  # SciPy says nan
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="pratt").pvalue)


def _words(first: str, second: str, differences: np.ndarray, p_holm: float) -> str:
    if not differences.any():
        return "no difference"
    if p_holm >= LEVEL:
        return "no difference shown"
    ranks = float(np.sign(differences) @ stats.rankdata(np.abs(differences)))
    better, other = (first, second) if ranks > 0 else (second, first)
    if ranks * differences.mean() < 0:
        return f"{better} better by ranks, {other} by the mean"
    return f"{better} better"

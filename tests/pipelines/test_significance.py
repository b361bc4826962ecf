from __future__ import annotations

import math
from itertools import permutations, product

import numpy as np
import pytest
from scipy import stats

from pipelines.errors import DataError
from pipelines.significance import compare_all, holm, interval, trend


def cases(values) -> dict[str, float]:
    return {f"case {number}": float(value) for number, value in enumerate(values)}


def enumerated(differences: list[float]) -> float:
    """Two-sided p of the signed ranks, by trying every sign; zeros are ranked, then dropped (Pratt)."""
    sizes = sorted(abs(one) for one in differences)
    ranks = [
        np.mean([place for place, size in enumerate(sizes, 1) if size == abs(one)]) for one in differences
    ]
    kept = [(rank, one > 0) for rank, one in zip(ranks, differences, strict=True) if one]
    centre = sum(rank for rank, _ in kept) / 2
    found = abs(sum(rank for rank, positive in kept if positive) - centre)
    sums = [
        sum(rank for (rank, _), positive in zip(kept, signs, strict=True) if positive)
        for signs in product((False, True), repeat=len(kept))
    ]
    return float(np.mean([abs(one - centre) >= found - 1e-9 for one in sums]))


@pytest.mark.parametrize(
    "differences",
    [
        [0.05, -0.01, 0.02, 0.03, 0.04],
        [0.08, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, -0.07],
        [0.0, 0.0, 0.02, 0.03, 0.04, -0.05, 0.06],  # equal scores on two cases
        [0.02, 0.02, 0.02, -0.02, 0.05, 0.07, 0.07],  # ties
    ],
)
def test_p_of_few_cases_is_that_of_every_sign_tried(differences):
    second = np.linspace(0.31, 0.83, len(differences))
    (found,) = compare_all({"a": cases(second + differences), "b": cases(second)})
    assert found.p == pytest.approx(enumerated(differences), abs=1e-12)
    assert found.p_holm == found.p
    assert found.patients == len(differences)
    assert found.difference == pytest.approx(np.mean(differences))


def test_rounding_breaks_no_ties():
    # 0.8 - 0.7 and 0.3 - 0.2 are not the same to the computer.
    assert 0.8 - 0.7 != 0.3 - 0.2
    first, second = [0.8, 0.3, 0.5, 0.6, 0.9, 0.7], [0.7, 0.2, 0.6, 0.5, 0.8, 0.6]
    (found,) = compare_all({"a": cases(first), "b": cases(second)})
    assert found.p == pytest.approx(enumerated([0.1, 0.1, -0.1, 0.1, 0.1, 0.1]))


def test_p_of_many_cases_is_scipys():
    rng = np.random.default_rng(1)
    first, second = rng.uniform(0, 1, (2, 200))
    (found,) = compare_all({"a": cases(first), "b": cases(second)})
    assert found.p == pytest.approx(stats.wilcoxon(first, second).pvalue, rel=1e-6)


def test_holm_by_hand():
    # 0.01 * 4, then 0.02 * 3, then 0.03 * 2 = 0.06, no less than the one before; 0.5 stays.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.4, 0.6]) == pytest.approx([0.8, 0.8])
    assert holm([0.9, 0.7, 0.8]) == [1, 1, 1]
    assert holm([]) == []


def test_pairs_are_corrected_together_and_in_the_order_of_the_labels():
    rng = np.random.default_rng(2)
    base = rng.uniform(0.2, 0.8, 60)
    scores = {"z": cases(base), "a": cases(base - 0.1), "m": cases(base + rng.normal(0, 0.05, 60))}
    found = compare_all(scores)
    assert [(one.first, one.second) for one in found] == [("z", "a"), ("z", "m"), ("a", "m")]
    assert [one.p_holm for one in found] == pytest.approx(holm([one.p for one in found]))
    assert found[1].p_holm == found[1].p  # the largest of three
    assert [one.words for one in found] == ["z better", "no difference shown", "m better"]
    assert found[0].difference == pytest.approx(0.1)
    assert (found[0].low, found[0].high) == pytest.approx((0.1, 0.1))


def test_cases_are_paired_by_name():
    rng = np.random.default_rng(3)
    first = cases(rng.uniform(0, 1, 20))
    shuffled = {case: first[case] - 0.01 for case in reversed(first)}
    (found,) = compare_all({"a": first, "b": shuffled})
    assert found.difference == pytest.approx(0.01) and found.words == "a better"


def test_the_same_network_twice_has_no_difference():
    scores = cases(np.random.default_rng(4).uniform(0, 1, 30))
    (found,) = compare_all({"a": scores, "twin": dict(scores)})
    assert found.words == "no difference"
    assert (found.difference, found.low, found.high, found.p, found.p_holm) == (0, 0, 0, 1, 1)


def test_ranks_and_mean_that_disagree_are_told():
    differences = np.full(30, 0.01) + np.arange(30) * 1e-4
    differences[:2] = -0.9  # two cases lost altogether
    base = np.full(30, 0.95)
    (found,) = compare_all({"a": cases(base + differences), "b": cases(base)})
    assert found.p < 0.05 and found.difference < 0
    assert found.words == "a better by ranks, b by the mean"


def test_false_claims_are_as_rare_as_the_level_says():
    rng = np.random.default_rng(5)
    claims = 0
    for _ in range(60):
        base = rng.uniform(0.3, 0.9, 20)
        scores = {name: cases(base + rng.normal(0, 0.05, 20)) for name in "abcd"}
        claims += any("better" in one.words for one in compare_all(scores))
    assert claims <= 9  # above 9 of 60 once in a thousand times; without the correction there are 19


def test_intervals_hold_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(6)
    hits, widths = 0, []
    for number in range(200):
        mean, low, high = interval(rng.normal(0.7, 0.1, 40), seed=number)
        hits += low <= 0.7 <= high
        widths.append(high - low)
        assert low < mean < high
    assert 180 <= hits <= 198  # 190 expected, and slightly fewer of 40 cases
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 0.1 / math.sqrt(40), rel=0.06)


def test_interval_is_the_same_for_the_same_seed():
    values = np.random.default_rng(7).uniform(0, 1, 50)
    assert interval(values, seed=3) == interval(list(values), seed=3)
    assert interval(values, seed=3) != interval(values, seed=4)
    assert interval(values)[0] == pytest.approx(values.mean())


def test_interval_leans_with_the_data():
    # Most cases nearly perfect, some missed: the mean could be lower by more than it could be higher.
    values = np.r_[np.full(45, 0.95), np.zeros(5)] + np.arange(50) * 1e-4
    mean, low, high = interval(values)
    assert mean - low > high - mean


def test_interval_of_one_value_and_of_equal_ones():
    mean, low, high = interval([0.4])
    assert mean == 0.4 and math.isnan(low) and math.isnan(high)
    assert interval([0.4, 0.4, 0.4]) == pytest.approx((0.4, 0.4, 0.4))
    mean, low, high = interval([0.0, 1.0])
    assert (mean, low, high) == (0.5, 0, 1)


def test_trend_of_few_cases_is_that_of_every_order_tried():
    scores = np.array([[0.9, 0.8, 0.7], [0.8, 0.6, 0.7], [0.5, 0.9, 0.4]])  # a row a case, best first
    weights = np.array([3, 2, 1])

    def page(rows) -> float:
        return sum(weights @ stats.rankdata(row) for row in rows)

    every = [page(rows) for rows in product(permutations((1, 2, 3)), repeat=3)]
    expected = np.mean([one >= page(scores) for one in every])
    assert trend([cases(column) for column in scores.T]) == pytest.approx(expected)


def test_trend_is_one_sided():
    rng = np.random.default_rng(8)
    falling = [cases(0.8 - 0.02 * step + rng.normal(0, 0.02, 30)) for step in range(8)]
    assert trend(falling) < 1e-6
    assert trend(falling[::-1]) > 0.999
    assert trend([falling[0]] * 8) == pytest.approx(0.5)


def test_other_cases_are_counted_and_not_named():
    one = {"Miller": 0.5, "Jones": 0.6, "Smith": 0.7}
    other = {"Miller": 0.5, "Brown": 0.6}
    with pytest.raises(DataError, match="found 2 only in NetA and 1 only in NetB; compare") as error:
        compare_all({"NetA": one, "NetB": other})
    assert not any(name in str(error.value) for name in ("Miller", "Jones", "Smith", "Brown"))
    with pytest.raises(DataError, match="2 only in 1 and 1 only in 3"):
        trend([one, one, other])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare_all({"a": {}, "b": {}}), "cases with a score, found none"),
        (lambda: compare_all({"a": {"x": 1.0}, "b": {"x": math.nan}}), "found 1 of 1 that are none"),
        (lambda: interval([]), "found none"),
        (lambda: interval([0.5, math.inf]), "found 1 of 2"),
        (lambda: trend([{"x": 1.0, "y": 0.5}] * 2), "found 2 and 2; add some"),
        (lambda: trend([{"x": 1.0}] * 3), "found 3 and 1; add some"),
        (lambda: trend([]), "found 0 and 0"),
    ],
)
def test_what_cannot_be_tested_is_an_error(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_one_network_has_no_pair():
    assert compare_all({"a": {"x": 0.5}}) == [] == compare_all({})

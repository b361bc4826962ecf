from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from pipelines.compare_groups import ScoredRun, grouped
from tests.pipelines.tracked_runs import PARAMS, TAGS, rows


def run(dice, first=0, start=0, params=None, metrics=None, minutes=2.0, **tags):
    info = SimpleNamespace(run_id=str(id(dice)), start_time=start, end_time=start + minutes * 60_000)
    tags = {**TAGS, **{key: str(value) for key, value in tags.items()}}
    data = SimpleNamespace(tags=tags, params={**PARAMS, **(params or {})}, metrics=metrics or {})
    return ScoredRun(SimpleNamespace(info=info, data=data), rows(dice, first))


def labels(runs, across=()):
    groups, _ = grouped(runs, across)
    return sorted(group.label for group in groups)


def test_folds_are_pooled_for_each_seed_and_seeds_give_the_spread():
    runs = [
        run([0.8, 0.7], first=0, seed=0, fold=0),
        run([0.3], first=2, seed=0, fold=1),
        run([0.9, 0.6], first=0, seed=1, fold=0),
        run([0.6], first=2, seed=1, fold=1),
    ]
    (group,), notes = grouped(runs, ())
    # Means of three cases: 1.8 / 3 and 2.1 / 3. The mean of the means of folds would be 0.525 and 0.675.
    assert group.spread("dice").mean == pytest.approx(0.65)
    assert group.spread("dice").std == pytest.approx(0.1 / math.sqrt(2))
    assert group.spread("hd95").mean == pytest.approx(3.5)
    assert group.case_dice == pytest.approx({"Doe-0": 0.85, "Doe-1": 0.65, "Doe-2": 0.45})
    assert (list(group.by_seed), group.folds, notes) == (["0", "1"], ["0", "1"], [])


def test_cases_of_one_patient_count_as_one_and_folds_have_patients_of_their_own():
    runs = [run([0.8, 0.4], seed=0, fold=0), run([0.6, 0.2], seed=1, fold=0), run([0.3], 2, seed=0, fold=1)]
    for one in runs:
        for row in one.rows:
            row["patient"] = 1
    (group,), _ = grouped(runs, ())
    assert group.patient_dice == pytest.approx({"0:1": 0.5, "1:1": 0.3})
    assert group.knows_patients
    del runs[0].rows[0]["patient"]
    assert not grouped(runs, ())[0][0].knows_patients


def test_one_seed_has_no_spread():
    (group,), _ = grouped([run([0.8, 0.4])], ())
    assert group.spread("dice").mean == pytest.approx(0.6)
    assert group.spread("dice").std is None


def test_cases_and_lesions_are_counted_over_all_runs():
    (group,), _ = grouped([run([0.8, 0.0], seed=0), run([0.0, 0.0], seed=1)], ())
    found = {key: group.counts[key] for key in ("cases", "cases_missed", "lesions", "lesions_missed")}
    assert found == {"cases": 4, "cases_missed": 3, "lesions": 4, "lesions_missed": 3}
    assert group.counts["lesions_false_per_case"] == 2


def test_params_and_speed_are_those_of_the_runs():
    runs = [
        run([0.8], seed=0, metrics={"images_per_second": 10.0}, minutes=2),
        run([0.8], seed=1, metrics={"images_per_second": 20.0}, minutes=5),
        run([0.8], seed=2, minutes=5),
    ]
    (group,), _ = grouped(runs, ())
    assert (group.parameters, group.gmacs, group.unit) == (760, 0.5, "pixels")
    assert (group.images_per_second, group.minutes) == (15, 4)


def test_networks_and_overlays_are_groups_of_their_own():
    runs = [run([0.8]), run([0.8], network="Lighter"), run([0.8], overlay="no_calipers")]
    assert labels(runs) == ["Lighter", "Plain", "Plain, no_calipers"]


@pytest.mark.parametrize("respect", ["data", "split", "code"])
def test_what_differs_is_never_averaged_and_stands_in_the_label(respect):
    runs = [run([0.8]), run([0.2], **{respect: "0123456789abcdef"}), run([0.5], network="Lighter")]
    groups, notes = grouped(runs, ())
    assert sorted(group.spread("dice").mean for group in groups) == [0.2, 0.5, 0.8]
    first = TAGS[respect][:6]
    assert labels(runs) == ["Lighter", f"Plain, {respect} 012345", f"Plain, {respect} {first}"]
    assert notes == [f"not all rows have the same {respect}: see that column of table.csv"]


def test_devices_are_called_by_their_names():
    runs = [run([0.8]), run([0.2], device="cuda NVIDIA H200")]
    assert labels(runs) == ["Plain, device cpu", "Plain, device cuda NVIDIA H200"]


def test_recipes_are_told_by_the_params_that_differ():
    runs = [
        run([0.8], seed=0, fold=0, params={"seed": 0, "fold": 0, "validation_fold": 1}),
        run([0.2], seed=1, fold=1, recipe="f" * 16, params={"seed": 1, "max_epochs": 20, "batch_size": 4}),
        run([0.2], seed=2, fold=1, recipe="f" * 16, params={"seed": 2, "max_epochs": 20, "batch_size": 8}),
    ]
    # The batch size differs within a recipe here, so it cannot be what tells it from the other.
    assert labels(runs) == ["Plain, max_epochs=2", "Plain, max_epochs=20"]


def test_recipes_with_the_same_params_are_told_by_their_digests():
    assert labels([run([0.8]), run([0.2], recipe="f" * 16)]) == [
        "Plain, recipe eeeeee",
        "Plain, recipe ffffff",
    ]
    three = [run([0.8]), run([0.2], recipe="f" * 16), run([0.2], recipe="a" * 16, params={"max_epochs": 9})]
    assert labels(three) == [
        "Plain, max_epochs=2, recipe eeeeee",
        "Plain, max_epochs=2, recipe ffffff",
        "Plain, max_epochs=9",
    ]


def test_many_params_are_not_listed():
    other = run([0.2], recipe="f" * 16, params=dict.fromkeys(("a", "b", "c", "d"), 1))
    assert labels([run([0.8]), other]) == ["Plain, recipe eeeeee", "Plain, recipe ffffff"]


def test_respects_are_joined_on_purpose_only():
    runs = [run([0.8], seed=0), run([0.2], seed=1, code="0123456789abcdef")]
    (group,), notes = grouped(runs, ("code",))
    assert group.label == "Plain"
    assert group.spread("dice").mean == pytest.approx(0.5)
    assert group.values["code"] == ("0123456789abcdef", "c" * 16)
    assert notes == ["joined on purpose though they differ in code: the runs of Plain"]


def test_of_a_seed_and_fold_done_twice_the_newest_counts():
    runs = [run([0.8], start=9), run([0.2], start=5), run([0.4], seed=1, start=1)]
    (group,), notes = grouped(runs, ())
    assert group.spread("dice").mean == pytest.approx(0.6)
    assert notes == ["1 run left out: the same seed and fold ran again, and the newest counts"]


def test_seeds_without_all_folds_are_told():
    runs = [run([0.8], seed=0, fold=0), run([0.8], seed=0, fold=1), run([0.8], seed=1, fold=0)]
    _, notes = grouped(runs, ())
    assert notes == ["not every seed has every fold in Plain: their ± is that of other cases, too"]

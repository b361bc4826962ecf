from __future__ import annotations

import pytest

from pipelines import compare
from pipelines.errors import DataError
from tests.pipelines.tracked_runs import client_of, log, uri_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def store(folder, request):
    """Adds runs to an experiment of the test's own, and reads it."""
    name = request.node.name
    client = client_of(folder, name)

    def add(dice, **options):
        return log(client, folder / "written", dice, name, **options)

    add.artifacts = folder / "mlruns"
    add.read = lambda **options: compare.read(name, uri=uri_of(folder), **options)
    return add


def test_groups_come_best_first_with_the_scores_of_their_tables(store):
    store([0.4, 0.6], seed=0)
    store([0.6, 0.8], seed=1)
    store([0.9, 0.7], network="Lighter")
    reading = store.read()
    assert [group.label for group in reading.groups] == ["Lighter", "Plain"]
    assert [group.spread("dice").mean for group in reading.groups] == pytest.approx([0.8, 0.6])
    assert reading.groups[1].spread("dice").std == pytest.approx(0.02**0.5)
    assert reading.notes == []
    on_grid = store.read(grid=True)
    assert [group.spread("dice").mean for group in on_grid.groups] == pytest.approx([0.4, 0.3])


def test_runs_that_cannot_be_compared_are_told(store):
    store([0.5])
    store([0.5], seed=1, status="RUNNING")
    store([0.5], seed=2, status="FAILED")
    store([0.5], seed=3, status="KILLED")
    store(None, seed=4, name="late")
    store([0.5], seed=5, recipe=None)
    reading = store.read()
    (group,) = reading.groups
    assert list(group.by_seed) == ["0"]
    failed, running, late, old = reading.notes
    assert (failed, running) == ("2 runs failed, left out", "1 run running, left out")
    assert late.startswith("1 run finished but not evaluated, left out")
    assert "['bundles/dce_us/train.json','bundles/common/evaluate.json']" in late
    assert late.endswith(f"--experiment {reading.experiment} --run_name late")
    assert old.startswith("1 run of an earlier version")


def test_a_run_whose_table_did_not_reach_mlflow_is_told(store):
    store([0.5])
    lost = store([0.5], seed=1)
    (store.artifacts / lost / "artifacts/evaluation/cases.csv").unlink()
    reading = store.read()
    assert list(reading.groups[0].by_seed) == ["0"]
    (note,) = reading.notes
    assert note.startswith("1 run without evaluation/cases.csv in MLflow left out")


def test_nothing_to_compare_is_an_error_that_says_what_to_do(store):
    with pytest.raises(DataError, match="found none: no run at all; train one first"):
        store.read()
    store(None, name="late")
    with pytest.raises(DataError, match=r"found none: 1 run finished but not evaluated.*--run_name late"):
        store.read()


def test_an_unknown_experiment_lists_those_there_are(store, folder, request):
    with pytest.raises(DataError, match=rf"experiment 'ceus' in sqlite:.*found: .*{request.node.name}.*;"):
        compare.read("ceus", uri=uri_of(folder))


def test_an_unknown_respect_is_an_error(store):
    with pytest.raises(DataError, match="one of data, split, code, recipe, device, found 'seed'"):
        store.read(across=["seed"])


def test_only_the_same_cases_of_the_same_data_are_tested(store):
    dice = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    store(dice)
    store(dice, network="Twin")
    store([one + 0.2 for one in dice], network="Better")
    store(dice, network="Elsewhere", data="0" * 16)
    store(dice[:5], network="Fewer")
    comparisons, notes = compare.paired_tests(store.read().groups)
    words = {frozenset((one.first, one.second)): one for one in comparisons}
    assert set(words) == {
        frozenset(pair) for pair in (("Better", "Plain"), ("Better", "Twin"), ("Plain", "Twin"))
    }
    assert words[frozenset(("Plain", "Twin"))].words == "no difference"
    assert abs(words[frozenset(("Better", "Twin"))].difference) == pytest.approx(0.2)
    (note,) = notes
    assert "Better, Plain, Twin" in note and "Elsewhere" in note and "Fewer" in note


def test_curves_are_those_that_were_logged(store):
    store([0.5], epochs=3)
    store([0.5], epochs=2, seed=1)
    store([0.5], epochs=1, network="Lighter")
    reading = store.read()
    found = compare.curves(reading, reading.groups)
    assert [len(run) for run in found["Plain"]] == [3, 2]
    assert found["Plain"][1] == [
        {"epoch": 1, "train_loss": 1, "val_dice": 0},
        {"epoch": 2, "train_loss": 0.5, "val_dice": 0.5},
    ]
    assert len(found["Lighter"][0]) == 1


def test_pictures_are_of_one_seed_with_its_dice(store):
    store([0.5, 0.7], seed=0, fold=0)
    store([0.1], seed=0, fold=1, first=2)
    store([0.9, 0.9], seed=1, fold=0)
    store([0.9, 0.9, 0.9], network="Elsewhere", data="0" * 16)
    lost = store([0.3, 0.4, 0.5], network="Blank")
    (store.artifacts / lost / "artifacts/evaluation/shown.npz").unlink()
    reading = store.read()
    groups = {group.label: group for group in reading.groups}
    seen, dice, notes = compare.pictures(
        reading, [groups[label] for label in ("Plain", "Elsewhere", "Blank")]
    )
    assert list(seen) == ["Plain"]
    assert list(seen["Plain"]) == ["Doe-0", "Doe-1", "Doe-2"]
    assert dice == {"Plain": {"Doe-0": 0.5, "Doe-1": 0.7, "Doe-2": 0.1}}
    assert notes == ["no pictures of cases that others have, too: Elsewhere, Blank"]


def test_a_predicted_order_is_tested(store):
    for place, network in enumerate(("C=128", "C=16", "C=1")):
        store([0.9 - 0.1 * place - 0.01 * case for case in range(8)], network=network)
    groups = store.read().groups
    falls = compare.falling(groups, ["C=128", "C=16", "C=1"])
    assert falls == (
        "Dice falls in the order C=128, C=16, C=1: shown (p < 0.001, Page's test for a trend, one-sided)"
    )
    assert ": not shown (p 1," in compare.falling(groups, ["C=1", "C=16", "C=128"])
    with pytest.raises(DataError, match="expected --falling with one of C=128; C=16; C=1, found 'C=2'"):
        compare.falling(groups, ["C=128", "C=16", "C=2"])

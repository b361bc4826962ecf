"""A training killed at any moment goes on and ends with the weights of one that was not."""

import random
import signal
import time

import mlflow
import pytest
import torch

from pipelines import datasets
from tests.bundles.running import SMALL, TRAIN, begin, make_workspace, run, warm_up

EPOCHS = 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A workspace with an uninterrupted run, and how long it took."""
    folder = make_workspace(tmp_path_factory.mktemp("resume") / "workspace")
    datasets.get("lits").phantom(folder / "data/lits", cases=4, seed=1, size=64)
    warm_up()
    start = time.monotonic()
    run(folder, "training", TRAIN, run_name="whole", max_epochs=EPOCHS, num_folds=2, **SMALL)
    return folder, time.monotonic() - start


def weights(folder, name):
    return torch.load(folder / f"runs/lits/{name}/model.pt", weights_only=True), torch.load(
        folder / f"runs/lits/{name}/last.pt", weights_only=True
    )


def kill_and_resume(folder, name, moments, **options):
    """Start a run, kill -9 it at each of `moments`, and let the last resumption end.

    A moment is a number of seconds after the start, or a text that the run prints. Returns how many of the
    kills came before the run was over.
    """
    # Each has a cache of its own, so that preparing it is interrupted too.
    options = {**SMALL, "cache_dir": f"cache-{name}", "max_epochs": EPOCHS, "num_folds": 2, **options}
    kills = 0
    for moment in [*moments, None]:
        begun = (folder / f"runs/lits/{name}/run.json").is_file()
        options["resume"] = str(begun).lower()
        log = folder / f"{name}.log"
        process = begin(folder, log, "training", TRAIN, run_name=name, **options)
        start = time.monotonic()
        while process.is_alive():
            spent, printed = time.monotonic() - start, log.read_text()
            if (isinstance(moment, str) and moment in printed) or (
                isinstance(moment, float) and spent > moment
            ):
                process.kill()
                process.join()
                kills += 1
            time.sleep(0.01)
        if process.exitcode == 0 or f"found runs/lits/{name} finished" in log.read_text():
            break
        assert process.exitcode == -signal.SIGKILL, log.read_text()
    return kills


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[key], other[key]) for key in one)


def check(folder, name):
    for got, expected in zip(weights(folder, name), weights(folder, "whole"), strict=True):
        network = got.get("network", got), expected.get("network", expected)
        assert same(*network), name
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlruns.db'}")
    experiment = client.get_experiment_by_name("lits").experiment_id
    found = client.search_runs([experiment], f"attributes.run_name = '{name}'")
    assert [run.info.status for run in found] == ["FINISHED"]
    steps = {metric.step for metric in client.get_metric_history(found[0].info.run_id, "val_dice")}
    assert steps == set(range(1, EPOCHS + 1))
    assert not list(folder.glob(f"runs/lits/{name}/.partial*"))


def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(whole):
    folder, _ = whole
    moments = ["preparing:", f"epoch 2/{EPOCHS}", f"epoch {EPOCHS}/{EPOCHS}"]
    assert kill_and_resume(folder, "killed", moments) == 3
    check(folder, "killed")


def test_workers_change_nothing(whole):
    folder, _ = whole
    run(
        folder,
        "training",
        TRAIN,
        run_name="workers",
        max_epochs=EPOCHS,
        num_folds=2,
        **{**SMALL, "num_workers": 2},
    )
    check(folder, "workers")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_ten_kills_at_random_moments(whole, number):
    folder, seconds = whole
    moment = random.Random(number).uniform(0.2, 0.8) * seconds
    assert kill_and_resume(folder, f"kill-{number}", [moment]) == 1
    check(folder, f"kill-{number}")

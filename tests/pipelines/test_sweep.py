"""Sweeps killed at any moment, started twice, stopped: in the end, each run exactly once."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import mlflow
import psutil
import pytest
import torch
import yaml

from pipelines import datasets, sweep, sweep_plan
from pipelines.errors import DataError
from pipelines.files import read_json
from pipelines.sweep_run import DONE, FAILED, LATER, Outcome, Stopped
from tests.bundles.running import environment, make_workspace, small
from tests.pipelines.sweep_standin import EPOCHS, Forked, forks, last_words
from tests.pipelines.tracked_runs import client_of

KILLS = 24
PLAN = """
bundle: dce_us
experiment: study
networks:
  "C = 16": {group_size: 16}
  "C = 1": {group_size: 1}
seeds: [0, 1, 2]
"""


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """MLflow's tables, made where no process that forks has them open."""
    folder = tmp_path_factory.mktemp("store")
    client_of(folder, "none")
    return folder / "mlruns.db"


@pytest.fixture
def place(workspace, empty_store):
    """A workspace with a sweep of six runs, and a process that forks its commands."""
    shutil.copy(empty_store, "mlruns.db")
    Path("study.yaml").write_text(PLAN)
    with forks(workspace / "forks"):
        yield workspace


def start(number=0):
    with Path(f"sweep-{number}.log").open("a") as output:
        return Forked(["sweep", "study.yaml"], output)


def check(folder, names, epochs):
    """Each run is there once, trained by one process at a time, whole, and evaluated."""
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlruns.db'}")
    experiment = client.get_experiment_by_name("study").experiment_id
    runs = client.search_runs([experiment], max_results=100)
    assert sorted(run.info.run_name for run in runs) == sorted(names)
    for run in runs:
        assert run.info.status == "FINISHED"
        assert "test_dice" in run.data.metrics
        history = client.get_metric_history(run.info.run_id, "train_loss")
        assert {metric.step for metric in history} == set(range(1, epochs + 1))
        files = {one.path for one in client.list_artifacts(run.info.run_id, "evaluation")}
        assert {"evaluation/cases.csv", "evaluation/shown.npz"} <= files
    assert sorted(path.parent.name for path in (folder / "runs/study").glob("*/run.json")) == sorted(names)
    assert not list(folder.glob("*.twice"))


def trainings(folder):
    """Processes of this folder's runs that are alive."""
    notes = [read_json(path) for path in (folder / "runs/study").glob("*/run.json")]
    return [note["pid"] for note in notes if note["status"] == "running" and alive(note)]


def alive(note):
    """Whether the process of a run is there: not a later one with its number, nor what a dead one leaves."""
    try:
        process = psutil.Process(note["pid"])
        same = abs(process.create_time() - note["pid_started"]) < 1
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def strike(pid, number):
    """Send a signal to a process, which may have ended by itself just before."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def test_killed_at_random_moments_it_ends_with_each_run_once(place):
    draw = random.Random(0)
    process, kills, until = start(), 0, time.monotonic() + 240
    while process.poll() != 0:
        assert time.monotonic() < until, last_words(place)
        if kills == KILLS:
            process.wait(120)
        elif process.poll() is None:
            time.sleep(draw.uniform(0, 0.15))
            victims = trainings(place)
            if victims and draw.random() < 0.4:  # the sweep goes on, with the next run
                strike(draw.choice(victims), signal.SIGKILL)
            else:  # killed, it leaves its trainings behind; asked to end, it ends them
                ways = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
                strike(process.pid, draw.choice(ways))
                process.wait(120)
            kills += 1
        if process.poll():
            process = start()
    assert kills > KILLS / 2, "the sweep was over too soon"
    check(place, [job.name for job in sweep_plan.read("study.yaml")], EPOCHS)


def test_two_sweeps_of_a_file_share_its_runs(place):
    both = [start(0), start(1)]
    assert [process.wait(240) for process in both] == [0, 0], last_words(place)
    names = [job.name for job in sweep_plan.read("study.yaml")]
    check(place, names, EPOCHS)
    said = [Path(f"sweep-{number}.log").read_text() for number in range(2)]
    done = [sum(f"{name}: done, Dice 0.500" in text for name in names) for text in said]
    assert sum(done) == 6
    assert min(done) >= 1, said
    # A third one has nothing left to do.
    start(2).wait(240)
    assert "done" not in Path("sweep-2.log").read_text()


def test_a_stopped_sweep_ends_its_trainings_and_says_so(place):
    process = start()
    while not trainings(place):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(120) == 130
    assert not trainings(place)
    assert "of 6 runs; the same command goes on" in Path("sweep-0.log").read_text()


@pytest.fixture
def job():
    return sweep_plan.Job("a", "study", ("bundles/dce_us/train.json",), (), (), 0, 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stopped_sweep_waits_for_what_it_ends(job, monkeypatch, workers):
    """Ctrl-C while it waits for its workers, which is nearly always."""
    begun, ended = threading.Barrier(workers), []

    def carry_out(job, environment, stop):
        if begun.wait() == 0:
            time.sleep(0.2)  # until it waits
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        stop.wait()
        time.sleep(0.5)  # a training takes a while to end
        ended.append(job.name)
        raise Stopped

    monkeypatch.setattr(sweep, "settle", lambda jobs, progress: jobs)
    monkeypatch.setattr(sweep, "carry_out", carry_out)
    jobs = [replace(job, name=name) for name in "abcd"]
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(jobs, [{}] * workers)
    assert sorted(ended) == ["a", "b"][:workers]


def test_a_bug_ends_the_sweep_with_its_traceback(job, monkeypatch):
    monkeypatch.setattr(sweep, "settle", lambda jobs, progress: jobs)

    def fails(*_):
        raise KeyError("bug")

    monkeypatch.setattr(sweep, "carry_out", fails)
    with pytest.raises(KeyError, match="bug"):
        sweep.sweep([job], [{}])


def test_a_run_that_has_to_wait_is_looked_at_again_and_a_failed_one_is_not(job, monkeypatch, capsys):
    other = replace(job, name="b")
    states = {"a": [FAILED], "b": [LATER, LATER, DONE]}
    monkeypatch.setattr(sweep, "settle", lambda jobs, progress: jobs)
    monkeypatch.setattr(sweep, "LATER_SECONDS", 0.01)
    monkeypatch.setattr(sweep, "carry_out", lambda job, *_: Outcome(job, states[job.name].pop(0), "because"))
    assert [one.state for one in sweep.sweep([job, other], [{}])] == [FAILED, DONE]
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "a: failed, because; 1 of 2 runs"
    assert said[1:] == ["b: waits, because", "b: done, because; 2 of 2 runs"]


def test_a_store_that_is_away_at_the_start_ends_the_sweep(job, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(DataError, match=r"expected to reach MLflow at http://127\.0\.0\.1:1, found: "):
        sweep.sweep([job], [{}])


def test_runs_share_devices_and_processors(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 8)
    places = sweep.slots(["0", "3"], 2)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places] == ["0", "0", "3", "3"]
    assert {place["OMP_NUM_THREADS"] for place in places} == {"2"}
    assert [place["CUDA_VISIBLE_DEVICES"] for place in sweep.slots([], 3)] == [""] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert sweep.slots([], 1)[0]["OMP_NUM_THREADS"] == "5"


def test_devices_are_those_that_the_process_was_given(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert sweep.all_devices() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert sweep.all_devices() == ["2", "5"]


@pytest.mark.slow  # minutes: the real bundle, whose processes take seconds to start
def test_the_real_bundle_killed_at_random_moments(tmp_path):
    folder = make_workspace(tmp_path / "workspace")
    datasets.get("dce_us").phantom(folder / "data/dce_us", cases=6, seed=0, size=96)
    options = {key: value for key, value in small("dce_us").items() if key != "network_def"}
    plan = {
        "bundle": "dce_us",
        "experiment": "study",
        "networks": {
            f"BasicUNet {width}": {
                "_target_": "monai.networks.nets.BasicUNet",
                "spatial_dims": 2,
                "features": [width, 4, 8, 8, 8, 4],
            }
            for width in (4, 8)
        },
        "seeds": [0, 1],
        "options": {key: yaml.safe_load(value) for key, value in options.items()} | {"max_epochs": 2},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(plan))
    words = [sys.executable, "-m", "pipelines.cli", "sweep", "study.yaml", "--jobs", "2"]
    draw, code = random.Random(0), None
    for moment in [*(draw.uniform(12, 40) for _ in range(3)), 900]:
        with (folder / "sweep.log").open("a") as output:
            process = subprocess.Popen(words, cwd=folder, env=environment(), stdout=output, stderr=output)
        try:
            code = process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert code == 0, last_words(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        names = [job.name for job in sweep_plan.read("study.yaml")]
    assert len(names) == 4
    check(folder, names, 2)

import json
import subprocess
import sys

import mlflow
import pytest
import torch

from pipelines import runs, tracking
from pipelines.errors import DataError
from pipelines.tracking import Tracker, close_dead_runs, send_record, tracking_uri


@pytest.fixture
def run(workspace):
    run = runs.Run("runs/lits/a", "lits")
    run.begin([["1"], ["2"]], 0, {}, torch.nn.Identity())
    return run


def in_mlflow(run):
    client = mlflow.MlflowClient(tracking_uri())
    return client, client.get_run(run.note["mlflow_run_id"])


def record(tracker, epochs=2):
    tracker.add("status", status="RUNNING")
    tracker.add("params", values={f"p{number}": number for number in range(150)})
    tracker.add("tags", values={"network": "Identity"})
    tracker.add("artifact", path="split.json", folder="data")
    for epoch in range(1, epochs + 1):
        tracker.add("metrics", step=epoch, values={"loss": 1 / epoch})
    tracker.add("status", status="FINISHED")


def test_everything_arrives(run):
    tracker = Tracker(run)
    record(tracker)
    assert tracker.send()
    client, found = in_mlflow(run)
    assert found.info.run_name == "a"
    assert found.info.status == "FINISHED"
    assert client.get_experiment(found.info.experiment_id).name == "lits"
    assert found.data.params["p149"] == "149"
    assert found.data.tags["network"] == "Identity"
    assert [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, "loss")] == [
        (1, 1),
        (2, 0.5),
    ]
    assert [one.path for one in client.list_artifacts(found.info.run_id, "data")] == ["data/split.json"]
    assert tracker.metrics() == [{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.5}]


def test_a_resumed_record_goes_on_in_the_same_run(run):
    tracker = Tracker(run)
    record(tracker)
    tracker.send()
    first = run.note["mlflow_run_id"]
    later = Tracker(run)
    later.add("status", status="RUNNING")
    later.add("metrics", step=3, values={"loss": 0.25})
    assert later.send()
    client, found = in_mlflow(run)
    assert found.info.run_id == first
    assert found.info.status == "RUNNING"
    assert len(client.get_metric_history(first, "loss")) == 3


def test_a_server_that_is_away_loses_nothing(run, monkeypatch, caplog):
    tracker = Tracker(run)
    with monkeypatch.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        record(tracker)
        assert not tracker.send(patient=True)
    assert "training goes on" in caplog.text
    assert f"featherseg track {run.folder}" in caplog.text
    assert send_record(run.folder)
    client, found = in_mlflow(run)
    assert found.info.status == "FINISHED"
    # It ran when it ran, whenever the server learned of it.
    assert int(run.note["started"] * 1000) == found.info.start_time <= found.info.end_time
    assert len(client.get_metric_history(found.info.run_id, "loss")) == 2


def test_a_kill_between_making_the_run_and_noting_it_makes_no_second_one(run):
    tracker = Tracker(run)
    record(tracker)
    tracker.send()
    client, found = in_mlflow(run)
    note = run.note
    del note["mlflow_run_id"]
    (run.folder / "run.json").write_text(json.dumps(note))
    assert Tracker(run).run_id() == found.info.run_id
    assert len(client.search_runs([found.info.experiment_id])) == 1


def test_a_line_that_a_kill_cut_short_is_passed_over(run):
    tracker = Tracker(run)
    tracker.add("metrics", step=1, values={"loss": 1.0})
    with tracker.journal.open("a") as file:
        file.write('{"kind": "metr')
    again = Tracker(run)
    again.add("metrics", step=1, values={"loss": 2.0})
    assert again.metrics() == [{"epoch": 1, "loss": 2.0}]
    assert again.send()


def test_a_run_that_was_killed_is_closed_as_failed(run):
    tracker = Tracker(run)
    tracker.add("status", status="RUNNING")
    tracker.send()
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    run.update(pid=process.pid)
    close_dead_runs(runs.dead_runs("lits"))
    assert in_mlflow(run)[1].info.status == "FAILED"
    assert run.note["status"] == runs.FAILED
    assert not runs.dead_runs("lits")


def test_a_folder_without_a_run_is_named(workspace):
    with pytest.raises(
        DataError, match=r"expected the folder of a run, with run.json in it, found none in x"
    ):
        send_record("x")


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("postgresql+psycopg2://me:secret@host:5432/runs", "postgresql+psycopg2://host:5432/runs"),
        ("http://me:secret@host", "http://host"),
        ("sqlite:////a/mlruns.db", "sqlite:////a/mlruns.db"),
    ],
)
def test_no_password_is_shown(uri, place, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking.place() == place == tracking.place(uri)

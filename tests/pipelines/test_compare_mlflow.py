from __future__ import annotations

import math
import os
import socket

import pytest
from mlflow.entities import Metric

from pipelines import compare_mlflow
from pipelines.errors import DataError
from pipelines.files import read_json
from tests.pipelines.tracked_runs import START, client_of, log


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def client(folder):
    return client_of(folder)


@pytest.fixture(scope="module")
def ids(client, folder):
    """Runs of 2, 3 and 4 epochs; the second did its last one twice, the first has no configuration."""
    ids = [log(client, folder / "written", [0.5], epochs=epochs, seed=epochs) for epochs in (2, 3, 4)]
    client.log_batch(ids[1], [Metric("train_loss", 0.125, START + 60_000, 3)])
    (folder / "mlruns" / ids[0] / "artifacts/config.json").unlink()
    return ids


def expected(client, ids):
    found = []
    for run_id in ids:
        epochs = {}
        for key in ("train_loss", "val_dice"):
            for metric in client.get_metric_history(run_id, key):
                epochs.setdefault(metric.step, {"epoch": metric.step})[key] = metric.value
        found.append([epochs[step] for step in sorted(epochs)])
    assert found[1][2]["train_loss"] == 0.125  # as it was last
    return dict(zip(ids, found, strict=True))


def test_curves_of_many_runs_are_those_asked_for_one_by_one(client, ids, monkeypatch):
    want = expected(client, ids)
    monkeypatch.setattr(client, "get_metric_history", None)  # it is not asked
    assert compare_mlflow.histories(client, ids, ["train_loss", "val_dice"]) == want


def test_a_value_that_is_no_number_stays_so(client, ids):
    for run_id in ids[:2]:
        values = Metric("odd", math.nan, START, 1), Metric("odd", -math.inf, START, 2)
        client.log_batch(run_id, values)
    for found in compare_mlflow.histories(client, ids[:2], ["odd"]).values():
        assert [one["epoch"] for one in found] == [1, 2]
        assert math.isnan(found[0]["odd"]) and found[1]["odd"] < -1e300


@pytest.mark.parametrize("most", [1, 4, 6])
def test_answers_that_are_cut_short_are_asked_for_in_parts(client, ids, monkeypatch, most):
    monkeypatch.setattr(compare_mlflow, "MOST", most)
    assert compare_mlflow.histories(client, ids, ["train_loss", "val_dice"]) == expected(client, ids)


def test_a_store_that_answers_for_one_run_at_a_time_is_asked_so(client, ids, monkeypatch):
    monkeypatch.setattr(compare_mlflow, "_bulk", lambda *of: None)
    assert compare_mlflow.histories(client, ids, ["train_loss", "val_dice"]) == expected(client, ids)


def test_all_pages_of_runs_are_read(client, ids, monkeypatch):
    monkeypatch.setattr(compare_mlflow, "PAGE", 2)
    experiment = compare_mlflow.experiment(client, "dce_us")
    assert {run.info.run_id for run in compare_mlflow.runs(client, experiment.experiment_id)} == set(ids)


def test_a_file_that_a_run_does_not_have_is_left_out(client, ids):
    runs = [client.get_run(run_id) for run_id in ids]
    found = compare_mlflow.contents(client, runs, "config.json", read_json)
    assert list(found) == ids[1:]
    assert found[ids[1]]["network_def"]["_target_"] == "BasicUNet"


def test_a_store_that_is_not_there_is_not_made(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlruns.db'}"
    with pytest.raises(DataError, match="found no such file; go to the folder"):
        compare_mlflow.connect(uri)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("uri", ["strange://host", "mysql+nodriver://me:secret@host/runs"])
def test_a_store_of_no_known_kind_is_one_line(uri):
    with pytest.raises(
        DataError, match=r"an MLflow store at .*host.*, found: .*MLFLOW_TRACKING_URI"
    ) as caught:
        compare_mlflow.experiment(compare_mlflow.connect(uri), "dce_us")
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_store_that_fails_half_way_is_one_line(client, ids, monkeypatch):
    def fail(*of, **options):
        raise RuntimeError("gone\naway")

    for name in ("search_runs", "get_metric_history"):
        monkeypatch.setattr(client, name, fail)
    for ask in (
        lambda: compare_mlflow.runs(client, "1"),
        lambda: compare_mlflow.histories(client, ids[:1], ["train_loss"]),
    ):
        with pytest.raises(DataError, match=r"an MLflow store at sqlite:.*, found: gone; is the server up"):
            ask()


def test_reading_reports_nothing_over_the_internet(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    compare_mlflow.connect("http://127.0.0.1:9")
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_server_that_is_not_there_is_told_without_its_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    client = compare_mlflow.connect(f"http://me:secret@127.0.0.1:{port}")
    with pytest.raises(DataError, match=f"an MLflow store at http://127.0.0.1:{port}, found: ") as caught:
        compare_mlflow.experiment(client, "dce_us")
    assert "secret" not in str(caught.value)

"""The same runs in other stores give the same tables, and a thousand of them are read in good time."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from rich.console import Console

from pipelines import compare_report, scoring, shown
from tests.conftest import ROOT
from tests.pipelines.tracked_runs import START, client_of, log, multiply, pictures, rows, uri_of

TABLES = ("table.csv", "cases.csv", "comparisons.csv", "table.md")
PATIENCE = 60  # seconds that a server may take to start


def postgres_program(name):
    """The path of a program of PostgreSQL, which Debian keeps off the path; None where there is none."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return shutil.which(name) or (str(places[-1]) if places else None)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def unprivileged():
    """Who PostgreSQL runs as: it refuses to be root."""
    if os.geteuid() != 0:
        return {}
    known = {user.pw_name for user in pwd.getpwall()}
    return {"user": next(name for name in ("postgres", "nobody") if name in known), "cwd": "/"}


@pytest.fixture(scope="module")
def postgres():
    """The address of a PostgreSQL server of our own."""
    if not all(map(postgres_program, ("initdb", "pg_ctl"))):
        pytest.skip("PostgreSQL's initdb and pg_ctl are not installed")
    if importlib.util.find_spec("psycopg2") is None:
        pytest.skip("psycopg2, MLflow's way to PostgreSQL, is not installed")
    who, port = unprivileged(), free_port()
    with tempfile.TemporaryDirectory(
        prefix="postgres-"
    ) as folder:  # pytest's own cannot be entered by others
        if who:
            shutil.chown(folder, who["user"])
        data, log_file = f"{folder}/data", f"{folder}/log"
        initdb = [postgres_program("initdb"), "--no-sync", "-A", "trust", "-U", "postgres", "-D", data]
        subprocess.run(initdb, check=True, capture_output=True, **who)
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        pg_ctl = [postgres_program("pg_ctl"), "-D", data, "-w", "-l", log_file]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # the server would hold a pipe
        subprocess.run([*pg_ctl, "-o", options, "start"], check=True, **quiet, **who)
        try:
            yield f"postgresql+psycopg2://postgres@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*pg_ctl, "-m", "immediate", "stop"], check=True, **quiet, **who)


@contextlib.contextmanager
def serving(store, folder):
    """An MLflow server on a store, which serves artifacts, too; gives its address."""
    port = free_port()
    words = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "1"]
    words += ["--artifacts-destination", str(folder / "artifacts")]
    words += ["--host", "127.0.0.1", "--port", str(port)]
    light = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # which starts eight processes more
    with (folder / "log").open("w") as output:
        options = {"cwd": folder, "env": light, "stdout": output, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(words, start_new_session=True, **options)
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                told = (folder / "log").read_text()
                assert process.poll() is None and time.monotonic() < end, told
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the group that it was started in, workers and all
        process.wait()


@pytest.fixture(scope="module")
def server(postgres, tmp_path_factory):
    """The address of an MLflow server on PostgreSQL."""
    with serving(postgres, tmp_path_factory.mktemp("server")) as address:
        yield address


def put(client, folder):
    """Two networks with two seeds and two folds each, and runs that cannot be compared."""
    random = np.random.default_rng(0)
    base = random.uniform(0.2, 0.8, (2, 8))
    for place, (network, seed, fold) in enumerate(product(("Plain", "Lighter"), range(2), range(2))):
        dice = np.clip(base[fold] + 0.05 * len(network) + random.normal(0, 0.02, 8), 0, 1)
        log(client, folder, dice.tolist(), first=8 * fold, network=network, seed=seed, fold=fold, at=place)
    log(client, folder, [0.5], seed=5, status="FAILED")
    log(client, folder, None, seed=6, name="late")
    log(client, folder, [0.5] * 8, network="Lighter", recipe="f" * 16, params={"max_epochs": 20})


def make(folder, uri, **options):
    """The tables of a comparison, and what was printed."""
    text = io.StringIO()
    compare_report.make("dce_us", folder, uri, console=Console(file=text, width=170), **options)
    return [(folder / name).read_text(encoding="utf-8") for name in TABLES], text.getvalue()


def test_postgresql_and_a_server_on_it_give_the_same_tables_as_sqlite(server, tmp_path, monkeypatch):
    put(client_of(tmp_path), tmp_path / "written")
    remote = MlflowClient(server)
    remote.create_experiment("dce_us")
    put(remote, tmp_path / "written")
    monkeypatch.setattr(MlflowClient, "get_metric_history", None)  # curves are asked for in bulk of both
    expected, _ = make(tmp_path / "sqlite", uri_of(tmp_path), latency=False)
    assert expected[0].count("\n") == 4 and "1 run failed" in expected[3]
    found, _ = make(tmp_path / "server", server, latency=False)
    assert found == expected
    for name in ("curves.png", "cases.png"):
        assert (tmp_path / "server" / name).read_bytes() == (tmp_path / "sqlite" / name).read_bytes()


@pytest.fixture
def thousand(tmp_path):
    """20 networks with 10 seeds and 5 folds of 130 cases, 100 epochs with 22 metrics each, in SQLite."""
    client, random = client_of(tmp_path), np.random.default_rng(0)
    one = log(client, tmp_path / "written", [0.5], epochs=0)
    keys = ("train_loss", "val_dice", *(f"val_{number}" for number in range(20)))
    for epoch in range(1, 101):
        values = random.uniform(0, 1, len(keys))
        client.log_batch(
            one, [Metric(key, value, START + epoch, epoch) for key, value in zip(keys, values, strict=True)]
        )
    every = list(product(range(20), range(10), range(5)))
    copies = [{"network": f"Net {net}", "seed": str(seed), "fold": str(fold)} for net, seed, fold in every]
    ids = multiply(tmp_path, one, copies)
    client.delete_run(one)
    base = random.uniform(0, 1, (5, 130))
    for net, fold in product(range(20), range(5)):
        dice = np.clip(base[fold] + random.normal(0.002 * net, 0.1, 130), 0, 1)
        scored = rows(dice.tolist(), first=130 * fold)
        place = tmp_path / "made" / f"{net}-{fold}"
        scoring.write_cases(scored, place / "cases.csv")
        shown.write(place / "shown.npz", pictures([row["case"] for row in scored], side=96))
    for run_id, (net, _, fold) in zip(ids, every, strict=True):
        target = tmp_path / "mlruns" / run_id / "artifacts"
        (target / "evaluation").mkdir(parents=True)
        for name in ("cases.csv", "shown.npz"):
            os.link(tmp_path / "made" / f"{net}-{fold}" / name, target / "evaluation" / name)
        os.link(tmp_path / "mlruns" / one / "artifacts" / "config.json", target / "config.json")
    return tmp_path


@pytest.mark.slow
def test_a_thousand_runs_of_a_hundred_epochs_are_compared_in_20_seconds(thousand):
    """In a process of its own, as a user does, imports, latencies and pictures and all.

    On a machine with two cores and nothing else to do.
    """
    code = "import sys; from pipelines.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", code, "compare", "dce_us", "--out", str(thousand / "out")]
    env = {**os.environ, "MLFLOW_TRACKING_URI": uri_of(thousand)}
    for which in ("first", "second"):  # which finds the latency measured
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"1,000 runs of 100 epochs, {which} time: {seconds:.1f} s, {cpu:.1f} s of CPU")
        table = (thousand / "out" / "table.csv").read_text().splitlines()
        assert len(table) == 21
        assert all((thousand / "out" / name).is_file() for name in compare_report.PICTURES)
        assert seconds < 20


@pytest.mark.slow
def test_mlflows_pages_open_on_a_thousand_runs(thousand):
    """The page itself, and what it asks for to fill its table and its chart of all curves."""
    with serving(uri_of(thousand), thousand) as address:
        start = time.perf_counter()
        page = urllib.request.urlopen(address, timeout=30).read().decode()
        assert "<title>MLflow" in page
        client = MlflowClient(address)
        experiment = client.get_experiment_by_name("dce_us").experiment_id
        asked = json.dumps({"experiment_ids": [experiment], "max_results": 1000}).encode()
        runs = urllib.request.Request(f"{address}/ajax-api/2.0/mlflow/runs/search", asked)
        runs.add_header("Content-Type", "application/json")
        found = json.load(urllib.request.urlopen(runs, timeout=60))["runs"]
        assert len(found) == 1000
        ids = "&".join(f"run_id={run['info']['run_id']}" for run in found[:100])
        bulk = f"{address}/ajax-api/2.0/mlflow/metrics/get-history-bulk?{ids}&metric_key=val_dice"
        assert len(json.load(urllib.request.urlopen(bulk, timeout=60))["metrics"]) == 100 * 100
        seconds = time.perf_counter() - start
    print(f"MLflow's page with 1,000 runs and 100 curves: {seconds:.1f} s")
    assert seconds < 20

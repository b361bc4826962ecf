"""Runs in MLflow: a record goes to a journal on disk first, then to the server, so that nothing is lost."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.errors import DataError
from pipelines.files import write_json
from pipelines.runs import FAILED, Run

log = logging.getLogger(__name__)

RETRY_SECONDS = 60
# MLflow's own patience is minutes for each call, during which training would stand still.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
# Nor does a hospital's machine tell anybody of its runs.
PRIVACY = {"MLFLOW_DISABLE_TELEMETRY": "true"}


def tracking_uri() -> str:
    """Where runs are tracked: `MLFLOW_TRACKING_URI`, else SQLite in `mlruns.db` of the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlruns.db').resolve()}"


def place(uri: str | None = None) -> str:
    """Where runs are tracked, for people to read: the address without the password that may be in it."""
    return without_password(uri or tracking_uri())


def without_password(text: str) -> str:
    """`text` without what stands before an `@` in an address."""
    return re.sub(r"//[^/@\s]*@", "//", text)


class Tracker:
    """The record of one run.

    Every record is a line of `tracking.jsonl` in the run's folder before it is sent, and `tracking.sent`
    counts the lines that MLflow has. A server that cannot be reached costs a warning; what it missed is sent
    once it is back, by the training itself, by a resumed one, or by `featherseg track FOLDER`.

    Args:
        run: whose `bundle` is the experiment's name and whose `name` is the run's.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.journal = run.folder / "tracking.jsonl"
        self.mark = run.folder / "tracking.sent"
        self._client: Any = None
        self._quiet_until = 0.0

    def add(self, kind: str, **content: Any) -> None:
        """Record one thing: `params`, `tags`, `metrics` with their `step`, `artifact`, or `status`."""
        record = {"kind": kind, "time": int(time.time() * 1000), **content}
        # A kill may have cut the last line short; a newline keeps the next one whole.
        cut = self.journal.exists() and self.journal.read_bytes()[-1:] != b"\n"
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(("\n" if cut else "") + json.dumps(record) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """The whole lines of the journal, in order; None stands for one that a kill cut short."""
        if not self.journal.exists():
            return []
        return list(map(_parsed, self.journal.read_text(encoding="utf-8").splitlines()))

    def metrics(self) -> list[dict[str, Any]]:
        """One dictionary an epoch, in order; an epoch done again after a crash counts once."""
        epochs: dict[int, dict[str, Any]] = {}
        for record in filter(None, self.records()):
            if record["kind"] == "metrics" and record["step"] is not None:
                epochs.setdefault(record["step"], {"epoch": record["step"]}).update(record["values"])
        return [epochs[step] for step in sorted(epochs)]

    def tags(self) -> dict[str, Any]:
        """The tags recorded, each as it was last."""
        found: dict[str, Any] = {}
        for record in filter(None, self.records()):
            found |= record["values"] if record["kind"] == "tags" else {}
        return found

    def send(self, patient: bool = False) -> bool:
        """Send what MLflow does not have yet.

        Args:
            patient: try now, even where the server failed a moment ago.

        Returns:
            whether MLflow has everything.
        """
        if time.time() < self._quiet_until and not patient:
            return False
        for key, value in (PATIENCE | PRIVACY).items():
            os.environ.setdefault(key, value)
        records = self.records()
        done = int(self.mark.read_text()) if self.mark.exists() else 0
        try:
            for number, record in enumerate(records[done:], start=done + 1):
                if record is not None:
                    self._deliver(record)
                write_json(self.mark, number)
        except DataError:
            raise
        except Exception as error:  # whatever the server or the way to it does, training goes on
            self._client = None
            self._quiet_until = time.time() + RETRY_SECONDS
            log.warning(
                "MLflow at %s did not take the record (%s); training goes on, the record is kept in %s and "
                "sent later (or by `featherseg track %s`)",
                place(),
                without_password(str(error).splitlines()[0] if str(error) else type(error).__name__),
                self.journal,
                self.run.folder,
            )
            return False
        return True

    def _connect(self) -> Any:
        if self._client is None:
            import mlflow

            logging.getLogger("alembic").setLevel(logging.WARNING)
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
            self._client = mlflow.MlflowClient(tracking_uri=tracking_uri())
        return self._client

    def run_id(self) -> str:
        """The run in MLflow, made where there is none yet."""
        known = self.run.note.get("mlflow_run_id")
        if known:
            return known
        client = self._connect()
        experiment = client.get_experiment_by_name(self.run.bundle)
        uri = tracking_uri()
        local = uri.startswith("sqlite:///")
        place = Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlruns" if local else None
        experiment_id = (
            experiment.experiment_id
            if experiment
            else client.create_experiment(self.run.bundle, place.as_uri() if place else None)
        )
        # A kill between making the run and noting its id must not make a second one.
        key = self.run.note["key"]
        same = client.search_runs([experiment_id], f"tags.`featherseg.key` = '{key}'", max_results=1)
        made = (
            same[0]
            if same
            else client.create_run(
                experiment_id,
                # A server that was away may learn of the run when it is over.
                start_time=int(self.run.note["started"] * 1000),
                run_name=self.run.name,
                tags={"featherseg.key": key},
            )
        )
        self.run.update(mlflow_run_id=made.info.run_id)
        return made.info.run_id

    def _deliver(self, record: dict[str, Any]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        run_id, client, kind = self.run_id(), self._connect(), record["kind"]
        if kind == "metrics":
            step = record["step"] or 0
            client.log_batch(
                run_id, [Metric(k, v, record["time"], step) for k, v in record["values"].items()]
            )
        elif kind == "params":
            for some in _in_parts(record["values"].items(), 100):
                client.log_batch(run_id, params=[Param(key, str(value)[:500]) for key, value in some])
        elif kind == "tags":
            client.log_batch(
                run_id, tags=[RunTag(key, str(value)) for key, value in record["values"].items()]
            )
        elif kind == "artifact":
            path = self.run.folder / record["path"]
            if path.is_file():
                client.log_artifact(run_id, str(path), record.get("folder"))
        elif kind == "status":
            if record["status"] == "RUNNING":
                client.update_run(run_id, status="RUNNING")
            else:
                client.set_terminated(run_id, record["status"], record["time"])


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def _in_parts(items: Any, size: int) -> Iterator[list[Any]]:
    items = list(items)
    for start in range(0, len(items), size):
        yield items[start : start + size]


def send_record(folder: str | Path) -> bool:
    """Send what MLflow missed of the run in `folder`.

    Raises:
        DataError: no run there.
    """
    note = Path(folder) / "run.json"
    if not note.is_file():
        raise DataError(f"expected the folder of a run, with run.json in it, found none in {folder}")
    run = Run(str(folder), "")
    run.bundle = run.note["bundle"]
    return Tracker(run).send(patient=True)


def close_dead_runs(dead: list[Run]) -> None:
    """Record as FAILED the runs that were killed without a word."""
    for run in dead:
        tracker = Tracker(run)
        if tracker.journal.exists():
            tracker.add("status", status="FAILED")
            tracker.send()
        run.end(FAILED)

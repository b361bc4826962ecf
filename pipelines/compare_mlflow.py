"""What a comparison reads from MLflow: an experiment's runs, their small files, and their curves in bulk."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

from pipelines.errors import DataError
from pipelines.tracking import PRIVACY, place, tracking_uri, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

Content = TypeVar("Content")

PAGE = 250  # runs asked for at a time
TOGETHER = 100  # runs of one question for curves, the most that a server answers
MOST = 25_000  # values in its answer, which is cut there without a word
THREADS = 8  # files asked for at once from a server


def connect(uri: str | None = None) -> MlflowClient:
    """MLflow's client, for the store that the runs are tracked in by default.

    Raises:
        DataError: SQLite's file is not there, which MLflow would make; or no kind of store that MLflow knows.
    """
    uri = uri or tracking_uri()
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise DataError(
            f"expected runs in {uri}, found no such file; go to the folder where the runs were trained, or "
            "set MLFLOW_TRACKING_URI"
        )
    # By default a server that is not there is waited for for minutes.
    for key, value in {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", **PRIVACY}.items():
        os.environ.setdefault(key, value)
    from mlflow import MlflowClient

    with _answering(uri):
        return MlflowClient(uri, registry_uri=uri)


@contextlib.contextmanager
def _answering(uri: str) -> Iterator[None]:
    """Say in one line what goes wrong with a store, whatever carries the question: HTTP, SQL, a driver."""
    try:
        yield
    except Exception as error:
        raise DataError(
            f"expected an MLflow store at {place(uri)}, found: {_reason(error)}; is the server up, and "
            "MLFLOW_TRACKING_URI right?"
        ) from error


def experiment(client: MlflowClient, name: str) -> Experiment:
    """An experiment by its name.

    Raises:
        DataError: there is none; the message lists those there are. Or the store does not answer.
    """
    with _answering(client.tracking_uri):
        found = client.get_experiment_by_name(name)
        known = () if found else sorted(one.name for one in client.search_experiments())
    if found is None or found.lifecycle_stage != "active":
        others = ", ".join(one for one in known if one != "Default") or "none"
        raise DataError(
            f"expected the experiment {name!r} in {place(client.tracking_uri)}, found: {others}; train a "
            "bundle first, or give one of these"
        )
    return found


def runs(client: MlflowClient, experiment_id: str) -> list[Run]:
    """All runs of an experiment but deleted ones, the newest first.

    Raises:
        DataError: the store does not answer.
    """
    found: list[Run] = []
    token = None
    bar = tqdm(desc="runs", unit="run", disable=None, leave=False)
    with bar, _answering(client.tracking_uri):
        while True:
            page = client.search_runs([experiment_id], max_results=PAGE, page_token=token)
            found += page
            bar.update(len(page))
            token = page.token
            if not token:
                return found


def contents(
    client: MlflowClient, chosen: Sequence[Run], path: str, read: Callable[[Path], Content]
) -> dict[str, Content]:
    """What `read` makes of an artifact of each run; a run that does not have it is left out.

    Files on this machine are read where they are, those of a server by several threads.

    Args:
        path: of the artifact, such as "evaluation/cases.csv".

    Returns:
        The run's id -> what was read.
    """
    bar = tqdm(total=len(chosen), desc=Path(path).name, unit="file", disable=None, leave=False)
    with bar, tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(THREADS) as pool:
        found = {}
        files = pool.map(lambda run: _file(client, run, path, Path(folder)), chosen)
        for run, file in zip(chosen, files, strict=True):
            if file is not None:
                found[run.info.run_id] = read(file)
            bar.update()
        return found


def _file(client: MlflowClient, run: Run, path: str, folder: Path) -> Path | None:
    from mlflow.utils.file_utils import get_local_path_or_none

    root = get_local_path_or_none(run.info.artifact_uri)
    if root is not None:
        return Path(root, path) if Path(root, path).is_file() else None
    target = folder / run.info.run_id
    target.mkdir()
    try:
        return Path(client.download_artifacts(run.info.run_id, path, str(target)))
    except Exception as error:  # each kind of artifact store has its own
        there = {path}
        with contextlib.suppress(Exception):
            there = {one.path for one in client.list_artifacts(run.info.run_id, Path(path).parent.as_posix())}
        if path not in there:
            return None
        raise DataError(
            f"expected {path} of the run {run.info.run_name}, found: {_reason(error)}; is the store of "
            "artifacts up?"
        ) from error


def _reason(error: Exception) -> str:
    return without_password((str(error).strip().splitlines() or [type(error).__name__])[0])[:200]


def histories(
    client: MlflowClient, run_ids: Sequence[str], keys: Iterable[str]
) -> dict[str, list[dict[str, float]]]:
    """Metrics of each epoch, asked for many runs at once where the store can.

    `MlflowClient` asks for one run and one metric at a time. Stores in a database answer for many runs, and
    so does a server, through the address by which MLflow's own pages draw their curves.

    Returns:
        The run's id -> a dictionary an epoch, in order, with "epoch" and those of `keys` that it has; an
        epoch done again after a crash counts once, as it was last.

    Raises:
        DataError: the store does not answer.
    """
    epochs: dict[str, dict[int, dict[str, float]]] = {run_id: {} for run_id in run_ids}
    parts = [run_ids[start : start + TOGETHER] for start in range(0, len(run_ids), TOGETHER)]
    keys = list(keys)
    bar = tqdm(total=len(run_ids) * len(keys), desc="curves", unit="curve", disable=None, leave=False)
    with bar, _answering(client.tracking_uri):
        for key in keys:
            for part in parts:
                for run_id, step, value in _values(client, part, key):
                    epochs[run_id].setdefault(step, {"epoch": step})[key] = value
                bar.update(len(part))
    return {run_id: [found[step] for step in sorted(found)] for run_id, found in epochs.items()}


def _values(client: MlflowClient, run_ids: Sequence[str], key: str) -> Iterator[tuple[str, int, float]]:
    """(run, epoch, value) of one metric, in the order in which a run logged them."""
    if len(run_ids) == 1:
        for metric in client.get_metric_history(run_ids[0], key):
            yield run_ids[0], metric.step, metric.value
        return
    found = _bulk(client, run_ids, key)
    if found is not None and len(found) < MOST:
        yield from found
        return
    if found is not None:  # cut short
        middle = len(run_ids) // 2
        yield from _values(client, run_ids[:middle], key)
        yield from _values(client, run_ids[middle:], key)
        return
    with ThreadPoolExecutor(THREADS) as pool:
        asked = pool.map(lambda run_id: (run_id, client.get_metric_history(run_id, key)), run_ids)
        for run_id, metrics in asked:
            for metric in metrics:
                yield run_id, metric.step, metric.value


def _bulk(client: MlflowClient, run_ids: Sequence[str], key: str) -> list[tuple[str, int, float]] | None:
    """At most `MOST` values of several runs, or None where the store does not answer such a question."""
    store: Any = client._tracking_client.store
    if hasattr(store, "ManagedSessionMaker"):
        return _rows(store, run_ids, key)
    if not hasattr(store, "get_host_creds"):
        return None
    from mlflow.utils.rest_utils import http_request_safe

    asked = [("metric_key", key), ("max_results", MOST), *(("run_id", run_id) for run_id in run_ids)]
    address = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
    try:
        answer = http_request_safe(store.get_host_creds(), address, "GET", params=asked).json()
        return [(one["run_id"], int(one["step"]), float(one["value"])) for one in answer["metrics"]]
    except Exception:  # a server that is too old, or another company's: it answers for one run at a time
        return None


def _rows(store: Any, run_ids: Sequence[str], key: str) -> list[tuple[str, int, float]]:
    """As `_bulk`, from a database; MLflow's own answer makes an object of each value, which takes longer."""
    from mlflow.store.tracking.dbmodels.models import SqlMetric
    from sqlalchemy import select

    asked = (
        select(SqlMetric.run_uuid, SqlMetric.step, SqlMetric.value, SqlMetric.is_nan)
        .where(SqlMetric.key == key, SqlMetric.run_uuid.in_(run_ids))
        .order_by(SqlMetric.run_uuid, SqlMetric.timestamp, SqlMetric.step, SqlMetric.value)
        .limit(MOST)
    )
    with store.ManagedSessionMaker() as session:
        found = session.execute(asked).all()
    return [(run_id, step, math.nan if is_nan else value) for run_id, step, value, is_nan in found]

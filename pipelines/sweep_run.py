"""One run of a sweep: trained and evaluated by the commands that a user types, exactly once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from pipelines.errors import DataError, causes
from pipelines.files import read_json
from pipelines.runs import FINISHED, RUNNING
from pipelines.sweep_plan import Job
from pipelines.tracking import PATIENCE, send_record, tracking_uri

STATES = DONE, SKIPPED, FAILED, ELSEWHERE = "done", "skipped", "failed", "elsewhere"
END_SECONDS = 20.0  # for a command to end when it is asked to
LOG_BYTES = 8192  # of the end of a log, in which an error is looked for
ERROR = re.compile(r"(featherseg|[\w.]*(Error|Exception)): ")
LATER = "later"  # another process is at the run, or MLflow cannot be reached


@dataclass(frozen=True)
class Outcome:
    """How a run of a sweep ended.

    Attributes:
        job: the run.
        state: "done", "skipped" (it was finished before), "failed", "elsewhere" (its folder is not here), or
            "later" where it did not end.
        words: why, or its Dice.
        seconds: that it took now.
    """

    job: Job
    state: str
    words: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Tracked:
    """What MLflow knows of a run: its id, its status, and its test Dice, None before the evaluation."""

    run_id: str
    status: str
    dice: float | None


class Stopped(Exception):
    """The sweep was asked to end while a run was going on."""


class Unreachable(DataError):
    """MLflow cannot be reached."""


def tracked(experiment: str, name: str | None = None) -> dict[str, Tracked]:
    """What MLflow knows of an experiment's runs, or of one of them, by their names.

    Raises:
        Unreachable: MLflow cannot be reached.
    """
    import mlflow

    for key, value in PATIENCE.items():
        os.environ.setdefault(key, value)
    wanted = f"attributes.run_name = '{name}'" if name else ""
    try:
        client = mlflow.MlflowClient(tracking_uri=tracking_uri())
        found = client.get_experiment_by_name(experiment)
        runs, token = {}, None
        while found is not None and token != "":
            page = client.search_runs(
                [found.experiment_id], wanted, order_by=["attributes.start_time ASC"], page_token=token
            )
            for run in page:
                dice = run.data.metrics.get("test_dice")
                runs[run.info.run_name] = Tracked(run.info.run_id, run.info.status, dice)
            token = page.token or ""
        return runs
    except Exception as error:  # of whatever store or server
        root = list(causes(error))[-1]  # MLflow and those below it wrap a refused connection many times
        raise Unreachable(
            f"expected to reach MLflow at {tracking_uri()}, found: {(str(root).splitlines() or [root])[0]}; "
            "start it, or mend MLFLOW_TRACKING_URI"
        ) from error


def state_of(job: Job, known: Mapping[str, Tracked]) -> Outcome | None:
    """How the run stands where there is nothing to do for it here, else None.

    Args:
        job: the run.
        known: as `tracked` returns it.
    """
    run, here = known.get(job.name), (job.folder / "run.json").is_file()
    if run is None:
        return None
    # What a kill or a server that was away kept back of the evaluation's files is sent first.
    if run.status == "FINISHED" and run.dice is not None and (not here or send_record(job.folder)):
        return Outcome(job, SKIPPED, f"Dice {run.dice:.3f}")
    if not here:
        words = f"{run.status.lower()} in MLflow, but its folder {job.folder} is not here: leave it to the "
        words += f"machine that has it, or train it anew after `mlflow runs delete --run-id {run.run_id}`"
        return Outcome(job, ELSEWHERE, words)
    return None


@contextlib.contextmanager
def lock(job: Job) -> Iterator[int | None]:
    """Hold a run: gives a file descriptor to pass on to its processes, or None where others hold it.

    The lock lives as long as any process that has the descriptor, so a training that outlives a killed sweep
    keeps it, and the next sweep waits for that instead of training the run twice.
    """
    path = job.folder.parent / "sweep" / f"{job.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file.fileno()


def carry_out(
    job: Job, environment: dict[str, str] | None = None, stop: threading.Event | None = None
) -> Outcome:
    """Train and evaluate one run, as far as that is not done.

    What its commands print goes to `runs/EXPERIMENT/sweep/NAME.log`. Where another process is at the run, or
    MLflow cannot be reached, the state is "later"; what is wrong with files makes a failed run.

    Args:
        job: the run.
        environment: of its commands; this process's by default.
        stop: set to end the command that runs.

    Raises:
        Stopped: `stop` was set.
    """
    start = time.monotonic()
    try:
        with lock(job) as held:
            if held is None:
                return Outcome(job, LATER, "another process is at it")
            outcome = _carry_out(job, held, environment, stop)
    except Unreachable as error:
        return Outcome(job, LATER, str(error))
    except (DataError, OSError) as error:
        outcome = Outcome(job, FAILED, str(error))
    return replace(outcome, seconds=0.0 if outcome.state == SKIPPED else time.monotonic() - start)


def _carry_out(
    job: Job, held: int, environment: dict[str, str] | None, stop: threading.Event | None
) -> Outcome:
    """What `carry_out` does once it has the lock."""
    state = state_of(job, tracked(job.experiment, job.name))
    if state is not None:
        return state
    note = read_json(job.folder / "run.json") if (job.folder / "run.json").is_file() else None
    if note and _goes_on(note):
        return Outcome(job, LATER, f"process {note['pid']} trains it")
    log = job.folder.parent / "sweep" / f"{job.name}.log"
    steps = [("training", job.training(resume=note is not None)), ("evaluation", job.evaluating())]
    for step, words in steps[1:] if note and note["status"] == FINISHED else steps:
        before = log.stat().st_size if log.is_file() else 0
        code = _run(words, log, held, environment, stop)
        if code:
            return Outcome(job, FAILED, f"{step}: {_reason(log, before, code)}")
    state = state_of(job, tracked(job.experiment, job.name))
    if state is None or state.state != SKIPPED:
        words = (
            f"MLflow at {tracking_uri()} does not have all of it; `featherseg track {job.folder}` sends it"
        )
        return Outcome(job, FAILED, words)
    return replace(state, state=DONE)


def _goes_on(note: Mapping[str, Any]) -> bool:
    """Whether a process of this machine trains a run that no sweep holds, such as one started by hand."""
    if note["status"] != RUNNING or note["host"] != platform.node():
        return False
    try:
        process = psutil.Process(note["pid"])
        same = abs(process.create_time() - note["pid_started"]) < 1
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _run(
    words: list[str],
    log: Path,
    held: int,
    environment: dict[str, str] | None,
    stop: threading.Event | None,
) -> int:
    """Run a command to its end; its exit status."""
    with log.open("a", encoding="utf-8") as output:
        process = subprocess.Popen(
            words,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            pass_fds=(held,),
            start_new_session=True,
        )
    try:
        while True:
            try:
                return process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                if stop is not None and stop.is_set():
                    raise Stopped from None
    finally:
        if process.poll() is None:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a command and what it started to end, so that its run is closed as failed; then make it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=END_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _reason(log: Path, before: int, code: int) -> str:
    """Why a command failed: the error in what it added to its log of `before` bytes, else its last line."""
    if code < 0:
        return f"killed by signal {-code}; see {log}"
    with log.open("rb") as file:
        file.seek(max(before, log.stat().st_size - LOG_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
    errors = [line for line in lines if ERROR.match(line)]
    return f"{[f'exit status {code} without a word', *lines[-1:], *errors][-1].strip()}; see {log}"

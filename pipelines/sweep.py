"""A grid of trainings and evaluations by the commands that a user types; what is done is skipped."""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from tqdm import tqdm

from pipelines.errors import DataError
from pipelines.files import read_json
from pipelines.runs import FINISHED
from pipelines.sweep_plan import Job
from pipelines.tracking import send_record, tracking_uri

BUSY_SECONDS = 2.0  # between looks at a run that another process has
STATES = DONE, SKIPPED, FAILED, ELSEWHERE = "done", "skipped", "failed", "elsewhere"


@dataclass(frozen=True)
class Outcome:
    """How a run of a sweep ended.

    Attributes:
        job: the run.
        state: "done", "skipped" (it was finished before), "failed", or "elsewhere" (on another machine).
        words: why, or its Dice.
        seconds: that it took now.
    """

    job: Job
    state: str
    words: str = ""
    seconds: float = 0.0


class Stopped(Exception):
    """The sweep was asked to end while a run was going on."""


def tracked(experiment: str) -> dict[str, tuple[str, float | None]]:
    """What MLflow knows of an experiment: name of a run to its status and its test Dice, None before that.

    Raises:
        DataError: MLflow cannot be reached.
    """
    import mlflow

    try:
        client = mlflow.MlflowClient(tracking_uri=tracking_uri())
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return {}
        states, token = {}, None
        while token != "":
            page = client.search_runs([found.experiment_id], max_results=1000, page_token=token)
            for run in reversed(page):
                states[run.info.run_name] = run.info.status, run.data.metrics.get("test_dice")
            token = page.token or ""
        return states
    except Exception as error:  # of whatever store or server
        raise DataError(
            f"expected to reach MLflow at {tracking_uri()}, found: {(str(error).splitlines() or [''])[0]}; "
            "start it, or mend MLFLOW_TRACKING_URI"
        ) from error


def state_of(job: Job) -> Outcome | None:
    """How the run stands where there is nothing to do for it here, else None."""
    status, dice = tracked(job.experiment).get(job.name, ("", None))
    here = (job.folder / "run.json").is_file()
    if status == "FINISHED" and dice is not None and (not here or send_record(job.folder)):
        return Outcome(job, SKIPPED, f"Dice {dice:.3f}")
    if status in ("RUNNING", "SCHEDULED", "FINISHED") and not here:
        words = f"{status.lower()} on another machine, whose folder {job.folder} is not here"
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
) -> Outcome | None:
    """Train and evaluate one run, as far as that is not done; None where another process is at it.

    What its commands print goes to `runs/EXPERIMENT/sweep/NAME.log`.

    Args:
        job: the run.
        environment: of its commands; this process's by default.
        stop: set to end the command that runs.

    Raises:
        Stopped: `stop` was set.
        DataError: MLflow cannot be reached.
    """
    with lock(job) as held:
        if held is None:
            return None
        state = state_of(job)
        if state is not None:
            return state
        start, note = time.monotonic(), job.folder / "run.json"
        log = job.folder.parent / "sweep" / f"{job.name}.log"
        status = read_json(note)["status"] if note.is_file() else None
        steps = [] if status == FINISHED else [("training", job.training(resume=status is not None))]
        for step, words in [*steps, ("evaluation", job.evaluating())]:
            code = _run(words, log, held, environment, stop)
            if code:
                return Outcome(job, FAILED, f"{step}: {_reason(log, code)}", time.monotonic() - start)
        state = state_of(job)
        if state is None or state.state != SKIPPED:
            words = f"MLflow does not have all of it; send it by `featherseg track {job.folder}`"
            return Outcome(job, FAILED, words, time.monotonic() - start)
        return Outcome(job, DONE, state.words, time.monotonic() - start)


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
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _reason(log: Path, code: int) -> str:
    if code < 0:
        return f"killed by signal {-code}; see {log}"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'no word'}; see {log}"


def slots(devices: Sequence[str], jobs: int) -> list[dict[str, str]]:
    """The environment of each run that goes on at a time.

    Args:
        devices: numbers of GPUs; empty for the processor.
        jobs: how many runs share a device.
    """
    number = max(1, len(devices)) * jobs
    threads = max(1, (psutil.cpu_count() or 1) // number)
    shared = {"OMP_NUM_THREADS": str(threads), **os.environ}
    if not devices:
        return [{**shared, "CUDA_VISIBLE_DEVICES": ""}] * jobs
    return [{**shared, "CUDA_VISIBLE_DEVICES": device} for device in devices for _ in range(jobs)]


def all_devices() -> list[str]:
    """The GPUs of this machine, by number."""
    return [str(number) for number in range(torch.cuda.device_count())]


def sweep(jobs: Sequence[Job], environments: Sequence[dict[str, str]]) -> list[Outcome]:
    """Carry out every run, one at a time in each environment; a failed one does not stop the others.

    Ctrl-C or a termination signal ends the commands that run, so that a later sweep takes them up.

    Returns:
        How each run ended, in the order of `jobs`.

    Raises:
        DataError: MLflow cannot be reached.
        KeyboardInterrupt: as it came.
    """
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    outcomes: dict[str, Outcome] = {}
    known = tracked(jobs[0].experiment) if jobs else {}
    for job in jobs:
        settled = state_of(job) if job.name in known else None
        if settled is None:
            waiting.put(job)
        else:
            outcomes[job.name] = settled
    stop, errors = threading.Event(), []
    bar = tqdm(total=len(jobs), initial=len(outcomes), desc="sweep", unit="run", disable=None)

    def work(environment: dict[str, str]) -> None:
        while not stop.is_set():
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                outcome = carry_out(job, environment, stop)
            except Stopped:
                return
            except Exception as error:
                errors.append(error)
                stop.set()
                return
            if outcome is None:  # another process is at it; look again later
                waiting.put(job)
                stop.wait(BUSY_SECONDS)
                continue
            outcomes[job.name] = outcome
            tqdm.write(f"{job.name}: {outcome.state}, {outcome.words} ({outcome.seconds / 60:.1f} min)")
            bar.update()

    workers = [threading.Thread(target=work, args=(one,), daemon=True) for one in environments]
    with _termination_as_interrupt():
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                while worker.is_alive():
                    worker.join(timeout=0.5)
        finally:
            stop.set()
            for worker in workers:
                worker.join()
            bar.close()
    if errors:
        raise errors[0]
    return [outcomes[job.name] for job in jobs]


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """A scheduler's SIGTERM ends a sweep as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

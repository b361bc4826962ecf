"""A grid of trainings and evaluations, some at a time; what is done is skipped."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Iterator, Sequence

import psutil
import torch

from pipelines.sweep_plan import Job
from pipelines.sweep_progress import Progress
from pipelines.sweep_run import (
    ELSEWHERE,
    FAILED,
    LATER,
    STATES,
    Outcome,
    Stopped,
    carry_out,
    state_of,
    tracked,
)

__all__ = [
    "ELSEWHERE",
    "FAILED",
    "STATES",
    "all_devices",
    "settle",
    "slots",
    "sweep",
    "termination_as_interrupt",
]

LATER_SECONDS = 2.0  # before a run that cannot be carried out now is looked at again


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
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    number = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",")[:number] if given else [str(device) for device in range(number)]


def sweep(jobs: Sequence[Job], environments: Sequence[dict[str, str]]) -> list[Outcome]:
    """Carry out every run, one at a time in each environment; a failed one does not stop the others.

    Ctrl-C or a termination signal ends the commands that run, so that a later sweep takes them up.

    Returns:
        How each run ended, in the order of `jobs`.

    Raises:
        DataError: MLflow cannot be reached at the start; later on, it is waited for.
        KeyboardInterrupt: as it came.
    """
    progress = Progress(jobs, len(environments))
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in settle(jobs, progress):
        waiting.put(job)
    stop, errors = threading.Event(), []
    ended = threading.Semaphore(0)  # released by each worker at its end

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
            except Exception as error:  # a bug; it is raised again in the main thread
                errors.append(error)
                stop.set()
                return
            progress.add(outcome)
            if outcome.state == LATER:
                waiting.put(job)
                stop.wait(LATER_SECONDS)

    def work_to_the_end(environment: dict[str, str]) -> None:
        try:
            work(environment)
        finally:
            ended.release()

    workers = [threading.Thread(target=work_to_the_end, args=(one,), daemon=True) for one in environments]
    with termination_as_interrupt(), progress:
        try:
            for worker in workers:
                worker.start()
            # Not by joining them: Python 3.11 takes a thread for ended once Ctrl-C came while it was joined.
            for _ in workers:
                while not ended.acquire(timeout=0.5):
                    progress.refresh()
        finally:
            stop.set()
            for worker in workers:
                if worker.is_alive():  # Ctrl-C may have come before all were started
                    worker.join()
    if errors:
        raise errors[0]
    return [progress.outcomes[job.name] for job in jobs]


def settle(jobs: Sequence[Job], progress: Progress) -> list[Job]:
    """The runs with something to do; the others are over, and go to `progress`.

    Raises:
        DataError: MLflow cannot be reached.
    """
    known = tracked(jobs[0].experiment) if jobs else {}
    states = [(job, state_of(job, known)) for job in jobs]
    for _, state in states:
        if state is not None:
            progress.add(state)
    return [job for job, state in states if state is None]


@contextlib.contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """A scheduler's SIGTERM ends a sweep as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

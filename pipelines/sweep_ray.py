"""A sweep on a Ray cluster: each run is a task of whichever machine has room for it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.errors import DataError
from pipelines.sweep import LATER_SECONDS, settle, termination_as_interrupt
from pipelines.sweep_plan import Job
from pipelines.sweep_progress import Progress
from pipelines.sweep_run import END_SECONDS, FAILED, LATER, Outcome, carry_out
from pipelines.tracking import tracking_uri

LOCAL = "local"
PASSED_ON = ("PYTHONPATH", "OMP_NUM_THREADS")  # beside the address of MLflow


def sweep(jobs: Sequence[Job], address: str, per_device: int = 1) -> list[Outcome]:
    """Carry out every run as a task of a cluster, as `pipelines.sweep.sweep` does on this machine.

    All machines of the cluster need the working directory under the same path, with this project installed,
    and MLflow under the same address; SQLite serves those that lock files in the directory that they share.

    Args:
        jobs: the runs.
        address: of the cluster, such as "192.168.0.1:6379" or "auto"; "local" starts one on this machine.
        per_device: how many runs share a GPU; in a cluster without, a machine.

    Returns:
        How each run ended, in the order of `jobs`. A task that Ray lost is a failed run, which it does not
        try again.

    Raises:
        DataError: Ray is not installed or has no such cluster, or MLflow cannot be reached at the start.
        KeyboardInterrupt: as it came; the tasks that run are ended, so that a later sweep takes them up.
    """
    ray = _connected(address)
    try:
        return _sweep(ray, jobs, per_device)
    finally:
        ray.shutdown()


def _connected(address: str) -> Any:
    # Before the import, which reads it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise DataError(
            "expected Ray for --ray, found that it is not installed; type `pip install -c constraints.txt "
            "-e '.[ray]'`"
        ) from error
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init(address=address, **quiet, **({"include_dashboard": False} if address == LOCAL else {}))
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise DataError(
            f"expected a Ray cluster at {address}, found: {(str(error).splitlines() or [''])[0]}; start one "
            "with `ray start --head`, or give --ray local"
        ) from error
    return ray


def share(nodes: Sequence[dict[str, float]], per_device: int) -> tuple[dict[str, float], int]:
    """What a task asks of a cluster, and how many go on at a time.

    Args:
        nodes: the resources of each machine, "CPU" and "GPU".
        per_device: as in `sweep`.

    Returns:
        `num_cpus` and `num_gpus` of a task, and the number of tasks.
    """
    with_gpus = [node for node in nodes if node.get("GPU")]
    places = [(node.get("CPU", 1), int(node.get("GPU", 1)) * per_device) for node in with_gpus or nodes]
    cpus = max(1, min(int(number // tasks) for number, tasks in places))
    number = sum(min(tasks, max(1, int(count // cpus))) for count, tasks in places)
    return {"num_cpus": cpus, "num_gpus": 1 / per_device if with_gpus else 0}, number


def _sweep(ray: Any, jobs: Sequence[Job], per_device: int) -> list[Outcome]:
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    asked, number = share(alive, per_device)
    environment = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
    environment = {"OMP_NUM_THREADS": str(asked["num_cpus"]), **environment}
    environment["MLFLOW_TRACKING_URI"] = tracking_uri()
    environment |= {} if asked["num_gpus"] else {"CUDA_VISIBLE_DEVICES": ""}
    task = ray.remote(_task).options(**asked, max_retries=0, retry_exceptions=False)
    progress = Progress(jobs, number)
    later, running = settle(jobs, progress), {}
    folder = str(Path.cwd())
    with termination_as_interrupt(), progress:
        try:
            while later or running:
                running |= {task.remote(job, folder, environment): job for job in later}
                later = []
                ended, _ = ray.wait(list(running), timeout=LATER_SECONDS)
                waits = time.monotonic() + LATER_SECONDS
                for reference in ended:
                    job = running.pop(reference)
                    outcome = _outcome(ray, reference, job)
                    progress.add(outcome)
                    later += [job] if outcome.state == LATER else []
                progress.refresh()
                if later:
                    time.sleep(max(0.0, waits - time.monotonic()))
        finally:
            for reference in running:
                ray.cancel(reference)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=2 * END_SECONDS)
    return [progress.outcomes[job.name] for job in jobs]


def _task(job: Job, folder: str, environment: dict[str, str]) -> Outcome:
    """Runs on a machine of the cluster."""
    try:
        os.chdir(folder)
    except OSError as error:
        words = (
            f"expected {folder} on every machine of the cluster, found it missing on {os.uname().nodename}"
        )
        return Outcome(job, FAILED, f"{words} ({error.strerror}); share it")
    os.environ.update(environment)
    return carry_out(job)


def _outcome(ray: Any, reference: Any, job: Job) -> Outcome:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return Outcome(job, FAILED, f"Ray: {lines[-1].strip() if lines else type(error).__name__}")

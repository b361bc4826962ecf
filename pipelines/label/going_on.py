"""The training of a bundle: one at a time, told of by a file, and no longer than its server."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
from filelock import FileLock, Timeout

from pipelines.errors import DataError
from pipelines.files import read_json, write_json
from pipelines.label.project import Project
from pipelines.label.told import told

RUNNING, DONE, FAILED, BROKEN_OFF = "running", "done", "failed", "broken off"
SERVER = "FEATHERSEG_LABEL_SERVER"  # the server's process, known to those that it starts


@contextlib.contextmanager
def alone(project: Project, bundle: str) -> Iterator[None]:
    """Be the only training of a bundle in a project.

    Raises:
        DataError: there is another one.
    """
    project.runs(bundle).mkdir(parents=True, exist_ok=True)
    lock = FileLock(project.runs(bundle) / ".training", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise DataError(
            f"expected no training of {bundle} to be going on, found one; wait until it has ended, or stop it"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def noted(project: Project, bundle: str, run: str) -> Iterator[dict[str, Any]]:
    """Keep a file about the training that the block carries out: that it runs, and how it ended.

    Args:
        run: its name.

    Yields:
        what to add about how it ended, such as `message`.
    """
    process = {"pid": os.getpid(), "pid_started": psutil.Process().create_time()}
    known = {"run": run, "started": time.time(), **process}
    outcome: dict[str, Any] = {}
    file = project.training(bundle)
    write_json(file, {**known, "status": RUNNING})
    try:
        yield outcome
    except (SystemExit, KeyboardInterrupt):
        write_json(file, {**known, **_broken_off()})
        raise
    except BaseException as error:
        message = told(error) or f"{type(error).__name__}: {error}"
        write_json(file, {**known, "status": FAILED, "message": message})
        raise
    write_json(file, {**known, "status": DONE, **outcome})


def state(project: Project, bundle: str) -> dict[str, Any]:
    """What is known of the last training: `status`, `run`, `started`, at its end `message`; or nothing."""
    file = project.training(bundle)
    found = read_json(file) if file.is_file() else {}
    gone = found.get("status") == RUNNING and not _alive(found["pid"], found["pid_started"])
    return {**found, **_broken_off()} if gone else found


def _alive(pid: int, started: float) -> bool:
    """Whether a process is still there; a number may have been given to another one."""
    try:
        return abs(psutil.Process(pid).create_time() - started) < 1
    except psutil.Error:
        return False


def _broken_off() -> dict[str, str]:
    message = "it was ended from outside; labels and served model are as before, start it again"
    return {"status": BROKEN_OFF, "message": message}


def end_with_server() -> None:
    """End this process as by a signal once the server is gone: nobody could follow or stop it then."""
    server = int(os.environ.get(SERVER, os.getppid()))

    def watch() -> None:
        while os.getppid() == server:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()

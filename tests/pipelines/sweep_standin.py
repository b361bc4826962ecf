"""A stand-in for trainings and evaluations, started in milliseconds: processes forked from the test's own.

Importing PyTorch and MLflow takes seconds, which a test that kills and starts dozens of processes has not.
So a process is forked from the test while it has one thread, and forks in turn whatever is asked of it:
sweeps, and the commands that sweeps start. They do what real ones do to folders, journals, locks and MLflow.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import torch

from pipelines import sweep, sweep_plan, sweep_run
from pipelines.files import read_json, write_json
from pipelines.recording import record_evaluation
from pipelines.runs import FAILED, FINISHED, Run, dead_runs
from pipelines.tracking import Tracker, close_dead_runs

EPOCHS = 3
START_SECONDS, EPOCH_SECONDS = 0.2, 0.03  # real ones take seconds for both


def training(run, fold):
    """What a training does to its folder and to MLflow; its weights are the number of its epochs."""
    run.begin([["1"], ["2"]], fold, {}, torch.nn.Identity())
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    close_dead_runs([dead for dead in dead_runs(run.bundle) if dead.folder != run.folder])
    tracker, last = Tracker(run), run.folder / "last.json"
    try:
        tracker.add("status", status="RUNNING")
        if not any(record and record["kind"] == "params" for record in tracker.records()):
            tracker.add("params", values={"max_epochs": EPOCHS})
            tracker.add("artifact", path="split.json")
        tracker.send()
        done = read_json(last)["epochs"] if last.is_file() else 0
        for epoch in range(done + 1, EPOCHS + 1):
            time.sleep(EPOCH_SECONDS)
            tracker.add("metrics", step=epoch, values={"train_loss": 1 / epoch})
            tracker.send()
            write_json(last, {"epochs": epoch})
        tracker.add("status", status="FINISHED")
        tracker.send(patient=True)
        run.end(FINISHED)
    except BaseException:
        tracker.add("status", status="FAILED")
        run.end(FAILED)
        tracker.send(patient=True)
        raise


def evaluating(run):
    """What an evaluation does."""
    time.sleep(EPOCH_SECONDS)
    folder = run.folder / "evaluation"
    for name in ("cases.csv", "report.md", "shown.npz"):
        write_json(folder / name, {"epochs": read_json(run.folder / "last.json")["epochs"]})
    record_evaluation(run.folder, {"test_dice": 0.5}, folder)


def command(words):
    """A command of a sweep, by its words."""
    options = dict(zip(words[5::2], words[6::2], strict=True))
    experiment, name = options["--experiment"], options["--run_name"]
    run = Run(f"runs/{experiment}/{name}", experiment, options.get("--resume", False))
    # Of two processes at a run at a time, the second leaves a note.
    with Path(f"{name}.alone").open("w") as alone:
        try:
            fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            Path(f"{name}.twice").touch()
        time.sleep(START_SECONDS)
        training(run, int(options["--fold"])) if words[4] == "training" else evaluating(run)
    return 0


def sweeping(words):
    """A sweep of a file, two runs at a time; 1 where a run failed."""
    sweep_run.subprocess = SimpleNamespace(
        Popen=Forked, **{key: getattr(subprocess, key) for key in ("STDOUT", "DEVNULL", "TimeoutExpired")}
    )
    sweep.LATER_SECONDS, sweep_run.END_SECONDS = 0.05, 1.0
    outcomes = sweep.sweep(sweep_plan.read(words[1]), [dict(os.environ)] * 2)
    return int(any(outcome.state not in ("done", "skipped") for outcome in outcomes))


class Forked:
    """`subprocess.Popen` as far as a sweep uses it; the place of the forking process is in FORKS."""

    def __init__(self, words, stdout, pass_fds=(), **_):
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect(os.environ["FORKS"])
        request = json.dumps([words, os.getcwd(), len(pass_fds)]).encode()
        socket.send_fds(self._line, [request], [stdout.fileno(), *pass_fds])
        self.pid = int.from_bytes(self._line.recv(4), "big")
        self.returncode = None

    def wait(self, timeout=None):
        if self.returncode is None:
            if not select.select([self._line], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("stand-in", timeout)
            said = b""
            with contextlib.suppress(ConnectionResetError):
                said = self._line.recv(1)
            # Its last word comes a moment before its end, which is what is waited for.
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(self.pid).wait()
            self.returncode = said[0] if said else -signal.SIGKILL
        return self.returncode

    def poll(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode


@contextlib.contextmanager
def forks(place):
    """The process that forks, listening at `place`."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(place))
    listening.listen(64)
    os.environ["FORKS"] = str(place)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what ends is not waited for
        while True:
            line, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _serve(line)
            line.close()
    listening.close()
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        del os.environ["FORKS"]


def _serve(line):
    """Do one thing that was asked for, in a session of its own; never returns."""
    code = 70
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setsid()
        request, (output, *_), *_ = socket.recv_fds(line, 65536, 8)
        words, folder, _ = json.loads(request)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = sys.__stdout__ = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, closefd=False)
        os.chdir(folder)
        line.send(os.getpid().to_bytes(4, "big"))
        code = sweeping(words) if words[0] == "sweep" else command(words)
    except SystemExit as error:
        code = error.code
    except KeyboardInterrupt:
        code = 130
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        code = 1
    finally:
        with contextlib.suppress(OSError):
            line.send(bytes([code]))
        os._exit(code)


def last_words(folder):
    """What processes of a workspace said, for a test that fails."""
    return "\n".join(path.read_text() for path in sorted(Path(folder).rglob("*.log")))

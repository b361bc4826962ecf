import json
import os
import platform
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from pipelines import sweep_run
from pipelines.sweep_plan import Job
from pipelines.sweep_run import DONE, ELSEWHERE, FAILED, LATER, SKIPPED, Tracked, carry_out, lock, state_of
from tests.pipelines.tracked_runs import client_of


@dataclass(frozen=True)
class Said(Job):
    """A run whose training and evaluation are lines of Python."""

    trains: str = "pass"
    evaluates: str = "pass"

    def training(self, resume=False):
        return [sys.executable, "-S", "-c", self.trains, str(resume)]

    def evaluating(self):
        return [sys.executable, "-S", "-c", self.evaluates]


@pytest.fixture
def make(workspace):
    def make(**said):
        return Said("a", "study", (), (), (), 0, 0, **said)

    return make


@pytest.fixture
def known(monkeypatch):
    """What MLflow says, as a test would have it; each look takes the next."""
    answers = []
    monkeypatch.setattr(sweep_run, "tracked", lambda *_: answers.pop(0) if len(answers) > 1 else answers[0])
    return answers


def note(job, **facts):
    job.folder.mkdir(parents=True, exist_ok=True)
    content = {"status": "running", "host": platform.node(), "pid": 2**22 + 1, "pid_started": 0.0}
    (job.folder / "run.json").write_text(json.dumps({**content, "bundle": "study", **facts}))


EVALUATED = {"a": Tracked("id", "FINISHED", 0.75)}
SAY = "import sys; print(sys.argv[1:])"


def log():
    return Path("runs/study/sweep/a.log").read_text()


def test_a_new_run_is_trained_and_evaluated(make, known):
    known[:] = [{}, EVALUATED]
    outcome = carry_out(make(trains=SAY, evaluates="print('evaluated')"))
    assert (outcome.state, outcome.words) == (DONE, "Dice 0.750")
    assert 0 < outcome.seconds < 30
    assert log().splitlines() == ["['False']", "evaluated"]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("running", ["['True']", "evaluated"]),
        ("failed", ["['True']", "evaluated"]),
        ("finished", ["evaluated"]),
    ],
)
def test_what_broke_off_goes_on_and_what_is_done_is_not_done_again(make, known, status, said):
    known[:] = [{"a": Tracked("id", "FAILED", None)}, EVALUATED]
    job = make(trains=SAY, evaluates="print('evaluated')")
    note(job, status=status)
    assert carry_out(job).state == DONE
    assert log().splitlines() == said


def test_a_failure_says_its_own_last_line_and_its_log(make, known):
    known[:] = [{}]
    outcome = carry_out(make(trains="print('so far\\nit went wrong'); raise SystemExit(3)"))
    assert (outcome.state, outcome.words) == (FAILED, "training: it went wrong; see runs/study/sweep/a.log")
    outcome = carry_out(make(trains="raise ValueError('wrong\\n  for this reason')"))
    assert outcome.words == "training: ValueError: wrong; see runs/study/sweep/a.log"
    outcome = carry_out(make(evaluates="raise SystemExit(3)"))
    words = "evaluation: exit status 3 without a word; see runs/study/sweep/a.log"
    assert (outcome.state, outcome.words) == (FAILED, words)
    outcome = carry_out(make(trains="import os; os.kill(os.getpid(), 9)"))
    assert outcome.words == "training: killed by signal 9; see runs/study/sweep/a.log"


def test_a_run_that_mlflow_lacks_in_part_is_not_done(make, known):
    known[:] = [{}, {"a": Tracked("id", "FINISHED", None)}]
    outcome = carry_out(make())
    assert outcome.state == FAILED
    assert "does not have all of it; `featherseg track runs/study/a` sends it" in outcome.words


def test_a_store_that_goes_away_is_waited_for(make, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    outcome = carry_out(make(trains="open('trained', 'w')"))
    assert outcome.state == LATER
    assert (
        "expected to reach MLflow at http://127.0.0.1:1, found: [Errno 111] Connection ref" in outcome.words
    )
    assert not Path("trained").exists()


def test_a_broken_folder_is_a_failed_run(make, known):
    known[:] = [{}]
    job = make()
    job.folder.mkdir(parents=True)
    (job.folder / "run.json").write_text("{")
    outcome = carry_out(job)
    assert outcome.state == FAILED
    assert outcome.words.startswith("expected JSON in runs/study/a/run.json, found: ")


def test_a_run_that_a_user_trains_is_left_alone(make, known):
    known[:] = [{"a": Tracked("id", "RUNNING", None)}]
    job, own = make(trains="open('trained', 'w')"), psutil.Process()
    note(job, pid=own.pid, pid_started=own.create_time())
    outcome = carry_out(job)
    assert (outcome.state, outcome.words) == (LATER, f"process {own.pid} trains it")
    assert not Path("trained").exists()
    # The number of a process that ended is given again.
    note(job, pid=own.pid, pid_started=own.create_time() - 100)
    known[:] = [{}, EVALUATED]
    assert carry_out(job).state == DONE
    assert Path("trained").exists()


def test_a_stop_ends_the_command(make, known):
    known[:] = [{}]
    stop = threading.Event()
    trains = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"

    def when_begun():
        while not Path("pid").is_file() or not Path("pid").read_text():
            time.sleep(0.01)
        stop.set()

    threading.Thread(target=when_begun).start()
    with pytest.raises(sweep_run.Stopped):
        carry_out(make(trains=trains), None, stop)
    assert not psutil.pid_exists(int(Path("pid").read_text()))


def test_the_lock_outlives_its_holder_in_the_commands_that_it_started(make):
    job = make()
    with lock(job) as held:
        child = subprocess.Popen(["sleep", "60"], pass_fds=(held,))
        with lock(job) as second:
            assert second is None
    try:
        with lock(job) as third:
            assert third is None
    finally:
        child.kill()
        child.wait()
    with lock(job) as fourth:
        assert isinstance(fourth, int)


def test_the_commands_of_a_run_hold_its_lock(make, known):
    known[:] = [{}, EVALUATED]
    says = "import os; print(*(os.path.realpath(f'/proc/self/fd/{n}') for n in range(3, 256)))"
    assert carry_out(make(trains=says, evaluates=says)).state == DONE
    file = str(Path("runs/study/sweep/a.lock").resolve())
    assert [file in line.split() for line in log().splitlines()] == [True, True]


@pytest.mark.parametrize(
    ("run", "here", "state"),
    [
        (None, False, None),
        (None, True, None),
        (Tracked("id", "FINISHED", 0.5), False, SKIPPED),
        (Tracked("id", "FINISHED", 0.5), True, SKIPPED),
        (Tracked("id", "FINISHED", None), True, None),
        (Tracked("id", "RUNNING", None), True, None),
        (Tracked("id", "FAILED", 0.5), True, None),
        (Tracked("id", "RUNNING", None), False, ELSEWHERE),
        (Tracked("id", "FAILED", None), False, ELSEWHERE),
        (Tracked("id", "FINISHED", None), False, ELSEWHERE),
    ],
)
def test_what_is_to_be_done_follows_from_mlflow_and_the_folder(make, run, here, state):
    job = make()
    if here:
        note(job)
    outcome = state_of(job, {"b": Tracked("other", "FINISHED", 0.9)} | ({"a": run} if run else {}))
    assert (outcome.state if outcome else None) == state
    if state == ELSEWHERE:
        assert "its folder runs/study/a is not here" in outcome.words
        assert "`mlflow runs delete --run-id id`" in outcome.words


def test_mlflow_is_asked_for_a_run_or_for_all(workspace):
    client = client_of(workspace, "study")
    experiment = client.get_experiment_by_name("study").experiment_id
    assert sweep_run.tracked("other") == sweep_run.tracked("study") == {}
    made = {name: client.create_run(experiment, run_name=name).info.run_id for name in ("a", "b")}
    client.log_metric(made["a"], "test_dice", 0.5)
    client.set_terminated(made["a"], "FINISHED")
    found = {"a": Tracked(made["a"], "FINISHED", 0.5), "b": Tracked(made["b"], "RUNNING", None)}
    assert sweep_run.tracked("study") == found
    assert sweep_run.tracked("study", "b") == {"b": found["b"]}
    client.delete_run(made["a"])
    assert sweep_run.tracked("study", "a") == {}
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "10"

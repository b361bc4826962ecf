import os
import subprocess
import sys
import time

import pytest

from pipelines.errors import DataError
from pipelines.label import going_on
from pipelines.label.project import Project
from tests.conftest import ROOT


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path / "app")


def test_two_trainings_of_a_bundle_at_once_are_refused(project):
    with going_on.alone(project, "lits"):
        again = going_on.alone(project, "lits")
        with pytest.raises(DataError, match="no training of lits to be going on, found one"), again:
            pass
        with going_on.alone(project, "dce_us"):
            pass
    with going_on.alone(project, "lits"):
        pass


def test_it_is_known_how_a_training_ended(project):
    assert going_on.state(project, "lits") == {}
    with going_on.noted(project, "lits", "first") as outcome:
        assert going_on.state(project, "lits")["status"] == "running"
        outcome["message"] = "better"
    assert (
        going_on.state(project, "lits").items()
        >= {"status": "done", "message": "better", "run": "first"}.items()
    )
    for error, status, message in (
        (DataError("expected this"), "failed", "expected this"),
        (KeyError("bug"), "failed", "KeyError: 'bug'"),
        (SystemExit(143), "broken off", "labels and served model are as before"),
    ):
        with pytest.raises(type(error)), going_on.noted(project, "lits", "later"):
            raise error
        found = going_on.state(project, "lits")
        assert found["status"] == status and message in found["message"]


SERVER = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", sys.argv[1]]).pid, flush=True)
sys.stdin.read()
"""
TRAINING = """
import time
from pipelines.label import going_on
from pipelines.label.project import Project
project = Project({folder!r})
going_on.end_with_server()
with going_on.alone(project, "lits"), going_on.noted(project, "lits", "killed"):
    time.sleep(60)
"""


def test_a_training_does_not_outlive_its_server_and_is_told_of(project):
    words = [sys.executable, "-c", SERVER, TRAINING.format(folder=str(project.folder))]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as server:
        pid = int(server.stdout.readline())
        until = time.monotonic() + 50
        while going_on.state(project, "lits").get("status") != "running":
            assert time.monotonic() < until
            time.sleep(0.1)
        server.kill()
    while going_on.state(project, "lits")["status"] == "running":
        assert time.monotonic() < until, pid
        time.sleep(0.1)
    found = going_on.state(project, "lits")
    assert (found["status"], found["run"]) == ("broken off", "killed")
    with going_on.alone(project, "lits"):  # a new one may start
        pass

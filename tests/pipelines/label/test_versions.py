import os
import subprocess
import sys

import pytest
import torch

from pipelines.errors import DataError
from pipelines.label.versions import Superseded, Versions
from tests.conftest import ROOT


@pytest.fixture
def weights(tmp_path):
    """Weights of which each differs: a function from a number to a file."""

    def make(number):
        file = tmp_path / f"weights-{number}.pt"
        torch.save({"weight": torch.full((2,), float(number))}, file)
        return file

    return make


@pytest.fixture
def versions(tmp_path):
    return Versions(tmp_path / "models" / "lits")


def value(versions):
    return torch.load(versions.weights)["weight"][0].item()


def test_the_first_is_served_and_then_each_that_was_found_better(versions, weights):
    assert versions.number is None
    with pytest.raises(DataError, match="expected the served weights"):
        _ = versions.weights
    assert versions.publish(weights(1), {"reason": "given"}) == 1
    assert versions.publish(weights(2), {"reason": "better", "run": "a"}, over=1) == 2
    assert versions.number == 2 and value(versions) == 2
    assert versions.about(2)["run"] == "a"
    assert [one["event"] for one in versions.history] == ["first", "promoted"]
    assert versions.history[-1]["run"] == "a" and versions.history[-1]["reason"] == "better"


def test_a_refused_candidate_changes_nothing_but_is_told_of(versions, weights):
    versions.publish(weights(1), {})
    versions.refuse({"reason": "no better", "run": "b"})
    assert versions.number == 1 and value(versions) == 1
    last = versions.history[-1]
    assert (last["event"], last["reason"], last["run"]) == ("refused", "no better", "b")


def test_rolled_back_the_one_before_is_served_and_numbers_are_not_given_twice(versions, weights):
    for number in (1, 2):
        versions.publish(weights(number), {})
    assert versions.roll_back() == 1 and value(versions) == 1
    assert versions.publish(weights(3), {}, over=1) == 3
    assert torch.load(versions.folder / "2" / "model.pt")["weight"][0] == 2  # kept
    assert versions.roll_back() == 1
    with pytest.raises(DataError, match="served before this one, found version 1 only"):
        versions.roll_back()


def test_nothing_to_roll_back_to_before_the_first(versions):
    with pytest.raises(DataError, match="found none"):
        versions.roll_back()


def test_a_candidate_that_beat_a_model_no_longer_served_is_not_taken(versions, weights):
    for number in (1, 2):
        versions.publish(weights(number), {})
    versions.roll_back()
    with pytest.raises(Superseded):
        versions.publish(weights(3), {}, over=2)
    assert versions.number == 1


def test_killed_before_the_last_step_the_old_model_is_served(versions, weights, monkeypatch):
    versions.publish(weights(1), {})
    script = f"""
import os
from pipelines.label import versions
write = versions.write_json
def killed(path, content):
    os._exit(9) if path.name == "served.json" else write(path, content)
versions.write_json = killed
versions.Versions({str(versions.folder)!r}).publish({str(weights(2))!r}, {{}}, over=1)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", script], env=env, check=False).returncode == 9
    assert (versions.folder / "2" / "model.pt").is_file()
    assert versions.number == 1 and value(versions) == 1
    assert versions.publish(weights(3), {}, over=1) == 3 and value(versions) == 3

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from networks import LighterUNet
from pipelines import latency


@pytest.fixture
def clock(monkeypatch):
    """Calls take the milliseconds that the test says, one after the other."""

    def set_times(*times):
        waiting = iter(times)
        monkeypatch.setattr(latency, "_milliseconds", lambda run: next(waiting))

    return set_times


def test_the_first_run_warms_up_and_ten_follow_at_least(clock):
    clock(500, 5, 1, 3, 2, 1, 2, 9, 2, 2, 4)
    assert latency.time_runs(lambda: None, seconds=0) == latency.Timing(least=1, median=2, runs=10)


def test_runs_go_on_for_the_time_asked_for(clock):
    clock(*[100] * 100)
    assert latency.time_runs(lambda: None, seconds=2.0).runs == 20


def test_what_is_slow_is_run_as_often_as_patience_allows(clock):
    clock(4000, 4000, 3500, 4500)
    assert latency.time_runs(lambda: None, seconds=1.0) == latency.Timing(3500, 4000, 3)
    clock(11000)
    assert latency.time_runs(lambda: None, seconds=1.0) == latency.Timing(11000, 11000, 1)


def test_time_is_that_of_the_clock():
    assert latency.time_runs(lambda: time.sleep(0.02), seconds=0).least >= 20


def test_rates_of_the_matrix_product(clock):
    clock(*[2.0] * 11, *[4.0] * 11)
    rates = latency.matmul_rates(seconds=0, side=200)
    # 8 million multiply-accumulates in 2 ms are 4 billion a second.
    assert rates["matmul"] == pytest.approx(4)
    assert rates["1x1 convolution"] == pytest.approx(2)


def test_every_runtime_answers_and_has_a_time(monkeypatch):
    # The setting could not be undone for the tests that follow in this process.
    monkeypatch.setattr(latency, "reuse_freed_memory", lambda: True)
    torch.manual_seed(0)
    found = dict(latency.measure(LighterUNet(1), (1, 33, 48), batch=2, seconds=0.01))
    assert list(found)[:6] == list(latency.RUNTIMES)
    for name, timing in found.items():
        assert "error" not in timing, (name, timing)
        assert 0 < timing["least"] <= timing["median"]
        assert timing["runs"] >= 10


class Forgetful(nn.Module):
    """Right in the plain layout, wrong with channels last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.is_contiguous() else x + 1


def test_a_runtime_that_answers_something_else_has_no_time():
    with torch.inference_mode():
        found = dict(latency.measure(Forgetful(), (3, 8, 8), batch=1, seconds=0.01))
    assert "median" in found["eager"]
    assert found["channels last"]["error"].startswith("channels last differs from eager by ")


def test_a_network_that_cannot_run_says_why():
    found = dict(latency.measure(LighterUNet(1), (1, 8, 8), batch=1, seconds=0.01))
    assert list(found) == ["eager"]
    assert "at least 16 x 16 pixels" in found["eager"]["error"]


def test_plain_and_optimized_take_turns(monkeypatch):
    turns = []
    times = iter([*[30.0, 10.0] * 4, *[8.0, 4.0] * 4])

    def clock(run):
        turns.append(run)
        return next(times)

    monkeypatch.setattr(latency, "reuse_freed_memory", lambda: True)
    monkeypatch.setattr(latency, "_milliseconds", clock)
    found = latency.compare(LighterUNet(1), (1, 16, 16), pairs=4)
    assert len(set(turns)) == 2
    assert turns == turns[:2] * 8
    assert found["system default"] == {
        "eager": 30.0,
        "optimized": 10.0,
        "ratio": 3.0,
        "quartiles": [3.0, 3.0],
        "pairs": 4,
    }
    assert found["keeping memory"]["ratio"] == 2.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_timed_in_bfloat16():
    found = dict(latency.measure(LighterUNet(1), (1, 64, 64), batch=1, seconds=0.01))
    assert {"GPU eager", "GPU channels last", "GPU optimized"} <= found.keys()

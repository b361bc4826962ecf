from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from networks import LighterUNet
from pipelines import latency


def test_least_and_median_of_at_least_five_runs():
    waits = iter([0.05, 0.01, 0.03, 0.02, 0.01, 0.02])
    timing = latency.time_runs(lambda: time.sleep(next(waits)), seconds=0)
    assert timing.runs == 5
    assert timing.least == pytest.approx(10, abs=5)
    assert timing.median == pytest.approx(20, abs=5)


def test_runs_go_on_for_the_time_asked_for():
    start = time.perf_counter()
    timing = latency.time_runs(lambda: time.sleep(0.01), seconds=0.3)
    assert time.perf_counter() - start >= 0.3
    assert 15 <= timing.runs <= 31


def test_what_is_slow_is_run_as_often_as_patience_allows(monkeypatch):
    monkeypatch.setattr(latency, "PATIENCE", 0.1)
    assert latency.time_runs(lambda: time.sleep(0.06), seconds=10).runs == 2
    assert latency.time_runs(lambda: time.sleep(0.15), seconds=10).runs == 1


def test_rate_of_the_matrix_product():
    a, b = torch.rand(2, 256, 256)
    runs = 50
    start = time.perf_counter()
    for _ in range(runs):
        a @ b
    rough = runs * 256**3 / 1e9 / (time.perf_counter() - start)
    assert latency.matmul_rate(seconds=0.1, side=256) > 0.3 * rough


def test_every_runtime_answers_and_has_a_time(monkeypatch):
    # The setting could not be undone for the tests that follow in this process.
    monkeypatch.setattr(latency, "reuse_freed_memory", lambda: True)
    torch.manual_seed(0)
    found = latency.measure(LighterUNet(1), (1, 33, 48), batch=2, seconds=0.01)
    assert list(found)[:7] == list(latency.RUNTIMES)
    for name, timing in found.items():
        assert "error" not in timing, (name, timing)
        assert 0 < timing["least"] <= timing["median"]
        assert timing["runs"] >= 5


class Forgetful(nn.Module):
    """Right in the plain layout, wrong with channels last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.is_contiguous() else x + 1


def test_a_runtime_that_answers_something_else_has_no_time():
    with torch.inference_mode():
        found = latency.measure(Forgetful(), (3, 8, 8), batch=1, seconds=0.01)
    assert "median" in found["eager"]
    assert found["channels last"]["error"].startswith("channels last differs from eager by 1")


def test_a_network_that_cannot_run_says_why():
    found = latency.measure(LighterUNet(1), (1, 8, 8), batch=1, seconds=0.01)
    assert "at least 16 x 16 pixels" in found["eager"]["error"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_timed_in_bfloat16():
    found = latency.measure(LighterUNet(1), (1, 64, 64), batch=1, seconds=0.01)
    assert {"GPU eager", "GPU channels last", "GPU optimized"} <= found.keys()

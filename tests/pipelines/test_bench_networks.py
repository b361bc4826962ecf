from __future__ import annotations

import json
import subprocess
import sys

import pytest
from rich.console import Console

from networks import NETWORKS
from pipelines import bench_networks
from pipelines.bench_networks import Candidate
from tests.conftest import ROOT

SETTINGS = {"matmul_gmacs_per_second": {"matmul": 160.0, "1x1 convolution": 320.0}}


def test_all_published_networks_and_those_of_monai_are_candidates():
    candidates = bench_networks.candidates()
    titles = [c.title for c in candidates]
    assert len(set(titles)) == len(titles)
    published = [p.title for name in NETWORKS.names for p in NETWORKS[name].published]
    assert sorted(published) == sorted(c.title for c in candidates if c.ours)
    assert sum(not c.ours for c in candidates) == 5


@pytest.mark.parametrize(
    ("title", "parameters"), [("MONAI BasicUNet, default", 1_979_009), ("MONAI UNet, Li's widths", 7_008_969)]
)
def test_monai_networks_are_those_that_their_titles_say(title, parameters):
    (candidate,) = [c for c in bench_networks.candidates() if c.title == title]
    described = bench_networks.describe(candidate)
    assert described["parameters"] == parameters
    assert described["gmacs"] > 1
    assert not described["ours"]


@pytest.mark.slow  # each runtime is made ready anew
def test_a_network_is_measured_in_a_process_of_its_own(tmp_path):
    command = [sys.executable, "-m", "pipelines.bench_networks", "--only", "BasicUNet, default"]
    command += ["--batch", "1", "--seconds", "0.01", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads((tmp_path / "networks.json").read_text())
    (record,) = found["networks"]
    assert record["title"] == "MONAI BasicUNet, default"
    assert all("median" in timing for timing in record["latency"]["1"].values()), record
    assert min(found["settings"]["matmul_gmacs_per_second"].values()) > 1
    assert "allocator: " in done.stdout
    assert "MONAI BasicUNet" in done.stdout
    assert {p.name for p in tmp_path.iterdir()} == {"networks.json", "networks.png", "networks.svg"}


def test_an_unknown_network_is_an_error_that_lists_them():
    command = [sys.executable, "-m", "pipelines.bench_networks", "--only", "NoSuchNet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "got NoSuchNet" in done.stderr
    assert "PlainUNet" in done.stderr


def test_a_process_that_dies_says_so_in_the_place_of_its_figure(monkeypatch):
    class Done:
        returncode, stdout, stderr = -9, '["eager", {"median": 3.0}]\n', ""

    monkeypatch.setattr(bench_networks.subprocess, "run", lambda *_, **__: Done)
    assert bench_networks.measure_apart("PlainUNet", 8, 1.0) == {
        "eager": {"median": 3.0},
        "channels last": {"error": "not enough memory"},
    }


def test_plain_and_optimized_are_compared_in_a_process_of_their_own(tmp_path):
    found = bench_networks.compare_apart("MONAI BasicUNet, default", pairs=2)
    assert set(found) == {"system default", "keeping memory"}
    record = {"title": "Net", "image_size": [1, 8, 8], "gmacs": 2.0, "latency": {}, "optimized": found}
    (table,) = bench_networks.tables({"settings": SETTINGS, "networks": [record]})
    assert table.row_count == 2


def test_table_gives_milliseconds_rate_and_share():
    timing = {"least": 100.0, "median": 125.0, "runs": 7}
    record = {"title": "Net", "image_size": [1, 8, 8], "gmacs": 2.0}
    record["latency"] = {"8": {"eager": timing, "OpenVINO": {"error": "not enough memory"}}}
    found = {"settings": SETTINGS, "networks": [record]}
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    (table,) = bench_networks.tables(found)
    console.print(table)
    text = console.export_text()
    # 8 images of 2 GMAC in 0.1 s are 160 GMAC/s, half of 320.
    assert "100.0 / 125.0" in text
    assert "(160, 50%)" in text
    assert "not enough memory" in text


def test_points_are_grouped_by_image_size_and_leave_out_what_has_no_figure():
    def record(title, size, timing):
        network = {"title": title, "image_size": size, "parameters": 5, "ours": True, "gmacs": 1.0}
        return network | {"latency": {"1": {"optimized": timing}}}

    ok = {"least": 1.0, "median": 2.0, "runs": 5}
    found = {
        "networks": [
            record("A", [3, 64, 64], ok),
            record("B", [1, 64, 64], ok),
            record("C", [1, 96, 96], {"error": "not enough memory"}),
        ]
    }
    points = bench_networks.points(found, "optimized")
    assert {size: [p.title for p in group] for size, group in points.items()} == {
        "1x64x64": ["B"],
        "3x64x64": ["A"],
    }
    assert points["3x64x64"][0].y == 2.0


def test_networks_are_described_without_memory_for_their_weights():
    huge = Candidate("huge", lambda: NETWORKS["HighResUNet"](width=64, separable=False), (1, 1536, 1536))
    assert bench_networks.describe(huge)["parameters"] > 598_000_000

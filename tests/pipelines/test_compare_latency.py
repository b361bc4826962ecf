from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from monai.networks.nets import BasicUNet

import networks
from pipelines import compare, compare_latency
from pipelines.files import read_json
from tests.pipelines.tracked_runs import NETWORK, client_of, log, uri_of


def test_networks_run_in_turns_and_the_median_counts(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(compare_latency, "perf_counter", lambda: clock[0])
    takes = {"a": iter([0, 0.1, 0.9, 0.2, 0.3]), "b": iter([0, 0.3, 0.3, 0.3, 0.3])}

    def run(name):
        calls.append(name)
        clock[0] += next(takes[name])

    found = compare_latency.in_turns({name: lambda name=name: lambda: run(name) for name in takes}, 1.0)
    assert "".join(calls) == "ab" + "ab" * 3 + "b"  # warm-up, three rounds, and a second is not full yet
    assert found == pytest.approx({"a": 200, "b": 300})


def test_what_cannot_run_says_why_and_leaves_the_others():

    def wrong():
        raise ValueError("expected 3 channels\nand more")

    def late():
        return wrong

    found = compare_latency.in_turns({"no": wrong, "late": late, "yes": lambda: lambda: time.sleep(0.002)}, 0)
    assert found["no"] == found["late"] == "expected 3 channels"
    assert found["yes"] >= 2


def test_a_network_is_that_of_its_configuration():
    torch.manual_seed(0)
    run = compare_latency.prepared(NETWORK, (1, 32, 32))
    torch.manual_seed(0)
    network = BasicUNet(2, 1, 1, features=(4, 4, 4, 4, 4, 4)).eval()
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(run(), network(image), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "definition",
    [
        {"_target_": "pathlib.Path.touch", "self": "$__import__('pathlib').Path('called')"},
        {"_target_": "os.mkdir", "path": "called"},
        {**NETWORK, "features": "$__import__('os').mkdir('called')"},
        {**NETWORK, "act": {"_target_": "os.mkdir", "path": "called"}},
    ],
)
def test_nothing_but_a_network_is_called(definition, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = compare_latency.in_turns({"a": lambda: compare_latency.prepared(definition, (1, 32, 32))}, 0)
    assert isinstance(found["a"], str)
    assert not list(tmp_path.iterdir())


def test_a_network_that_cannot_be_optimized_runs_as_it_is(monkeypatch):
    def refuse(network):
        raise RuntimeError("cannot be copied")

    monkeypatch.setattr(networks, "optimize_for_inference", refuse)
    assert compare_latency.prepared(NETWORK, (1, 32, 32))().shape == (1, 1, 32, 32)


def test_a_latency_is_measured_once(tmp_path, monkeypatch):
    client = client_of(tmp_path)
    log(client, tmp_path / "written", [0.5])
    log(client, tmp_path / "written", [0.5], network="Twin")
    log(client, tmp_path / "written", [0.5], network="Larger", params={"input_shape": "[1, 48, 48]"})
    log(client, tmp_path / "written", [0.5], network="Wrong", params={"input_shape": "[2, 48, 48]"})
    lost = log(client, tmp_path / "written", [0.5], network="Lost")
    (tmp_path / "mlruns" / lost / "artifacts/config.json").unlink()
    reading = compare.read("dce_us", uri=uri_of(tmp_path))
    asked = []
    in_turns = compare_latency.in_turns

    def listen(builders):
        asked.append(len(builders))
        return in_turns(builders, 0)

    monkeypatch.setattr(compare_latency, "in_turns", listen)
    pool = ThreadPoolExecutor(1)
    file = tmp_path / "out" / "latency.json"
    found = compare_latency.measure(reading, file, pool)
    assert asked == [3]  # Plain and its twin are one
    assert set(found.of) == {"Plain", "Twin", "Larger"} and found.of["Plain"] == found.of["Twin"] > 0
    assert sorted(read_json(file).values()) == sorted({found.of["Plain"], found.of["Larger"]})
    wrong, lost = sorted(found.notes, reverse=True)
    assert wrong.startswith("no latency of Wrong: ") and "channels" in wrong
    assert lost.startswith("no latency of Lost: its run has no config.json")
    assert f"{torch.get_num_threads()} thread" in found.setting

    again = compare_latency.measure(reading, file, pool)
    assert asked == [3, 1]  # only the one that failed
    assert again.of == found.of
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    compare_latency.measure(reading, file, pool)
    assert asked == [3, 1, 3]
    monkeypatch.setattr(compare_latency.sources, "digest", lambda module: f"other {module}")
    compare_latency.measure(reading, file, pool)
    assert asked == [3, 1, 3, 3]

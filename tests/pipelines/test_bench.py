import json
import sys

import pytest

from pipelines import bench, bench_setup


@pytest.fixture
def small_volume(monkeypatch):
    large = bench.large_volume
    monkeypatch.setattr(bench_setup, "SECONDS", 0.05)
    monkeypatch.setattr(bench, "large_volume", lambda path, slices: large(path, slices, size=48))


def test_the_settings_that_figures_hang_on_are_named():
    assert {
        "cpu",
        "cores",
        "threads",
        "torch",
        "dtype",
        "memory format",
        "allocator",
    } <= bench.settings().keys()


def test_reading_is_measured_against_both_others(tmp_path, workspace, small_volume):
    name = "SliceDataset, 256x256, image and label"
    for attempt in range(3):  # other work on the machine may take its share of one
        folder = tmp_path / str(attempt)
        folder.mkdir()
        found = {what: value for what, value, _ in bench.slice_reads(folder)}
        if found[name] > 2000:
            break
    for other in (
        "the slice from the compressed volume, 512x512",
        "MONAI PersistentDataset, a file a slice, 256x256",
    ):
        assert found[other] > 0
    assert found[name] > 2000


def test_one_part_is_chosen_printed_and_kept(workspace, monkeypatch, capsys):
    def part(folder):
        """What it measures."""
        yield "a row", 2.5, "times"

    monkeypatch.setattr(bench, "PARTS", {"one": part, "other": None})
    monkeypatch.setattr(sys, "argv", ["bench", "--only", "one"])
    bench.main()
    printed = capsys.readouterr().out
    assert "one: What it measures." in printed
    assert "a row" in printed
    assert json.loads((workspace / "bench" / "pipeline.json").read_text())["one"] == {"a row": [2.5, "times"]}


def test_every_bundle_that_has_a_setting_is_a_part():
    assert {"steps lits", "steps dce_us"} <= bench.PARTS.keys()

import json
from functools import partial

import nibabel as nib
import pytest

from pipelines import bench, bench_reading, bench_setup

SMALL = {"image_size": [32, 32]}


@pytest.fixture
def quick(monkeypatch, workspace):
    monkeypatch.setattr(bench_setup, "SECONDS", 0.05)
    inbreast = bench_reading.SETTINGS["inbreast"]._replace(cases=partial(bench_reading.mammograms, size=96))
    brains = partial(bench_reading.brains, size=48, slices=40)
    brain_tumour = bench_reading.SETTINGS["brain_tumour"]._replace(cases=brains)
    monkeypatch.setitem(bench_reading.SETTINGS, "inbreast", inbreast)
    monkeypatch.setitem(bench_reading.SETTINGS, "brain_tumour", brain_tumour)


@pytest.fixture
def in_this_process(monkeypatch):
    """A process of its own takes seconds to import what it needs."""
    monkeypatch.setattr(bench_reading, "_in_a_process", bench_reading.memory_of)


def test_mammograms_are_read_first_from_files_and_then_from_the_cache(tmp_path, quick, in_this_process):
    rows = list(bench_reading.reading("inbreast", tmp_path, **SMALL))
    found = {what: value for what, value, _ in rows}
    assert all(value > 0 for value in found.values())
    (first,) = (what for what in found if what.startswith("the first time"))
    assert "from 74x96 and 96x118 into the cache" in first
    images = int(first.split()[-1])
    parts = sum(value for what, value in found.items() if what.startswith("of it "))
    assert parts >= 0.99 * found[first]  # each is timed apart, and what is left is the writing
    stored = {what: int(what.split()[-1]) for what in found if what.startswith("reading ")}
    assert sum(stored.values()) == images
    assert {"RLE", "JPEG", "Explicit"} <= {what.split()[1] for what in stored}
    assert any("1x32x32 and its label" in what for what in found)
    dataset = next(value for what, value in found.items() if what.startswith("all 410"))
    assert dataset == pytest.approx(found[first] * 410 / 2 / 60)
    for what in ("preparing", "reading"):
        before, peak = (
            found[f"memory of a process {what}, {when}"] for when in ("before the first image", "peak")
        )
        assert 100 < before <= peak + 1


def test_brains_have_as_many_slices_as_asked_for_and_their_label_too(tmp_path, quick, in_this_process):
    (first, *_), *_ = bench_reading.reading("brain_tumour", tmp_path, **SMALL)
    assert first == "the first time: from 48x48x40x4 into the cache, mean of 2"
    for file in (tmp_path / "data").rglob("labelsTr/BRATS_*.nii.gz"):
        assert nib.load(file).shape == (48, 48, 40)


def test_memory_is_measured_in_a_process_of_its_own(tmp_path, quick):
    cases = bench_reading.SETTINGS["inbreast"].cases(tmp_path / "data")[:1]
    options = {**SMALL, "device": "cpu", "train#dataset#data": cases, "train#dataset#workers": 0}
    options |= {"num_workers": 0, "cache_dir": str(tmp_path / "cache")}
    (tmp_path / "job.json").write_text(json.dumps({"name": "inbreast", "options": options}))
    found = bench_reading._in_a_process("preparing", tmp_path)
    assert 100 < found["before"] <= found["peak"] < 4000
    assert len(list((tmp_path / "another").glob("*.npy"))) == 1


def test_both_bundles_are_parts_of_the_measurements():
    assert {"reading inbreast", "reading brain_tumour"} <= bench.PARTS.keys()

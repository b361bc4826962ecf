import time

import nibabel as nib
import pytest

from pipelines import bench


def test_a_rate_is_calls_a_second():
    assert bench.rate(lambda: time.sleep(0.01), seconds=0.2) == pytest.approx(100, rel=0.3)


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


def test_a_volume_of_any_depth_is_made_from_the_phantom(tmp_path):
    case = bench.large_volume(tmp_path, slices=70, size=48)
    image, label = nib.load(case["image"]), nib.load(case["label"])
    assert image.shape == label.shape
    assert 70 in image.shape


def test_reading_is_measured_against_both_others(tmp_path, workspace, monkeypatch):
    monkeypatch.setattr(bench, "SECONDS", 0.05)
    small = bench.large_volume
    monkeypatch.setattr(bench, "large_volume", lambda path, slices: small(path, slices, size=48))
    found = {what: value for what, value, _ in bench.slice_reads(tmp_path)}
    ours = found["SliceDataset, 256x256, image and label"]
    for name in (
        "the slice from the compressed volume, 512x512",
        "MONAI PersistentDataset, a file a slice, 256x256",
    ):
        assert found[name] > 0
    assert ours > 2000

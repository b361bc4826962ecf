import time

import nibabel as nib
import pytest

from pipelines import bench_setup


def test_a_rate_is_calls_a_second(monkeypatch):
    monkeypatch.setattr(bench_setup, "SECONDS", 0.2)
    assert bench_setup.rate(lambda: time.sleep(0.01)) == pytest.approx(100, rel=0.3)


def test_an_experiment_takes_overlays_and_then_options(workspace):
    overlay = ["bundles/common/smoke.json"]
    parser = bench_setup.experiment("lits", overlay, **{"image_size": [32, 32], "train#handlers": []})
    assert parser["batch_size"] == 2
    assert parser.get_parsed_content("input_shape") == [1, 32, 32]
    assert parser["train#handlers"] == []


def test_a_volume_of_any_depth_is_made_from_the_phantom(tmp_path):
    case = bench_setup.large_volume(tmp_path, slices=70, size=48)
    image, label = nib.load(case["image"]), nib.load(case["label"])
    assert image.shape == label.shape
    assert 70 in image.shape

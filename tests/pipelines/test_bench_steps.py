from types import SimpleNamespace

import pytest
import torch

from pipelines import bench_setup, bench_steps, datasets

SMALL = {
    "batch_size": 2,
    "image_size": [32, 32],
    "network_def": {
        "_target_": "BasicUNet",
        "spatial_dims": 2,
        "in_channels": "$@input_shape[0]",
        "out_channels": 1,
        "features": [4, 4, 8, 8, 8, 4],
    },
}


def volume(folder):
    return [bench_setup.large_volume(folder, slices=6, size=48)]


def pictures(folder):
    datasets.get("dce_us").phantom(folder, cases=2, size=96, progress=False)
    return datasets.get("dce_us").index(folder)


@pytest.mark.parametrize(
    ("name", "cases", "shape"), [("lits", volume, "1x32x32"), ("dce_us", pictures, "3x32x32")]
)
def test_a_bundle_is_measured_alone_and_together(tmp_path, workspace, monkeypatch, name, cases, shape):
    monkeypatch.setattr(bench_setup, "SECONDS", 0.05)
    monkeypatch.setattr(bench_steps, "EPOCH", 12)
    monkeypatch.setattr(bench_steps, "ROUNDS", 1)
    monkeypatch.setattr(bench_steps, "READY", 1)
    monkeypatch.setattr(bench_steps, "GPU_STEPS", 1)
    monkeypatch.setitem(bench_steps.SETTINGS, name, bench_steps.Setting(cases, SMALL, steps=1))
    found = {what: (value, unit) for what, value, unit in bench_steps.reading_and_training(name, tmp_path)}

    assert all(value > 0 for value, _ in found.values())
    training = f"BasicUNet, batch 2, {shape}: "
    rates = {what for what, (_, unit) in found.items() if unit == "images a second"}
    assert {
        "reading, once: into the cache, one process",
        f"reading, each epoch: {shape} from the cache, augmented, no workers",
        f"{training}one batch in memory",
        f"{training}loading, no workers",
        f"{training}loading, 1 worker",
    } <= rates
    alone = found[f"{training}one batch in memory"][0]
    for workers in ("no workers", "1 worker"):
        together = found[f"{training}loading, {workers}"][0]
        share, unit = found[f"{training}share kept, loading, {workers}"]
        assert (share, unit) == (pytest.approx(together / alone), "times")
    # What was not measured is not told of.
    assert any("GPU" in what for what in found) == torch.cuda.is_available()


def test_other_numbers_of_workers_and_overlays_are_compared_too(tmp_path, workspace, monkeypatch):
    monkeypatch.setattr(bench_steps, "READY", 1)
    options = {
        **SMALL,
        "device": "cpu",
        "num_workers": 0,
        "cache_dir": str(tmp_path / "cache"),
        "train#dataset#data": pictures(tmp_path / "data"),
        "train#handlers": [],
    }
    rows = list(bench_steps.training("dce_us", options, 1, [2], [bench_steps.ON_DEVICE]))
    training = "BasicUNet, batch 2, 3x32x32: "
    assert [what.removeprefix(training) for what, _, _ in rows] == [
        "one batch in memory",
        "loading, 2 workers",
        "loading, on_device.json",
        "share kept, loading, 2 workers",
        "share kept, loading, on_device.json",
    ]
    assert all(value > 0 for _, value, _ in rows)


class Slow(torch.utils.data.Dataset):
    """Batches of which the first three, and then each one, take a known time by the clock."""

    def __init__(self):
        self.clock, self.made = 0.0, 0

    def __len__(self):
        return 100

    def __getitem__(self, index):
        self.made += 1
        self.clock += 50 if self.made <= 3 else 1
        return {"image": torch.zeros(2, 3, 32, 32), "label": torch.zeros(2, 1, 32, 32)}


def test_steps_are_timed_with_the_reading_of_their_batches_after_the_first_ones(workspace, monkeypatch):
    data = Slow()
    monkeypatch.setattr(bench_steps, "READY", 3)
    monkeypatch.setattr(bench_steps, "time", SimpleNamespace(perf_counter=lambda: data.clock))
    loader = torch.utils.data.DataLoader(data, batch_size=None)
    parser = bench_setup.experiment(
        "dce_us",
        device="cpu",
        num_workers=0,
        **SMALL,
        **{"train#handlers": [], "train#trainer#train_data_loader": loader},
    )
    train = bench_steps.timed_training(parser, 4)
    trainer = parser.get_parsed_content("train#trainer")
    before = [weights.clone() for weights in trainer.network.parameters()]
    for run in (1, 2):
        assert train() == 4
        assert trainer.state.iteration == data.made == run * (3 + 4)
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))

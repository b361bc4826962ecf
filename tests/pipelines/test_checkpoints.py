import random
import resource
import signal

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch.utils.data import DataLoader

from pipelines import weights
from pipelines.checkpoints import (
    BEST,
    LAST,
    Checkpoints,
    load_weights,
    random_state,
    set_random_state,
    trained_with,
)
from pipelines.errors import DataError
from pipelines.files import write_json


def training(folder, epochs, resume=False, stop_after=None, scores=(0.1, 0.5, 0.3, 0.2, 0.4, 0.35), **kwargs):
    """A small training with dropout, momentum, a schedule and a validation whose scores are given."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    optimizer = torch.optim.Adam(network.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=6)
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state.best_metric, evaluator.state.best_metric_epoch = -1, -1
    random_data = torch.Generator().manual_seed(1)
    data = [
        {"image": torch.rand(4, generator=random_data), "label": torch.rand(1, generator=random_data)}
        for _ in range(12)
    ]

    class Validation:
        def attach(self, engine):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

        def __call__(self, engine):
            schedule.step()
            score, state = scores[engine.state.epoch - 1], evaluator.state
            if state.best_metric_epoch < 0 or score > state.best_metric:
                state.best_metric, state.best_metric_epoch = score, engine.state.epoch

    class Kill:
        def attach(self, engine):
            engine.add_event_handler(Events.EPOCH_STARTED, self)

        def __call__(self, engine):
            if stop_after is not None and engine.state.epoch > stop_after:
                raise KeyboardInterrupt

    keep = Checkpoints(folder, network, optimizer, schedule, evaluator, resume=resume)
    trainer = SupervisedTrainer(
        "cpu",
        epochs,
        DataLoader(data, batch_size=4, shuffle=True),
        network,
        optimizer,
        torch.nn.MSELoss(),
        train_handlers=[Kill(), Validation(), keep],
        decollate=False,
        **kwargs,
    )
    trainer.run()
    return network.state_dict(), evaluator.state


def equal(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("stop_after", [0, 1, 3, 5])
def test_an_interrupted_training_ends_with_the_same_weights_to_the_bit(tmp_path, stop_after):
    expected, state = training(tmp_path / "whole", 6)
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path / "halves", 6, stop_after=stop_after)
    got, resumed = training(tmp_path / "halves", 6, resume=True)
    assert equal(expected, got)
    assert (resumed.best_metric, resumed.best_metric_epoch) == (state.best_metric, 2)
    best = [torch.load(tmp_path / name / BEST, weights_only=True) for name in ("whole", "halves")]
    assert equal(*best)


def test_the_best_weights_are_those_of_the_best_epoch_even_if_later_ones_follow(tmp_path):
    training(tmp_path / "two", 2)
    last, _ = training(tmp_path / "six", 6)
    best = torch.load(tmp_path / "six" / BEST, weights_only=True)
    # The schedule of two epochs differs from that of six only in `total_iters`, which is fixed here.
    assert equal(best, torch.load(tmp_path / "two" / BEST, weights_only=True))
    assert not equal(best, last)


def test_a_training_killed_after_its_last_epoch_only_ends_again(tmp_path):
    expected, _ = training(tmp_path, 3)
    kept = (tmp_path / LAST).read_bytes()
    got, _ = training(tmp_path, 3, resume=True)
    assert equal(expected, got)
    assert (tmp_path / LAST).read_bytes() == kept


def test_epochs_that_are_no_whole_passes_are_not_resumed(tmp_path):
    training(tmp_path, 3)
    with pytest.raises(
        DataError, match="whole passes over the data to resume, 3 iterations, found an epoch_length of 2"
    ):
        training(tmp_path, 6, resume=True, epoch_length=2)


def test_a_full_disk_leaves_the_checkpoint_before_and_is_named(tmp_path):
    training(tmp_path, 1)
    kept = (tmp_path / LAST).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(DataError, match="found the disk full"):
            training(tmp_path, 2, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert (tmp_path / LAST).read_bytes() == kept


def test_random_states_come_back_in_types_that_need_no_pickle(tmp_path):
    torch.save(random_state(), tmp_path / "state.pt")
    np_random = np.random.mtrand._rand
    drawn = random.random(), np_random.rand(), float(torch.rand(1))
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert drawn == (random.random(), np_random.rand(), float(torch.rand(1)))


@pytest.fixture
def trained(tmp_path):
    network = torch.nn.Linear(2, 3)
    torch.save(network.state_dict(), tmp_path / BEST)
    write_json(tmp_path / "run.json", {"network": "Linear", "model_settings": {"window": [0, 1]}})
    return network, tmp_path / BEST


def test_weights_are_loaded(trained, capsys):
    network, path = trained
    other = load_weights(torch.nn.Linear(2, 3), path, {"window": [0, 1]})
    assert equal(other.state_dict(), network.state_dict())
    assert str(path) in capsys.readouterr().out


def test_weights_of_a_last_checkpoint_are_loaded_too(tmp_path):
    training(tmp_path, 1)
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    load_weights(network, tmp_path / LAST, {})


def test_weights_that_do_not_fit_are_refused_in_one_line(trained):
    _, path = trained
    with pytest.raises(
        DataError, match=r"expected weights of Linear .* \(1 of 2 entries differ, such as weight\)"
    ):
        load_weights(torch.nn.Linear(5, 3), path, {})
    with pytest.raises(DataError, match=r"found Sequential; leave --network_def out"):
        load_weights(torch.nn.Sequential(), path, {})
    with pytest.raises(
        DataError,
        match=r'window=\[0, 1\], .* found \[0, 2\]; leave --window out, or add `--window "\[0, 1\]"`',
    ):
        load_weights(torch.nn.Linear(2, 3), path, {"window": [0, 2]})
    with pytest.raises(DataError, match="found no such file"):
        load_weights(torch.nn.Linear(2, 3), path.with_name("none.pt"), {})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="found a file that PyTorch does not load"):
        load_weights(torch.nn.Linear(2, 3), path, {"window": [0, 1]})


def test_the_record_beside_a_checkpoint_goes_before_the_defaults(trained):
    _, path = trained
    defaults = {"network": "torch.nn.Identity", "window": [5, 6], "image_size": [8, 8]}
    assert trained_with(path, defaults) == {**defaults, "window": [0, 1]}
    network_def = {"_target_": "torch.nn.Linear", "in_features": "@wide", "out_features": "$@wide + 1"}
    write_json(path.parent / "config.json", {"wide": 2, "network_def": network_def})
    network = trained_with(path, defaults)["network"]()
    load_weights(network, path, {})
    assert (network.in_features, network.out_features) == (2, 3)
    assert trained_with(path.parent / "elsewhere" / BEST, defaults) == defaults


def test_half_precision_weights_are_loaded_in_the_precision_of_the_network(trained, tmp_path, capsys):
    network, path = trained
    network_def = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3}
    write_json(path.parent / "config.json", {"network_def": network_def})
    shipped = tmp_path / "models" / "model.safetensors"
    weights.shrink(path, shipped)
    loaded = load_weights(torch.nn.Linear(2, 3), shipped, {"window": [0, 1]})
    assert loaded.weight.dtype == torch.float32
    assert torch.equal(loaded.weight, network.weight.half().float())
    assert f"weights: shipped with the bundle, {shipped}" in capsys.readouterr().out
    with pytest.raises(
        DataError, match=r"expected the network that .* was trained with, Linear, found Identity"
    ):
        load_weights(torch.nn.Identity(), shipped, {})
    with pytest.raises(DataError, match=r"expected window=\[0, 1\]"):
        load_weights(torch.nn.Linear(2, 3), shipped, {"window": [0, 2]})

import pytest
import torch
from ignite.engine import Engine

from pipelines import distributed
from pipelines.distributed import SyncBuffers, enough
from pipelines.errors import DataError


def test_statistics_are_shared_at_the_end_of_each_epoch(monkeypatch):
    sent = []
    monkeypatch.setattr(distributed.idist, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "broadcast", lambda buffer, src: sent.append((buffer, src)))
    network = torch.nn.BatchNorm2d(3)
    seen = []

    def step(engine, batch):
        seen.append((engine.state.iteration, len(sent)))

    engine = Engine(step)
    SyncBuffers(network).attach(engine)
    engine.run(range(4), max_epochs=2)
    # Three buffers: mean, variance and the number of batches.
    assert seen == [(1, 0), (2, 0), (3, 0), (4, 0), (5, 3), (6, 3), (7, 3), (8, 3)]
    assert len(sent) == 6
    assert all(src == 0 for _, src in sent)


def test_fewer_cases_than_processes_are_refused(monkeypatch):
    enough([1])
    monkeypatch.setattr(distributed.idist, "get_world_size", lambda: 2)
    enough([1, 2])
    with pytest.raises(DataError, match="for each of 2 processes, found 1 held out"):
        enough([1])


def test_one_process_sends_nothing(monkeypatch):
    monkeypatch.setattr(torch.distributed, "broadcast", lambda *args, **kwargs: 1 / 0)
    engine = Engine(lambda engine, batch: None)
    SyncBuffers(torch.nn.BatchNorm2d(3)).attach(engine)
    engine.run(range(2))

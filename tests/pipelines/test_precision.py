import ignite.distributed as idist
import pytest
import torch

from pipelines.errors import DataError
from pipelines.precision import Bfloat16


def test_the_network_computes_in_bfloat16_and_the_logits_are_float32():
    seen = []
    network = torch.nn.Conv2d(3, 1, 3)
    network.register_forward_hook(lambda module, images, logits: seen.append(logits.dtype))
    wrapped = Bfloat16(network)
    images = torch.rand(2, 3, 8, 8)
    logits = wrapped(images)
    assert seen == [torch.bfloat16] and logits.dtype == torch.float32
    assert (logits - network(images)).abs().max() < 2e-2
    assert (logits != network(images)).any()


def test_weights_stay_float32_and_learn():
    network = torch.nn.Conv2d(1, 1, 3)
    Bfloat16(network)(torch.rand(2, 1, 8, 8)).sum().backward()
    assert network.weight.dtype == network.weight.grad.dtype == torch.float32
    assert network.weight.grad.abs().sum() > 0


def test_evaluation_mode_reaches_the_network():
    network = torch.nn.BatchNorm2d(1)
    Bfloat16(network).eval()
    assert not network.training


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(idist, "get_world_size", lambda: 2)
    with pytest.raises(DataError, match=r"expected one process .* found 2"):
        Bfloat16(torch.nn.Identity())

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from networks import NETWORKS, PlainUNet, optimize_for_inference


def trained(network: nn.Module) -> nn.Module:
    """As after training: the norms scale, shift and have the statistics of their features. In train mode."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
    side = max(2 * getattr(network, "least_size", 8), 64)
    noise = torch.randn(8, getattr(network, "image_channels", 3), side, side)
    update_bn([noise * torch.rand(8, 1, 1, 1) + torch.randn(8, 1, 1, 1)], network)
    return network.train()


def norms(network: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in network.modules())


@pytest.mark.parametrize("name", NETWORKS.names)
def test_every_network_answers_the_same(name):
    """In float64: what random weights and norms make of rounding is no matter here."""
    torch.manual_seed(0)
    network = trained(NETWORKS[name](in_channels=1, out_channels=2)).double()
    before = copy.deepcopy(network.state_dict())
    optimized = optimize_for_inference(network)
    assert network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())

    network.eval()
    least = network.least_size
    image = torch.randn(2, network.image_channels, 2 * least + 1, 3 * least - 1, dtype=torch.float64)
    with torch.no_grad():
        expected = network(image)
        torch.testing.assert_close(optimized(image), expected, atol=1e-9, rtol=1e-9)
        channels_last = image.to(memory_format=torch.channels_last)
        torch.testing.assert_close(optimized(channels_last), expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", NETWORKS.names)
def test_every_network_as_it_begins_answers_the_same_in_float32(name):
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    image = torch.rand(1, network.image_channels, 96, 65)
    with torch.no_grad():
        torch.testing.assert_close(
            optimize_for_inference(network)(image), network(image), atol=1e-4, rtol=1e-4
        )


def test_all_norms_of_the_plain_unet_are_folded_and_its_weights_lie_channels_last():
    network = PlainUNet()
    optimized = optimize_for_inference(network)
    assert norms(network) == 18
    assert norms(optimized) == 0
    assert not optimized.training
    for name, parameter in optimized.named_parameters():
        assert not parameter.requires_grad
        assert parameter.ndim != 4 or parameter.is_contiguous(memory_format=torch.channels_last), name
    assert isinstance(optimized, PlainUNet)
    with pytest.raises(ValueError, match="at least 16 x 16 pixels"):
        optimized(torch.rand(1, 3, 8, 16))


def test_the_features_of_a_contiguous_image_are_channels_last():
    optimized = optimize_for_inference(PlainUNet(1))
    features = optimized.encoder(torch.randn(2, 1, 32, 48))
    assert all(f.is_contiguous(memory_format=torch.channels_last) for f in features)


def test_a_norm_across_the_border_of_nested_chains_is_folded():
    network = trained(nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1)), nn.BatchNorm2d(5)))
    optimized = optimize_for_inference(network)
    assert norms(optimized) == 0
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(optimized(x), network.eval()(x), atol=1e-5, rtol=1e-5)


class Backwards(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self[0](self[1](x))


shared = nn.Conv2d(3, 3, 1)


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(Backwards(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)), id="another order"),
        pytest.param(
            nn.Sequential(shared, nn.BatchNorm2d(3), nn.ReLU(), shared), id="a convolution in two places"
        ),
        pytest.param(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1)), id="norm first"),
        pytest.param(
            nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.BatchNorm2d(3)), id="something in between"
        ),
        pytest.param(
            nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, track_running_stats=False)),
            id="statistics of the batch",
        ),
    ],
)
def test_a_norm_that_cannot_be_folded_stays(network):
    torch.manual_seed(0)
    network = trained(network)
    optimized = optimize_for_inference(network)
    assert norms(optimized) == 1
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(optimized(x), network.eval()(x), atol=1e-5, rtol=1e-5)


def test_can_be_scripted_and_exported():
    optimized = optimize_for_inference(PlainUNet(1))
    x = torch.randn(1, 1, 32, 48)
    with torch.no_grad():
        expected = optimized(x)
        torch.testing.assert_close(torch.jit.script(optimized)(x), expected)
        torch.testing.assert_close(torch.export.export(optimized, (x,)).module()(x), expected)

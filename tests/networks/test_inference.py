from __future__ import annotations

import copy
import doctest

import pytest
import torch
from torch import nn

from networks import NETWORKS, PlainUNet, optimize_for_inference
from tests.networks.building import close, fit_norms, images, settled, variants


def trained(network: nn.Module) -> nn.Module:
    """As after training: the norms scale, shift and have the statistics of their features. In eval mode."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
    return fit_norms(network, channels=3, least_size=8)


def norms(network: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in network.modules())


@pytest.mark.parametrize("variant", variants())
def test_every_network_answers_the_same(variant):
    network = settled(variant).train()
    before = copy.deepcopy(network.state_dict())
    optimized = optimize_for_inference(network)
    assert network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    image = images(network)
    with torch.no_grad():
        expected = network.eval()(image)
        close(optimized(image), expected)
        close(optimized(image.to(memory_format=torch.channels_last)), expected)


# Norms that do not directly follow a convolution: in front of a block, behind a ReLU or behind four branches.
@pytest.mark.parametrize(
    ("title", "left"),
    [
        ("PlainUNet", 0),
        ("LightUNet", 0),
        ("LighterUNet, C = 16", 0),
        ("HighResUNet", 0),
        ("ModularUNet", 0),
        ("ModularUNet, Attention U-Net", 0),
        ("ModularUNet, NAS Reduction U-Net", 0),
        ("ModularUNet, Efficient U-Net", 0),
        ("DeepLabV3Plus, ResNet-101", 0),
        ("DeepLabV3Plus, MobileNetV2", 0),
        ("CEUSegNet", 5),
        ("FCN8s", 5),
        ("ReducedUNet", 9),
    ],
)
def test_norms_that_are_left(title, left):
    name = title.split(",")[0]
    (published,) = [p for p in NETWORKS[name].published if p.title == title]
    optimized = optimize_for_inference(NETWORKS[name](**published.arguments))
    assert norms(optimized) == left


def test_weights_lie_channels_last_and_the_network_stays_what_it_was():
    optimized = optimize_for_inference(PlainUNet())
    assert not optimized.training
    for name, parameter in optimized.named_parameters():
        assert not parameter.requires_grad
        assert parameter.ndim != 4 or parameter.is_contiguous(memory_format=torch.channels_last), name
    assert isinstance(optimized, PlainUNet)
    with pytest.raises(ValueError, match="at least 16 x 16 pixels"):
        optimized(torch.rand(1, 3, 8, 16))


@pytest.mark.parametrize("name", ["PlainUNet", "HighResUNet", "ReducedUNet", "CEUSegNet", "FCN8s"])
def test_the_features_of_a_contiguous_image_are_channels_last(name):
    optimized = optimize_for_inference(NETWORKS[name](in_channels=1))
    seen = []
    for part in optimized.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d) and part.in_channels > 2:
            part.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    optimized(images(optimized, 128, 192))
    assert len(seen) > 10
    assert all(features.is_contiguous(memory_format=torch.channels_last) for features in seen)


def test_a_norm_across_the_border_of_nested_chains_is_folded():
    network = trained(nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1)), nn.BatchNorm2d(5)))
    optimized = optimize_for_inference(network)
    assert norms(optimized) == 0
    x = torch.randn(2, 3, 9, 9)
    close(optimized(x), network(x))


class Backwards(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self[0](self[1](x))


class Centred(nn.Conv2d):
    """A convolution whose kernels sum to zero, whatever its weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


def hooked() -> nn.Sequential:
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))
    network[0].register_forward_hook(_double)
    return network


def _double(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
    return 2 * output


shared, act = nn.Conv2d(3, 3, 1), nn.ReLU()


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(Backwards(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)), id="another order"),
        pytest.param(
            nn.Sequential(shared, nn.BatchNorm2d(3), nn.ReLU(), shared), id="a convolution in two places"
        ),
        pytest.param(
            nn.Sequential(nn.Conv2d(3, 3, 3), act, nn.Conv2d(3, 3, 3), act, nn.BatchNorm2d(3)),
            id="an activation in two places",
        ),
        pytest.param(nn.Sequential(Centred(3, 3, 3), nn.BatchNorm2d(3)), id="a convolution of another kind"),
        pytest.param(hooked(), id="hooks"),
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
    close(optimized(x), network(x))


@pytest.mark.parametrize("name", ["PlainUNet", "ReducedUNet", "CEUSegNet"])
def test_can_be_scripted_and_exported(name):
    optimized = optimize_for_inference(NETWORKS[name](in_channels=1))
    x = images(optimized)
    with torch.no_grad():
        expected = optimized(x)
        torch.testing.assert_close(torch.jit.script(optimized)(x), expected)
        torch.testing.assert_close(torch.export.export(optimized, (x,)).module()(x), expected)


def test_example_in_docstring_runs():
    (example,) = doctest.DocTestFinder(recurse=False).find(
        optimize_for_inference, globs={"torch": torch, "optimize_for_inference": optimize_for_inference}
    )
    results = doctest.DocTestRunner().run(example)
    assert results.attempted == 3
    assert results.failed == 0

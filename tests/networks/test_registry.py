"""What every network has to be able to do: a network that registers is tested here, in its variants."""

from __future__ import annotations

import copy
import doctest
import io

import pytest
import torch
from monai.losses import DiceCELoss
from monai.transforms import (
    Compose,
    LoadImaged,
    Orientationd,
    ResizeWithPadOrCropd,
    ScaleIntensityRanged,
)
from torch import nn
from torch.optim.swa_utils import update_bn

import networks
from pipelines.datasets import lits
from tests.networks.building import build, close, images, settled, variants

# By module, so that pytest runs all tests of a network one after the other, and builds it once for them.
pytestmark = [
    pytest.mark.parametrize("variant", variants(), scope="module"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),
]


@pytest.fixture(scope="module")
def fitted(variant):
    """The network that tests share: they leave it as it is."""
    return settled(variant).requires_grad_(False)


@pytest.fixture(scope="module")
def scripted(fitted):
    return torch.jit.script(fitted)


@pytest.fixture
def network(fitted):
    """A copy of the shared network, for a test that changes it."""
    return copy.deepcopy(fitted).requires_grad_()


def test_example_in_docstring_runs(variant):
    network = variant.func
    (example,) = doctest.DocTestFinder(recurse=False).find(network, globs=vars(networks) | {"torch": torch})
    results = doctest.DocTestRunner().run(example)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("in_channels", [1, 3, 4])
def test_channels_in_and_classes_out(variant, in_channels):
    network = build(variant, in_channels, out_channels=5).eval()
    x = images(network)
    assert x.shape[1] % in_channels == 0
    with torch.no_grad():
        assert network(x).shape == (2, 5, *x.shape[2:])


def test_returns_logits(variant):
    """Whatever closes a network (sigmoid, softmax, ReLU, tanh) would bound its output on one side."""
    network = build(variant, out_channels=8).eval()
    with torch.no_grad():
        logits = network(1e6 * images(network))
    assert logits.max() > 1.5
    assert logits.min() < -1.5


@pytest.mark.parametrize("extra", [(0, 0), (0, 1), (7, 0)])
def test_smallest_images(fitted, extra):
    size = (fitted.least_size + extra[0], fitted.least_size + extra[1])
    with torch.no_grad():
        assert fitted(images(fitted, *size)).shape == (2, 1, *size)


def test_odd_oblong_image(fitted):
    with torch.no_grad():
        assert fitted(images(fitted, 375, 145, batch=1)).shape == (1, 1, 375, 145)


@pytest.mark.parametrize("short_axis", [2, 3])
def test_smaller_image_is_an_error_that_names_the_least_size(fitted, scripted, short_axis):
    least = fitted.least_size
    size = [least, least]
    size[short_axis - 2] -= 1
    message = f"at least {least} x {least} pixels, got {size[0]} x {size[1]}"
    with pytest.raises(ValueError, match=message):
        fitted(images(fitted, *size))
    with pytest.raises(torch.jit.Error, match=message):
        scripted(images(fitted, *size))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_every_parameter_receives_a_gradient(network, training):
    network.train(training)
    network(images(network)).square().mean().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        # In training a norm takes away what the bias before it adds, so that its gradient is nothing but
        # rounding: only in eval mode does it say something.
        assert training or parameter.grad.any(), parameter_name


def test_training_step_lowers_the_loss(variant):
    network = build(variant).train()
    x = images(network)
    target = torch.zeros(2, 1, *x.shape[2:])
    target[:, :, 10:-20, 10:-10] = 1
    x = x + 3 * target
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = nn.functional.binary_cross_entropy_with_logits(network(x), target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.95 * losses[0]


def test_script_equals_eager(fitted, scripted):
    least = fitted.least_size
    with torch.no_grad():
        for x in (images(fitted), images(fitted, least, 2 * least, batch=1)):
            close(scripted(x), fitted(x))


def test_channels_last_equals_contiguous(network):
    x = images(network)
    with torch.no_grad():
        expected = network(x)
        network.to(memory_format=torch.channels_last)
        close(network(x), expected)
        close(network(x.to(memory_format=torch.channels_last)), expected)


def test_channels_last_gradients_equal_contiguous(network):
    """In float64: float32 rounds a few features to the other side of a ReLU, here one, there another."""
    gradients = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        network = network.double().to(memory_format=memory_format)
        network.zero_grad()
        network(images(network, batch=1).double()).square().mean().backward()
        gradients.append(torch.cat([p.grad.contiguous().flatten() for p in network.parameters()]))
    assert (gradients[0] - gradients[1]).norm() < 1e-10 * gradients[0].norm()


def test_bfloat16(network):
    x = images(network)
    with torch.no_grad():
        expected = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = network(x)
        pure = network.bfloat16()(x.bfloat16())
    assert pure.dtype == torch.bfloat16
    for logits in (mixed, pure):
        # bfloat16 keeps 8 bits of a number, and dozens of layers round one after the other; untrained ones
        # enlarge the error of those before them.
        assert (logits.float() - expected).norm() < 0.3 * expected.norm()


def test_bfloat16_trains(variant):
    network = build(variant).bfloat16().train()
    network(images(network).bfloat16()).square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_seed_determines_the_initial_weights(variant):
    first, same, other = (build(variant, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_state_dict_round_trip(variant, fitted):
    restored = build(variant, seed=5).eval()
    file = io.BytesIO()
    torch.save(fitted.state_dict(), file)
    file.seek(0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        assert torch.equal(restored(images(fitted)), fitted(images(fitted)))


@pytest.fixture(scope="session")
def slices(tmp_path_factory) -> tuple[torch.Tensor, torch.Tensor]:
    """The slice with the largest lesion of each of four phantom volumes: images in 0 to 1, and masks."""
    root = tmp_path_factory.mktemp("slices") / "lits"
    lits.phantom(root, cases=4, size=64)
    prepare = Compose(
        [
            LoadImaged(["image", "label"], ensure_channel_first=True),
            Orientationd(["image", "label"], axcodes="RAS", labels=None),
            ScaleIntensityRanged("image", -100, 200, 0, 1, clip=True),
            ResizeWithPadOrCropd(["image", "label"], (64, 64, -1)),
        ]
    )
    found = []
    for case in lits.index(root):
        volume = prepare({key: case[key] for key in ("image", "label")})
        lesion = (volume["label"] == 2).float()
        slice_ = int(lesion.sum((0, 1, 2)).argmax())
        found.append((volume["image"][..., slice_].as_tensor(), lesion[..., slice_].as_tensor()))
    images, masks = zip(*found, strict=True)
    assert all(mask.sum() > 40 for mask in masks)
    return torch.stack(images), torch.stack(masks)


@pytest.mark.slow
def test_learns_a_handful_of_slices_by_heart(variant, slices):
    x, y = slices
    network = build(variant, seed=1)
    x = x.repeat(1, network.image_channels, 1, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    loss_of = DiceCELoss(sigmoid=True)
    dice = 0.0
    for _ in range(30):
        network.train()
        for _ in range(10):
            optimizer.zero_grad()
            loss_of(network(x), y).backward()
            optimizer.step()
        # The averages of the norms lag behind weights that change so fast.
        update_bn([x], network)
        with torch.no_grad():
            found = network.eval()(x) > 0
        dice = (2 * (found * y).sum() / (found.sum() + y.sum())).item()
        if dice > 0.9:
            break
    assert dice > 0.9

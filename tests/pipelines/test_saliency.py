import copy

import numpy as np
import pytest
import torch
from monai.networks.nets import BasicUNet
from torch import nn

from networks import NETWORKS
from pipelines import saliency
from pipelines.errors import DataError
from transforms import ChannelWhiten

WEIGHTS = [2.0, -1.0, 0.0, 0.5]


def linear(weights=WEIGHTS):
    """A 1x1 convolution to one logit a pixel, whose gradient is known."""
    network = nn.Conv2d(len(weights), 1, 1)
    network.weight.data = torch.tensor(weights).reshape(1, -1, 1, 1)
    return network


def unet(seed=0, **options):
    torch.manual_seed(seed)
    return BasicUNet(2, 3, 1, features=(4, 4, 8, 8, 8, 4), norm="batch", **options)


def rectangle(height=12, width=10):
    region = torch.zeros(1, height, width, dtype=torch.bool)
    region[0, 3:7, 2:7] = True
    return region


def image(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_gradient_of_a_linear_network_is_its_weights_within_the_region():
    region = rectangle()
    found = saliency.gradient(linear(), image(4, 12, 10), region)
    expected = torch.tensor(WEIGHTS).reshape(4, 1, 1) * region / 20  # a mean over 4 x 5 pixels
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert saliency.shares(found) == pytest.approx([2 / 3.5, 1 / 3.5, 0, 0.5 / 3.5], rel=1e-6)
    assert saliency.shares(found)[2] == 0  # a channel that the network ignores


def test_where_channels_are_mixed_on_the_way_the_gradient_is_that_to_each_before():
    whiten = ChannelWhiten([0.5, 0.1], [[1.0, -0.5], [-0.5, 2.0]])
    found = saliency.gradient(linear([1.0, 3.0]), image(2, 12, 10), rectangle(), whiten)
    # 1 (a - b/2) + 3 (2b - a/2) = -a/2 + 11b/2
    assert found[:, 4, 4].tolist() == pytest.approx([-0.5 / 20, 5.5 / 20])


def test_noise_does_not_change_the_gradient_of_a_linear_network():
    plain, smooth = (
        find(linear(), image(4, 12, 10), rectangle())
        for find in (saliency.gradient, saliency.smooth_gradient)
    )
    torch.testing.assert_close(smooth, plain)


def test_noise_averages_over_a_step_as_wide_as_the_share_of_the_range_says():
    """The gradient of |x| at x is the mean sign of x + noise: 2 P(N < 1) - 1 at one standard deviation."""

    class Absolute(nn.Module):
        def forward(self, image):
            return image.abs()

    line = torch.zeros(1, 1, 1001)
    line[0, 0, -1] = 10.0  # the range; 0.15 of it is 1.5
    line[0, 0, :1000] = 1.5
    line[0, 0, 0] = 0.0
    region = torch.ones(1, 1, 1001, dtype=torch.bool)
    found = saliency.smooth_gradient(Absolute(), line, region, samples=40) * 1001
    assert float(found[0, 0, 1:1000].mean()) == pytest.approx(2 * 0.84134 - 1, abs=0.02)


def test_the_same_seed_gives_the_same_smoothed_gradient_and_leaves_the_global_state():
    one, two, other = (
        saliency.smooth_gradient(unet(), image(3, 32, 32), rectangle(32, 32), seed=seed, samples=3)
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    network, before = linear(), torch.get_rng_state()
    saliency.smooth_gradient(network, image(4, 12, 10), rectangle(), samples=2)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("size", [(37, 45), (64, 48)])
def test_the_gradient_is_that_of_autograd_and_the_network_is_left_as_it_was(size):
    network = unet(dropout=0.5).train()
    network(image(2, 3, *size))  # so that its norms remember something
    state = copy.deepcopy(network.state_dict())
    region, inputs = rectangle(*size), image(3, *size)
    found = saliency.gradient(network, inputs, region)
    layer = saliency.coarsest(saliency.features(network, inputs), size)
    saliency.activation_map(network, inputs, region, layer=layer.name)

    assert network.training
    for key, value in network.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert all(one.requires_grad and one.grad is None for one in network.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())
    assert not inputs.requires_grad
    expected = inputs[None].clone().requires_grad_()
    network.eval()(expected)[0][region].mean().backward()
    largest = float(expected.grad.abs().max())
    torch.testing.assert_close(found, expected.grad[0], rtol=0, atol=1e-4 * largest)


class Blob(nn.Module):
    """Two features, pooled by 4: what is bright, and what is dark. The bright one speaks for a lesion."""

    def __init__(self, bright=1.0, dark=-1.0):
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1, bias=False)
        self.features.weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
        self.rectify = nn.ReLU(inplace=True)
        self.pool = nn.AvgPool2d(4)
        self.head = nn.Conv2d(2, 1, 1, bias=False)
        self.head.weight.data = torch.tensor([bright, dark]).reshape(1, 2, 1, 1)
        self.up = nn.Upsample(scale_factor=4)

    def forward(self, image):
        return self.up(self.head(self.pool(self.rectify(self.features(image)))))


def test_grad_cam_is_that_of_a_calculation_by_hand():
    inputs = torch.full((1, 16, 16), -0.5)
    inputs[0, 8:12, 4:8] = 3.0  # the cell in row 2, column 1 of the pooled grid
    region = inputs > 0
    found = saliency.activation_map(Blob(), inputs, region, layer="pool")
    # The mean logit is that of this cell. A feature's weight is the mean gradient over all 16 cells, 1/16 and
    # -1/16; the bright one is 3 there and 0 elsewhere, the dark one 0 there and 0.5 elsewhere, which is below
    # zero when weighted. So it is 3/16 there, an eighth of the way from the next cell at row 9 and column 5.
    assert float(found[9, 5]) == pytest.approx(0.875**2 * 3 / 16)
    rows, columns = np.nonzero(found.numpy())
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 13, 2, 9)


def test_a_layer_before_one_that_works_in_place_keeps_its_features():
    inputs = torch.linspace(-1, 1, 256).reshape(1, 16, 16)
    region = torch.ones(1, 16, 16, dtype=torch.bool)
    network = Blob(bright=1.0, dark=0.0)
    found = saliency.activation_map(network, inputs, region, layer="features")
    # Of the bright feature half the pixels are rectified away: the mean of its gradient is 1/2 of 1/256.
    expected = torch.relu(inputs[0] * 0.5 / 256)
    torch.testing.assert_close(found, expected)
    assert network.rectify.inplace


@pytest.mark.parametrize(
    ("name", "arguments", "channels", "layer", "grid"),
    [
        ("LighterUNet", {}, 3, "encoder.levels.4", (4, 3)),
        ("ReducedUNet", {}, 1, "encoder.levels.4", (4, 3)),
        ("ModularUNet", {"conv_block": "mbconv"}, 4, "encoder.levels.4", (4, 3)),
        ("CEUSegNet", {}, 2, "merges.4", (4, 3)),
        ("FCN8s", {}, 3, "encoder.stages.4", (2, 1)),
        ("DeepLabV3Plus", {"backbone": "mobilenet_v2"}, 3, "aspp", (4, 3)),
        ("HighResUNet", {}, 1, "encoder.levels.6", (1, 2)),
    ],
)
def test_the_bottom_of_each_network_is_found(name, arguments, channels, layer, grid):
    size = (64, 128) if name == "HighResUNet" else (64, 48)
    layers = saliency.features(NETWORKS[name](**arguments), image(channels, *size))
    assert saliency.coarsest(layers, size) == (layer, grid)


def test_the_bottom_of_monais_unet_is_found_and_none_where_there_is_none():
    layers = saliency.features(unet(), image(3, 32, 48))
    assert saliency.coarsest(layers, (32, 48)) == ("down_4", (2, 3))
    assert saliency.coarsest(saliency.features(nn.Sequential(linear()), image(4, 12, 10)), (12, 10)) is None


def test_weights_that_diverged_are_an_error_of_one_line():
    network = linear([1.0, float("nan")])
    for find in (saliency.gradient, saliency.smooth_gradient):
        with pytest.raises(DataError, match="expected finite gradients, found nan"):
            find(network, image(2, 12, 10), rectangle())


def test_no_gradient_is_no_share():
    assert saliency.shares(torch.zeros(3, 4, 4)) == [0, 0, 0]

from __future__ import annotations

import pytest
import torch
from torch import nn

from networks.fcn import FCN8s, FCN16s, FCN32s, UpStage, VGG16Encoder
from networks.summary import count_gmacs, count_parameters

FCNS = [FCN32s, FCN16s, FCN8s]


@pytest.mark.parametrize("network", FCNS)
@pytest.mark.parametrize(
    ("in_channels", "count"),
    # A channel of the image is 64 weights of 3x3.
    [(1, 18_643_713 - 2 * 576), (3, 18_643_713), (4, 18_643_713 + 576)],
)
def test_number_of_parameters(network, in_channels, count):
    assert count_parameters(network(in_channels=in_channels)) == count


def test_parameters_part_by_part():
    network = FCN8s()
    # VGG16's published 138,357,544 less its three fully connected layers.
    connected = (512 * 7 * 7 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000
    assert count_parameters(network.encoder) == 138_357_544 - connected == 14_714_688
    widths = [512, 512, 256, 128, 64, 32]
    ups = [9 * widths[i] * widths[i + 1] + 3 * widths[i + 1] for i in range(5)]
    assert [count_parameters(stage) for stage in network.decoder] == ups
    assert count_parameters(network.classifier) == 33


def test_vgg16_has_the_published_multiply_accumulates():
    # 15.5 G at 224 x 224, of which the fully connected layers are 0.12.
    assert round(count_gmacs(VGG16Encoder(3), (3, 224, 224)), 2) == 15.35


@pytest.mark.parametrize("network", FCNS)
def test_multiply_accumulates(network):
    assert round(count_gmacs(network(), (3, 256, 256)), 2) == 21.41


def test_size_and_channels_of_each_level():
    network = FCN32s().eval()
    with torch.no_grad():
        features = network.encoder(torch.zeros(1, 3, 256, 256))
        assert [(f.shape[1], f.shape[2]) for f in features] == [
            (3, 256),
            (64, 128),
            (128, 64),
            (256, 32),
            (512, 16),
            (512, 8),
        ]
        h, shapes = features[-1], []
        for stage, h_encoder in zip(network.decoder, reversed(features[:-1]), strict=True):
            h = stage(h, h_encoder)
            shapes.append((h.shape[1], h.shape[2]))
    assert shapes == [(512, 16), (256, 32), (128, 64), (64, 128), (32, 256)]


def test_receptive_field_is_that_of_vgg16():
    """A pixel behind the fifth pooling sees 212 x 212 pixels of the image."""
    encoder = VGG16Encoder(1).requires_grad_(False)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / (9 * module.in_channels))
    for stage in encoder.stages:
        # A maximum has a gradient for one pixel in four, the mean for each.
        stage[-1] = nn.AvgPool2d(2)
    image = torch.rand(1, 1, 224, 224, requires_grad=True)
    encoder(image)[-1][0, 0, 3, 3].backward()
    seen = image.grad[0, 0].nonzero()
    assert (seen.max(dim=0).values - seen.min(dim=0).values + 1).tolist() == [212, 212]


@pytest.mark.parametrize(("network", "used"), [(FCN32s, []), (FCN16s, [4]), (FCN8s, [4, 3])])
def test_decoder_depends_on_the_features_of_its_skips(network, used):
    torch.manual_seed(0)
    network = network().eval()
    features = [f.detach().requires_grad_() for f in network.encoder(torch.randn(1, 3, 64, 64))]
    h = features[-1]
    for i, stage in enumerate(network.decoder):
        h = stage(h, features[-2 - i])
    network.classifier(h).sum().backward()
    reached = [i for i, f in enumerate(features) if f.grad is not None and f.grad.any()]
    assert reached == sorted([*used, 5])


def test_weights_fit_each_of_the_three_and_give_different_logits():
    torch.manual_seed(0)
    networks = [network(1).eval() for network in FCNS]
    for network in networks[1:]:
        network.load_state_dict(networks[0].state_dict())
    with torch.no_grad():
        without, one, two = (network(torch.ones(1, 1, 64, 64)) for network in networks)
    assert not torch.allclose(without, one)
    assert not torch.allclose(one, two)


def test_skip_is_added_between_relu_and_norm():
    torch.manual_seed(0)
    stage = UpStage(3, 2, add_skip=True).eval()
    stage.norm.running_mean.copy_(torch.tensor([5.0, -5.0]))
    h, skip = torch.randn(1, 3, 4, 4), torch.randn(1, 2, 8, 8)
    torch.testing.assert_close(stage(h, skip), stage.norm(torch.relu(stage.up[0](h)) + skip))


def test_way_up_puts_zeros_where_a_pooling_left_a_row_or_column_out():
    stage = UpStage(3, 2, add_skip=True).eval()
    skip = torch.rand(1, 2, 9, 11)
    with torch.no_grad():
        joined = stage(torch.randn(1, 3, 4, 5), skip)
        expected = stage.norm(skip)
    assert joined.shape == skip.shape
    torch.testing.assert_close(joined[..., 8, :], expected[..., 8, :])
    torch.testing.assert_close(joined[..., 10], expected[..., 10])


def test_features_of_vgg16_keep_their_scale_without_a_norm():
    torch.manual_seed(0)
    with torch.no_grad():
        bottom = VGG16Encoder(3)(torch.randn(2, 3, 64, 64))[-1]
    assert 0.1 < bottom.square().mean().sqrt() < 10

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import ResNetFeatures
from torch import nn

from networks.backbones import MobileNetV2, ResNet101, inverted_residual
from networks.blocks import Residual
from networks.summary import count_parameters


def dilations(module: nn.Module) -> list[int]:
    """Dilation of each 3x3 convolution, in order."""
    convs = [m for m in module.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert all(conv.padding == conv.dilation for conv in convs)
    return [conv.dilation[0] for conv in convs]


def test_resnet101_has_the_published_parameters_less_its_classifier():
    # A channel of the image is 64 weights of 7x7.
    assert count_parameters(ResNet101(3)) == 44_549_160 - (2048 + 1) * 1000 == 42_500_160
    assert count_parameters(ResNet101(1)) == 42_500_160 - 2 * 64 * 49


def test_mobilenet_v2_has_the_published_parameters_less_its_classifier_and_last_convolution():
    classifier, last = (1280 + 1) * 1000, 320 * 1280 + 2 * 1280
    assert count_parameters(MobileNetV2(3)) == 3_504_872 - classifier - last == 1_811_712
    # A channel of the image is 32 weights of 3x3.
    assert count_parameters(MobileNetV2(4)) == 1_811_712 + 32 * 9


@pytest.mark.parametrize(
    ("backbone", "fine", "coarse"), [(ResNet101, 256, 2048), (MobileNetV2, 24, 320)], ids=["resnet", "mobile"]
)
def test_strides_and_channels_of_the_features(backbone, fine, coarse):
    network = backbone(1).eval()
    with torch.no_grad():
        features = network(torch.zeros(1, 1, 256, 256))
    assert [f.shape for f in features] == [(1, fine, 64, 64), (1, coarse, 16, 16)]
    assert (network.fine_channels, network.coarse_channels) == (fine, coarse)


def test_resnet101_dilates_its_last_stage_by_twice_the_multi_grid():
    network = ResNet101(1).features
    stages = [network.layer1, network.layer2, network.layer3, network.layer4]
    assert [dilations(stage) for stage in stages] == [[1] * 3, [1] * 4, [1] * 23, [2, 4, 8]]


def test_mobilenet_v2_dilates_what_stood_behind_its_last_stride():
    # Stem and three blocks to a 4th of the size; 32, 64, 96 channels; 160 thrice and 320.
    network = MobileNetV2(1)
    assert dilations(network.fine) == [1] * 4
    assert dilations(network.coarse) == [1] * 10 + [1, 2, 2, 2]


def test_dilated_resnet101_is_the_strided_one_at_every_second_pixel():
    """What atrous convolution is for; the multi-grid would see other pixels, so its rates are taken away."""
    torch.manual_seed(0)
    dilated, strided = ResNet101(1).eval(), ResNetFeatures("resnet101", pretrained=False, spatial_dims=2)
    strided.load_state_dict(dilated.features.state_dict())
    for bottleneck, rate in zip(dilated.features.layer4, (1, 2, 2), strict=True):
        bottleneck.conv2.dilation = bottleneck.conv2.padding = (rate, rate)
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(dilated(x)[1][..., ::2, ::2], strided.eval()(x)[-1], atol=1e-3, rtol=1e-3)


def test_dilated_mobilenet_v2_is_the_strided_one_at_every_second_pixel():
    torch.manual_seed(0)
    dilated, strided = MobileNetV2(1).eval(), MobileNetV2(1).eval()
    strided.load_state_dict(dilated.state_dict())
    convs = [m for m in strided.coarse.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    convs[10].stride = (2, 2)
    for conv in convs[11:]:
        conv.dilation = conv.padding = (1, 1)
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(dilated(x)[1][..., ::2, ::2], strided(x)[1])


def test_resnet101_begins_with_features_of_the_scale_of_its_first_ones():
    torch.manual_seed(0)
    network = ResNet101(1).train()
    with torch.no_grad():
        fine, coarse = network(torch.randn(4, 1, 64, 64))
    assert 0.3 < coarse.square().mean() / fine.square().mean() < 3


@pytest.mark.parametrize(
    ("channels", "width", "stride", "adds"), [(24, 24, 1, True), (24, 24, 2, False), (24, 32, 1, False)]
)
def test_inverted_residual_adds_its_input_where_the_shape_stays(channels, width, stride, adds):
    block = inverted_residual(channels, width, expansion=6, stride=stride, dilation=1)
    assert isinstance(block, Residual) == adds


def test_inverted_residual_is_wide_depthwise_narrow_and_linear():
    block = inverted_residual(16, 24, expansion=6, stride=1, dilation=1)
    convs = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0], c.groups) for c in convs] == [
        (16, 96, 1, 1),
        (96, 96, 3, 96),
        (96, 24, 1, 1),
    ]
    assert sum(isinstance(m, nn.ReLU6) for m in block.modules()) == 2
    assert isinstance(block[-1], nn.BatchNorm2d)

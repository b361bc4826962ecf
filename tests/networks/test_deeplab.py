from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from networks.deeplab import ASPP, DeepLabV3Plus
from networks.summary import count_gmacs, count_parameters


def mobile(seed: int = 0) -> nn.Module:
    """The network on MobileNetV2 with statistics that fit its features, in eval mode."""
    torch.manual_seed(seed)
    network = DeepLabV3Plus(1, backbone="mobilenet_v2")
    update_bn([torch.randn(4, 1, 64, 64)], network)
    return network.eval()


def aspp_parameters(channels):
    """1x1, three 3x3 and the mean's 1x1 to 256 each, 1280 to 256; two for each channel of six norms."""
    return channels * 256 + 3 * 9 * channels * 256 + channels * 256 + 1280 * 256 + 6 * 2 * 256


def decoder_parameters(channels):
    """1x1 to 48, 3x3 from 304 and from 256 to 256, each with a norm; 1x1 to one class with a bias."""
    return channels * 48 + 2 * 48 + 9 * 304 * 256 + 2 * 256 + 9 * 256 * 256 + 2 * 256 + 256 + 1


@pytest.mark.parametrize(
    ("backbone", "parts"),
    [
        # ResNet-101 has 44,549,160 parameters with its classifier of 2048 to 1000.
        ("resnet101", [44_549_160 - 2_049_000, aspp_parameters(2048), decoder_parameters(256)]),
        # MobileNetV2 has 3,504,872 with its convolution of 320 to 1280 and its classifier of 1280 to 1000.
        ("mobilenet_v2", [3_504_872 - 412_160 - 1_281_000, aspp_parameters(320), decoder_parameters(24)]),
    ],
)
def test_parameters_part_by_part(backbone, parts):
    network = DeepLabV3Plus(backbone=backbone)
    assert [count_parameters(part) for part in (network.backbone, network.aspp, network.decoder)] == parts
    assert (
        count_parameters(network)
        == sum(parts)
        == {"resnet101": 59_339_169, "mobilenet_v2": 5_810_913}[backbone]
    )


def test_default_is_resnet101():
    assert count_parameters(DeepLabV3Plus()) == 59_339_169


@pytest.mark.parametrize(
    # A channel of the image is 64 weights of 7x7, or 32 of 3x3.
    ("backbone", "count"),
    [("resnet101", 59_339_169 - 2 * 3136), ("mobilenet_v2", 5_810_913 - 2 * 288)],
)
def test_parameters_of_one_channel(backbone, count):
    assert count_parameters(DeepLabV3Plus(in_channels=1, backbone=backbone)) == count


@pytest.mark.parametrize(("backbone", "gmacs"), [("resnet101", 22.13), ("mobilenet_v2", 6.56)])
def test_multiply_accumulates(backbone, gmacs):
    assert round(count_gmacs(DeepLabV3Plus(backbone=backbone), (3, 256, 256)), 2) == gmacs


def test_aspp_has_the_rates_of_the_paper():
    convs = [m for m in DeepLabV3Plus(1, backbone="mobilenet_v2").aspp.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.kernel_size[0], c.dilation[0], c.in_channels, c.out_channels) for c in convs] == [
        (1, 1, 320, 256),
        (3, 6, 320, 256),
        (3, 12, 320, 256),
        (3, 18, 320, 256),
        (1, 1, 320, 256),
        (1, 1, 1280, 256),
    ]


def test_aspp_sees_by_its_rates_and_the_whole_image_by_its_mean():
    torch.manual_seed(0)
    aspp = ASPP(4, width=8, rates=(6, 12, 18), dropout=0.0).eval()
    x = torch.randn(1, 4, 45, 45, requires_grad=True)
    (gradient,) = torch.autograd.grad(aspp(x)[0, :, 22, 22].sum(), x)
    assert gradient[0].any(dim=0).all()

    for parameter in aspp.image_pooling.parameters():
        nn.init.zeros_(parameter)
    (gradient,) = torch.autograd.grad(aspp(x)[0, :, 22, 22].sum(), x)
    seen = {(i - 22, j - 22) for i, j in gradient[0].any(dim=0).nonzero().tolist()}
    assert seen == {(rate * i, rate * j) for rate in (6, 12, 18) for i in (-1, 0, 1) for j in (-1, 0, 1)}


def test_decoder_works_at_a_fourth_of_the_size_and_joins_48_channels():
    network = mobile()
    fine, coarse = network.backbone(torch.randn(1, 1, 256, 256))
    with torch.no_grad():
        assert network.decoder.reduce(fine).shape == (1, 48, 64, 64)
        context = network.aspp(coarse)
        assert context.shape == (1, 256, 16, 16)
        assert network.decoder(context, fine).shape == (1, 1, 64, 64)
    assert network.decoder.refine[0].conv.in_channels == 256 + 48


def test_logits_depend_on_the_fine_and_the_coarse_features():
    network = mobile()
    fine, coarse = (f.detach().requires_grad_() for f in network.backbone(torch.randn(1, 1, 64, 64)))
    network.decoder(network.aspp(coarse), fine).sum().backward()
    assert fine.grad.any()
    assert coarse.grad.any()


def test_dropout_is_behind_the_projection_only():
    rates = [m.p for m in DeepLabV3Plus(1, backbone="mobilenet_v2").modules() if isinstance(m, nn.Dropout)]
    assert rates == [0.1]

    torch.manual_seed(0)
    aspp = DeepLabV3Plus(1, backbone="mobilenet_v2", dropout=0.5).aspp.train()
    # ReLU after BatchNorm leaves half of the features, dropout half of those.
    zeros = (aspp(torch.randn(4, 320, 8, 8)) == 0).float().mean().item()
    assert zeros == pytest.approx(0.75, abs=0.05)


def test_training_on_one_image_is_torchs_error():
    network = DeepLabV3Plus(1, backbone="mobilenet_v2").train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(torch.rand(1, 1, 32, 32))
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 1, 32, 32)


def test_unknown_backbone_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match="resnet101, mobilenet_v2, got 'vgg16'"):
        DeepLabV3Plus(backbone="vgg16")

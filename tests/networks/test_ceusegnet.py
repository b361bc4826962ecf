from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import update_bn

from networks import count_gmacs, count_parameters
from networks.ceusegnet import CEUSegNet
from networks.fusion import CrossModalityAttention, CrossModalityFusion

COUNTS = {
    "CEUSegNet": 9_281_025,
    "CEUSegNet, without CSA": 8_969_729,
    "CEUSegNet, without CFF": 7_718_401,
    "CEUSegNet, without residuals": 9_055_617,
    "CEUSegNet, dual U-net": 7_181_697,
}


def build(**arguments) -> CEUSegNet:
    torch.manual_seed(0)
    return CEUSegNet(**arguments).eval()


def images(batch: int = 1, side: int = 32) -> torch.Tensor:
    return torch.randn(batch, 2, side, side, generator=torch.Generator().manual_seed(1))


def settled() -> CEUSegNet:
    """As after training: the statistics of the norms fit the features. In double precision.

    So nothing fades from level to level, and what is small is no rounding.
    """
    network = build().double()
    update_bn([images(batch=4).double()], network)
    return network.eval()


@pytest.mark.parametrize("published", CEUSegNet.published, ids=lambda published: published.title)
def test_number_of_parameters(published):
    assert count_parameters(CEUSegNet(**published.arguments)) == COUNTS[published.title]


def test_default_is_the_network_of_the_paper():
    assert [published.title for published in CEUSegNet.published] == list(COUNTS)
    assert count_parameters(CEUSegNet()) == 9_281_025
    assert CEUSegNet().image_channels == 2


def test_parameters_of_further_channels_and_classes():
    # A channel of both images: 9 * 64 in each encoder. A class: 64 and a bias.
    network = CEUSegNet(in_channels=4, out_channels=3)
    assert count_parameters(network) == 9_281_025 + 3 * 2 * 576 + 2 * 65
    assert network.image_channels == 8


def test_multiply_accumulates():
    assert count_gmacs(CEUSegNet(), (2, 128, 128)) == pytest.approx(12.65, abs=0.005)


def test_widths_and_sizes_of_each_level():
    network, x = build(), images()
    with torch.no_grad():
        for encoder in (network.encoder, network.encoder_us):
            shapes = [tuple(f.shape[1:]) for f in encoder(x[:, :1])]
            assert shapes == [(64, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4), (256, 2, 2)]
    assert [step.block[-3].out_channels for step in network.decoder.steps] == [128, 64, 64, 64]
    assert [step.block[0].out_channels for step in network.decoder.steps] == [256, 128, 64, 64]


@pytest.mark.parametrize("residual", [True, False])
def test_level_is_convolved_then_pooled(residual):
    network = build(residual=residual)
    for encoder in (network.encoder, network.encoder_us):
        level = encoder.levels[2]
        convs = [m for m in level.modules() if isinstance(m, nn.Conv2d)]
        norms = [m for m in level.modules() if isinstance(m, nn.BatchNorm2d)]
        x = torch.randn(1, 64, 8, 8)
        with torch.no_grad():
            y = norms[1](convs[1](norms[0](convs[0](x)).relu())).relu()
            if residual:
                y = (y + norms[2](F.conv2d(x, convs[2].weight, convs[2].bias))).relu()
            torch.testing.assert_close(level(x), F.max_pool2d(y, 2))


def test_first_level_is_plain():
    kinds = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2
    network = build()
    assert [type(m) for m in network.encoder.levels[0]] == kinds
    assert [type(m) for m in network.encoder_us.levels[0]] == kinds


@pytest.mark.parametrize(("attention", "csa"), [(True, 5), (False, 0)])
@pytest.mark.parametrize(("fusion", "cff"), [("cff", 5), ("conv1x1", 0)])
def test_images_meet_at_each_of_the_five_scales(attention, csa, fusion, cff):
    network = build(attention=attention, fusion=fusion)
    assert len(network.merges) == 5
    assert sum(isinstance(m, CrossModalityAttention) for m in network.modules()) == csa
    assert sum(isinstance(m, CrossModalityFusion) for m in network.modules()) == cff
    assert network(images()).shape == (1, 1, 32, 32)


def test_merge_weights_the_contrast_image_then_fuses():
    merge = build().merges[2]
    ceus, us = torch.randn(2, 128, 4, 4), torch.randn(2, 128, 4, 4)
    with torch.no_grad():
        weighted = merge.attention(ceus, us)
        torch.testing.assert_close(merge(ceus, us), merge.fusion(torch.cat([weighted, us], dim=1)))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_attention_learns_at_each_scale(training):
    network = settled().train(training)
    network(images(batch=2).double()).square().mean().backward()
    for merge in network.merges:
        for w in (merge.attention.w_ceus, merge.attention.w_us):
            assert w.weight.grad.norm() > 1e-6


@pytest.mark.parametrize("scale", range(5))
def test_attention_of_each_scale_changes_the_output(scale):
    network, x = settled(), images().double()
    with torch.no_grad():
        before = network(x)
        # What the weights of the channels are if the images have no say: all the same.
        nn.init.zeros_(network.merges[scale].attention.w_us.weight)
        assert (network(x) - before).abs().max() > 1e-6


def test_encoders_share_no_weights():
    network = CEUSegNet()
    ceus, us = list(network.encoder.parameters()), list(network.encoder_us.parameters())
    assert [p.shape for p in ceus] == [p.shape for p in us]
    assert {p.data_ptr() for p in ceus}.isdisjoint(p.data_ptr() for p in us)
    assert all(not torch.equal(a, b) for a, b in zip(ceus, us, strict=True) if a.dim() > 1)


@pytest.mark.parametrize("in_channels", [1, 3])
def test_first_half_of_the_channels_is_the_contrast_image(in_channels):
    network, x = build(in_channels=in_channels), torch.randn(1, 2 * in_channels, 32, 32)
    seen = {"ceus": [], "us": []}
    network.encoder.register_forward_pre_hook(lambda _, inputs: seen["ceus"].append(inputs[0]))
    network.encoder_us.register_forward_pre_hook(lambda _, inputs: seen["us"].append(inputs[0]))
    with torch.no_grad():
        network(x)
    assert torch.equal(torch.cat(seen["ceus"]), x[:, :in_channels])
    assert torch.equal(torch.cat(seen["us"]), x[:, in_channels:])


def test_images_are_not_exchangeable():
    network, x = settled(), images().double()
    with torch.no_grad():
        logits = network(x)
        assert (network(x.flip(1)) - logits).abs().max() > 0.1 * logits.abs().max()


@pytest.mark.parametrize("channels", [1, 3])
def test_other_numbers_of_channels_are_an_error(channels):
    with pytest.raises(ValueError, match=f"expected 2 channels, .* got {channels}: join the two"):
        build()(torch.zeros(1, channels, 32, 32))


def test_unknown_fusion_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match="out of cff, conv1x1, got 'sum'"):
        CEUSegNet(fusion="sum")


def test_a_network_for_one_image_is_one_encoder_and_the_decoder():
    single, both = CEUSegNet(images=1), CEUSegNet(fusion="conv1x1", attention=False)
    assert count_parameters(single) == 4_580_993
    merges = sum(2 * width * width + width for width in (64, 64, 128, 256, 256))
    assert count_parameters(both) == 4_580_993 + count_parameters(single.encoder) + merges
    assert single(torch.rand(1, 1, 40, 33)).shape == (1, 1, 40, 33)
    with pytest.raises(ValueError, match="expected 1 channels"):
        single(torch.rand(1, 2, 32, 32))
    with pytest.raises(ValueError, match="expected 2 images, or 1, got 3"):
        CEUSegNet(images=3)

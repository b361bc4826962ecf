from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from networks.fusion import CrossModalityAttention, CrossModalityFusion, DilatedConvs


def attention(channels: int) -> CrossModalityAttention:
    torch.manual_seed(0)
    return CrossModalityAttention(channels)


def features(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Those of the contrast image and of the B-mode image, as large as after BatchNorm and more."""
    generator = torch.Generator().manual_seed(1)
    return tuple(10 * torch.rand(*shape, generator=generator) for _ in range(2))


def test_attention_by_hand():
    csa = attention(2)
    with torch.no_grad():
        csa.w_ceus.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        csa.w_us.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    # Two channels of 1x2 pixels: means (2, 1) and (ln 3, 0), the latter swapped by W_us. The scores are
    # 2 * 0 and 1 * ln 3, so that the softmax is 1/4 and 3/4.
    ceus = torch.tensor([[[[1.0, 3.0]], [[0.0, 2.0]]]])
    us = torch.tensor([[[[math.log(9), 0.0]], [[-5.0, 5.0]]]])
    with torch.no_grad():
        torch.testing.assert_close(csa.weights(ceus, us), torch.tensor([[0.25, 0.75]]))
        torch.testing.assert_close(csa(ceus, us), torch.tensor([[[[1.25, 3.75]], [[0.0, 3.5]]]]))


def test_attention_is_equations_1_and_2_without_a_scale():
    csa, (ceus, us) = attention(6), features(3, 6, 4, 5)
    w_ceus, w_us = (w.weight.detach().double().numpy() for w in (csa.w_ceus, csa.w_us))
    expected = []
    for f_ceus, f_us in zip(ceus.double().numpy(), us.double().numpy(), strict=True):
        score = (w_ceus @ f_ceus.mean(axis=(1, 2))) * (w_us @ f_us.mean(axis=(1, 2)))
        weight = np.exp(score) / np.exp(score).sum()
        assert np.ptp(weight) > 0.1  # A scale would show.
        expected.append(f_ceus + weight[:, None, None] * f_ceus)
    with torch.no_grad():
        torch.testing.assert_close(csa(ceus, us), torch.from_numpy(np.stack(expected)).float())


def test_attention_weights_sum_to_one_over_the_channels_of_each_pair():
    csa, (ceus, us) = attention(6), features(3, 6, 4, 5)
    with torch.no_grad():
        weights = csa.weights(ceus, us)
        assert weights.shape == (3, 6)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
        assert (weights.sum(dim=0) - 0.5).abs().max() > 0.1
        # A pair of images does not weigh the channels of another pair.
        torch.testing.assert_close(csa.weights(ceus[1:2], us[1:2]), weights[1:2])


def test_attention_depends_on_both_images():
    csa, (ceus, us) = attention(6), features(1, 6, 4, 5)
    with torch.no_grad():
        weights = csa.weights(ceus, us)
        assert not torch.allclose(csa.weights(ceus.flip(1), us), weights, atol=0.01)
        assert not torch.allclose(csa.weights(ceus, us.flip(1)), weights, atol=0.01)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_both_matrices_of_the_attention_receive_a_gradient(training):
    csa = attention(6).double().train(training)
    csa(*(f.double() for f in features(2, 6, 4, 5))).square().mean().backward()
    for w in (csa.w_ceus, csa.w_us):
        assert w.bias is None
        # Each row belongs to a channel of the score.
        assert (w.weight.grad.norm(dim=1) > 1e-6).all()


def test_dilated_convolutions_look_one_two_four_and_eight_pixels_far():
    convs = DilatedConvs(8)
    with torch.no_grad():
        for conv in convs.convs:
            nn.init.ones_(conv.weight)
            nn.init.zeros_(conv.bias)
        impulse = torch.zeros(1, 8, 21, 21)
        impulse[..., 10, 10] = 1
        response = convs(impulse)[0]
    assert response.shape == (8, 21, 21)
    for channel, reach in enumerate([1, 1, 2, 2, 4, 4, 8, 8]):
        at = [10 - reach, 10, 10 + reach]
        assert response[channel].nonzero().tolist() == [[i, j] for i in at for j in at]


def test_fusion_is_the_figure_of_the_paper():
    torch.manual_seed(0)
    cff = CrossModalityFusion(8)
    x = torch.randn(2, 16, 9, 7)
    cff(x)  # The norms now hold something.
    cff.eval()
    first, one, two, four, eight, last = (m for m in cff.modules() if isinstance(m, nn.Conv2d))
    norms = [m for m in cff.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 3
    with torch.no_grad():
        h = norms[0](F.conv2d(x, first.weight, first.bias)).relu()
        h = torch.cat(
            [
                F.conv2d(h, conv.weight, conv.bias, padding=d, dilation=d)
                for conv, d in ((one, 1), (two, 2), (four, 4), (eight, 8))
            ],
            dim=1,
        )
        h = norms[1](h).relu()
        h = norms[2](F.conv2d(h, last.weight, last.bias)).relu()
        assert h.shape == (2, 8, 9, 7)
        torch.testing.assert_close(cff(x), h)


def test_channels_that_four_convolutions_cannot_share_are_an_error():
    with pytest.raises(ValueError, match="expected a multiple of 4, got 6: change the width"):
        CrossModalityFusion(6)

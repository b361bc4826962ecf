from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.export import Dim

from networks.cells import AttentionGate, NormalCell, ReductionCell, mbconv, separable_twice

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def fresh_norm(x: torch.Tensor) -> torch.Tensor:
    """What a BatchNorm without training makes of its input in eval mode."""
    return x / (1 + 1e-3) ** 0.5


def squeezed(squeeze: nn.Module, x: torch.Tensor) -> torch.Tensor:
    (weight,) = (p for p in squeeze.parameters() if p.ndim == 4)
    return fresh_norm(torch.einsum("oi,bihw->bohw", weight[:, :, 0, 0], x.clamp(min=0)))


def separated(twice: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """ReLU, depthwise, pointwise, norm; the same again. All of stride 1."""
    weights = [p for p in twice.parameters() if p.ndim == 4]
    for depthwise, pointwise in (weights[:2], weights[2:]):
        x = F.conv2d(x.clamp(min=0), depthwise, padding="same", groups=x.shape[1])
        x = fresh_norm(torch.einsum("oi,bihw->bohw", pointwise[:, :, 0, 0], x))
    return x


def halved(twice: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """As `separated`, but with stride 2 in the first: each second pixel of a stride of 1, from the second."""
    first, pointwise, second, last = (p for p in twice.parameters() if p.ndim == 4)
    x = F.conv2d(x.clamp(min=0), first, padding="same", groups=x.shape[1])[:, :, 1::2, 1::2]
    x = fresh_norm(torch.einsum("oi,bihw->bohw", pointwise[:, :, 0, 0], x))
    x = F.conv2d(x.clamp(min=0), second, padding="same", groups=x.shape[1])
    return fresh_norm(torch.einsum("oi,bihw->bohw", last[:, :, 0, 0], x))


def neighbours(x: torch.Tensor) -> torch.Tensor:
    """The 3x3 pixels about each pixel as a last dimension, NaN outside of the image."""
    padded = F.pad(x, (1, 1, 1, 1), value=torch.nan)
    return padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(-2)


def mean3(x: torch.Tensor) -> torch.Tensor:
    return neighbours(x).nanmean(dim=-1)


def max3(x: torch.Tensor) -> torch.Tensor:
    return neighbours(x).nan_to_num(-torch.inf).amax(dim=-1)


@pytest.mark.parametrize("size", [(8, 6), (7, 5)])
def test_normal_cell_is_the_figure_of_the_paper(size):
    torch.manual_seed(0)
    cell = NormalCell(4, 18).eval().double()
    x = torch.randn(2, 4, *size, dtype=torch.float64)

    h, p = squeezed(cell.squeeze_h, x), squeezed(cell.squeeze_p, x)
    combined = [
        separated(cell.separable0_h, h) + separated(cell.separable0_p, p),
        separated(cell.separable1_p5, p) + separated(cell.separable1_p3, p),
        mean3(h) + p,
        2 * mean3(p),
        separated(cell.separable4_h, h) + h,
    ]
    torch.testing.assert_close(cell(x), torch.cat([p, *combined], dim=1))


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (2, 3)])
def test_reduction_cell_is_the_figure_of_the_paper(size):
    torch.manual_seed(0)
    cell = ReductionCell(4, 12).eval().double()
    x = torch.randn(2, 4, *size, dtype=torch.float64)

    h, p = squeezed(cell.squeeze_h, x), squeezed(cell.squeeze_p, x)
    mean_h, max_h = mean3(h)[:, :, 1::2, 1::2], max3(h)[:, :, 1::2, 1::2]
    c0 = halved(cell.separable0_h, h) + halved(cell.separable0_p, p)
    c1 = max_h + halved(cell.separable1_p, p)
    c2 = mean_h + halved(cell.separable2_p, p)
    c3 = mean3(c0) + c1
    c4 = separated(cell.separable4_c0, c0) + max_h
    torch.testing.assert_close(cell(x), torch.cat([c1, c2, c3, c4], dim=1))


@pytest.mark.parametrize(
    ("cell", "kernels"), [(NormalCell(5, 24), (5, 3, 5, 3, 3)), (ReductionCell(5, 16), (5, 7, 7, 5, 3))]
)
def test_cells_have_the_separable_convolutions_of_the_paper(cell, kernels):
    depthwise = [m.kernel_size for m in cell.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert depthwise == [(k, k) for k in kernels for _ in range(2)]
    # 4 filters: two squeezes of 5 channels, then depthwise, pointwise and norm, twice each; no bias.
    assert parameters(cell) == 2 * (5 * 4 + 8) + sum(2 * (4 * k * k + 4 * 4 + 8) for k in kernels)


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize("size", range(2, 10))
def test_stride_two_rounds_an_odd_size_down(kernel_size, size):
    x = torch.zeros(1, 2, size, 9)
    assert separable_twice(2, kernel_size, stride=2)(x).shape == (1, 2, size // 2, 4)


def test_cells_name_the_channels_that_they_give():
    with pytest.raises(ValueError, match="normal cell gives a multiple of 6 channels, got 20"):
        NormalCell(3, 20)
    with pytest.raises(ValueError, match="reduction cell gives a multiple of 4 channels, got 18"):
        ReductionCell(3, 18)
    assert ReductionCell(3, 20).out_channels == 20


def test_mbconv_squeezes_to_a_quarter_of_its_input():
    # 8 channels, 48 of them inside, 2 in the squeeze; the convolutions outside of it have no bias.
    expand, depthwise, project = 8 * 48 + 96, 48 * 9 + 96, 48 * 6 + 12
    excite = (48 * 2 + 2) + (2 * 48 + 48)
    assert parameters(mbconv(8, 6)) == expand + depthwise + excite + project
    # One channel at least.
    assert mbconv(1, 6)(torch.rand(2, 1, 7, 4)).shape == (2, 6, 7, 4)


def test_mbconv_adds_its_input_where_the_channels_stay():
    same, other = mbconv(4, 4), mbconv(4, 5)
    for block in (same, other):
        nn.init.zeros_(block._bn2.weight)
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(same(x), x)
    assert not other(x).any()


def test_mbconv_excites_by_the_mean_of_the_whole_image():
    torch.manual_seed(0)
    block = mbconv(4, 5).eval()
    x = torch.randn(1, 4, 20, 20)
    far = x.clone()
    far[..., 15:, 15:] += 5
    # The convolutions see one pixel around, so that a corner hears of the other through the mean only.
    assert not torch.allclose(block(x)[..., :5, :5], block(far)[..., :5, :5])


def test_attention_gate_is_the_formula_of_the_paper():
    torch.manual_seed(0)
    gate = AttentionGate(up_channels=5, skip_channels=6).eval().double()
    assert gate.out_channels == 11
    up, skip = torch.randn(2, 5, 4, 4).double(), torch.randn(2, 6, 5, 4).double()
    padded = F.pad(up, (0, 0, 0, 1))

    w_up, w_skip, psi = (m for m in gate.modules() if isinstance(m, nn.Conv2d))
    assert [w.weight.shape for w in (w_up, w_skip, psi)] == [(3, 5, 1, 1), (3, 6, 1, 1), (1, 3, 1, 1)]

    def norm(x: torch.Tensor) -> torch.Tensor:
        return x / (1 + 1e-5) ** 0.5

    weight = norm(psi((norm(w_up(padded)) + norm(w_skip(skip))).clamp(min=0))).sigmoid()
    torch.testing.assert_close(gate(up, skip), torch.cat([weight * skip, padded], dim=1))


def test_attention_gate_of_one_channel():
    assert AttentionGate(3, 1)(torch.rand(2, 3, 2, 2), torch.rand(2, 1, 2, 3)).shape == (2, 4, 2, 3)


PARTS = {
    "normal": (lambda: NormalCell(3, 12), 1),
    "reduction": (lambda: ReductionCell(3, 8), 1),
    "mbconv": (lambda: mbconv(3, 4), 1),
    "attention": (lambda: AttentionGate(4, 3), 2),
}


def inputs(name: str, height: int = 9, width: int = 6) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    x = torch.randn(2, 3, height, width)
    return (torch.randn(2, 4, height, width), x) if name == "attention" else (x,)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_every_weight_receives_a_gradient(name, training):
    torch.manual_seed(0)
    part = PARTS[name][0]().train(training)
    part(*inputs(name)).square().sum().backward()
    for parameter_name, parameter in part.named_parameters():
        # A norm in training takes away what the bias before it adds.
        if parameter.ndim > 1 or not training:
            assert parameter.grad.abs().max() > 1e-4, parameter_name


@pytest.mark.parametrize("name", PARTS)
def test_script_and_export_equal_eager_at_any_size(name):
    torch.manual_seed(0)
    part, arguments = PARTS[name][0]().eval(), PARTS[name][1]
    # A reduction cell halves them, and a size of one is a case of its own for `torch.export`.
    sizes = {2: Dim("height", min=4), 3: Dim("width", min=4)}
    exported = torch.export.export(part, inputs(name), dynamic_shapes=(sizes,) * arguments).module()
    scripted = torch.jit.script(part)
    with torch.no_grad():
        for x in (inputs(name, 9, 6), inputs(name, 4, 7)):
            torch.testing.assert_close(exported(*x), part(*x))
            torch.testing.assert_close(scripted(*x), part(*x))

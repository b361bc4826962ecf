from __future__ import annotations

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from networks import NETWORKS, PlainUNet, count_gmacs, count_parameters, summarize

SUMMARIES = summarize()


def test_parameters_leave_out_the_statistics_of_a_norm():
    assert count_parameters(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))) == (8 * 3 * 9 + 8) + 16


@pytest.mark.parametrize(
    ("layer", "image_size", "macs"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (3, 10, 12), 10 * 12 * 8 * 3 * 9),
        (nn.Conv2d(6, 6, 2, groups=6), (6, 5, 5), 4 * 4 * 6 * 4),
        (nn.Conv2d(4, 8, 1, groups=2), (4, 5, 5), 5 * 5 * 8 * 2),
        (nn.ConvTranspose2d(4, 2, 2, stride=2), (4, 5, 5), 5 * 5 * 4 * 2 * 4),
    ],
    ids=["dense", "depthwise", "group", "transposed"],
)
def test_multiply_accumulates_of_a_convolution(layer, image_size, macs):
    assert count_gmacs(layer, image_size) == macs / 1e9


def test_counting_leaves_the_network_as_it_is():
    network = PlainUNet(1).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    count_gmacs(network, (1, 1536, 1536))
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("summary", SUMMARIES, ids=lambda summary: summary.title)
def test_multiply_accumulates_agree_with_another_counter(summary):
    """fvcore traces a run; a small image, and small widths where the paper's are wide, keep that short."""
    arguments = {
        name: min(value, 16) if name == "width" else value for name, value in summary.arguments.items()
    }
    network = NETWORKS[summary.network](**arguments)
    size = (network.image_channels, 64, 96)
    counter = FlopCountAnalysis(network.eval(), torch.zeros(1, *size))
    counter.unsupported_ops_warnings(False)
    # What is no convolution (the matrices of CSA) is so little that leaving it out stays within the 1 %.
    counted = counter.by_operator()
    macs = sum(counted[name] for name in ("conv", "linear", "matmul", "addmm", "bmm", "einsum"))
    assert count_gmacs(network, size) == pytest.approx(macs / 1e9, rel=0.01)


def test_every_published_network_is_summarized():
    assert sorted(s.title for s in SUMMARIES) == sorted(
        published.title for name in NETWORKS.names for published in NETWORKS[name].published
    )
    plain = next(s for s in SUMMARIES if s.title == "PlainUNet")
    assert (plain.network, plain.paper, plain.image_size) == (
        "PlainUNet",
        "Li et al., ISBI 2021",
        (3, 256, 256),
    )
    assert (plain.published, plain.parameters, round(plain.gmacs, 2)) == ("17,267,393", 17_267_393, 39.98)
    assert [s.paper for s in SUMMARIES] == sorted(s.paper for s in SUMMARIES)
    assert all(s.title.startswith(s.network) for s in SUMMARIES)

"""Networks leave PyTorch: as an exported program and as ONNX."""

from __future__ import annotations

import onnxruntime
import pytest
import torch
from torch.export import Dim

from tests.networks.building import close, images, settled, variants

# Variants all of whose layers another one of their network, or a network of plain convolutions, has, too. To
# export one takes 10 to 35 seconds.
OF_KNOWN_PARTS = (
    "CEUSegNet, without CSA",
    "CEUSegNet, without CFF",
    "CEUSegNet, without residuals",
    "HighResUNet, no residuals",
    "HighResUNet, dense",
    "ModularUNet, NAS U-Net",
    "ReducedUNet, literal text",
)


def exported():
    """All variants; those of known parts only in the slow tests."""
    known = {variant.id: variant for variant in variants()}
    assert known.keys() >= set(OF_KNOWN_PARTS)
    for name in OF_KNOWN_PARTS:
        known[name] = pytest.param(*known[name].values, id=name, marks=pytest.mark.slow)
    return list(known.values())


@pytest.mark.parametrize("variant", exported())
def test_exported_program_and_onnx_equal_eager_at_any_size(variant, tmp_path):
    """One pixel at the bottom is a case of its own for `torch.export`, so the bottom has two at least."""
    network = settled(variant)
    least = network.least_size
    sizes = {0: Dim("batch", min=1), 2: Dim("height", min=2 * least), 3: Dim("width", min=2 * least)}
    program = torch.export.export(network, (images(network),), dynamic_shapes=(sizes,))
    exported = program.module()
    torch.onnx.export(program, f=tmp_path / "network.onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    with torch.no_grad():
        for x in (images(network), images(network, 2 * least, 4 * least - 1, batch=1)):
            expected = network(x)
            close(exported(x), expected)
            (logits,) = session.run(None, {image.name: x.numpy()})
            close(torch.from_numpy(logits), expected)

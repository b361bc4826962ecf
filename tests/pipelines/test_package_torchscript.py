import io
import zipfile

import torch
from monai.data import load_net_with_metadata
from monai.networks.nets import BasicUNet

from pipelines.package_torchscript import constants_sorted, torchscript_file
from tests.conftest import ROOT

METADATA = {"version": "0.1.0"}
CONFIGS = {"inference.json": {"a": 1}}


def test_it_runs_alone_and_names_no_file_of_this_machine(tmp_path):
    torch.manual_seed(0)
    network = BasicUNet(2, 1, 1, (4, 4, 8, 8, 8, 4)).eval()
    content = torchscript_file(network, METADATA, CONFIGS)
    assert content == torchscript_file(network, METADATA, CONFIGS)
    (tmp_path / "model.ts").write_bytes(content)
    loaded, metadata, extra = load_net_with_metadata(
        str(tmp_path / "model.ts"), more_extra_files=["inference.json"]
    )
    assert metadata["version"] == "0.1.0"
    assert extra["inference.json"] == b'{"a": 1}'
    image = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(loaded(image), network(image))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    everything = b"".join(files.values())
    assert str(ROOT).encode() not in everything
    assert b"site-packages" not in everything
    # PyTorch puts a class into another folder where the process knows one of that name.
    convolutions = [text.decode() for text in files.values() if b"class Conv2d(" in text]
    assert convolutions
    for convolution in convolutions:
        constants = [line for line in convolution.split("def ")[0].splitlines() if "Final" in line]
        assert constants == sorted(constants)
        assert len(constants) > 5


def test_only_constants_are_put_in_order():
    source = (
        "class A(Module):\n  z : int\n  y : Final[int] = 1\n  x : Final[int] = 2\n  def b(self):\n    a\n"
    )
    assert constants_sorted(source) == source.replace(
        "  y : Final[int] = 1\n  x : Final[int] = 2\n", "  x : Final[int] = 2\n  y : Final[int] = 1\n"
    )

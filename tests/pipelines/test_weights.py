import json
import struct

import pytest
import torch
from monai.networks.nets import BasicUNet

from pipelines import weights
from pipelines.errors import DataError
from pipelines.files import write_json

NETWORK = {
    "_target_": "BasicUNet",
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 1,
    "features": "$[4, 4, 8, 8, 8, 4]",
    "norm": "batch",
}


@pytest.fixture
def run(tmp_path):
    """The folder of a run: weights of a network with statistics, and what was recorded of it."""
    folder = tmp_path / "run"
    torch.manual_seed(0)
    network = BasicUNet(2, 1, 1, (4, 4, 8, 8, 8, 4), norm="batch")
    network(torch.rand(4, 1, 32, 32))
    folder.mkdir()
    torch.save(network.eval().state_dict(), folder / "model.pt")
    settings = {"image_size": "@image_size"}
    config = {"bundle": "dce_us", "image_size": [32, 32], "seed": 7, "model_settings": settings}
    write_json(folder / "config.json", {**config, "network_def": NETWORK})
    note = {"bundle": "a-sweep", "network": "BasicUNet", "model_settings": {"image_size": [32, 32]}}
    write_json(folder / "run.json", {**note, "fold": 2, "facts": {"dataset_fingerprint": "0123456789abcdef"}})
    tags = {"kind": "tags", "time": 0, "values": {"split": "5317", "recipe": "4ec1", "network": "mine"}}
    (folder / "tracking.jsonl").write_text(json.dumps(tags) + "\n{cut", encoding="utf-8")
    return folder, network


def header(path):
    """The header of a safetensors file, by the published format: its length in 8 bytes, then JSON."""
    content = path.read_bytes()
    return json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])


def test_a_shrunk_file_says_what_it_belongs_to(run, tmp_path):
    folder, _ = run
    weights.shrink(folder / "model.pt", tmp_path / "small.safetensors")
    told = json.loads(header(tmp_path / "small.safetensors")["__metadata__"]["featherseg"])
    assert told["network_def"] == {**NETWORK, "features": [4, 4, 8, 8, 8, 4]}
    assert told["model_settings"] == {"image_size": [32, 32]}
    origin = {"dataset_fingerprint": "0123456789abcdef", "split": "5317", "recipe": "4ec1"}
    assert told["trained_on"] == {**origin, "seed": 7, "fold": 2}
    assert (told["bundle"], told["network"], told["licence"]) == ("dce_us", "BasicUNet", "Apache-2.0")
    assert weights.record_of(tmp_path / "small.safetensors") == told


def test_weights_are_halved_and_statistics_and_counters_are_not(run, tmp_path):
    folder, _ = run
    state = torch.load(folder / "model.pt", weights_only=True)
    large = next(key for key in state if key.endswith("conv.bias"))
    state[large][0] = 1e6  # beyond what half precision has
    torch.save(state, folder / "model.pt")
    weights.shrink(folder / "model.pt", tmp_path / "small.safetensors")
    kinds = {
        key: entry["dtype"] for key, entry in header(tmp_path / "small.safetensors").items() if "." in key
    }
    assert kinds.keys() == state.keys()
    for key, kind in kinds.items():
        whole = key.endswith(("running_mean", "running_var")) or key == large
        assert kind == ("I64" if key.endswith("num_batches_tracked") else "F32" if whole else "F16"), key
    assert all(
        torch.allclose(value.float(), state[key].float(), rtol=2**-11, atol=2**-25)
        for key, value in weights.state_of(tmp_path / "small.safetensors").items()
    )


def test_the_network_of_a_record_gives_nearly_the_same_logits(run, tmp_path):
    folder, network = run
    record = weights.shrink(folder / "model.pt", tmp_path / "small.safetensors")
    # The channels of the weights stay, whatever a bundle's own are.
    again = weights.build(record["network_def"], in_channels=3, out_channels=2).eval()
    again.load_state_dict(weights.state_of(tmp_path / "small.safetensors"))
    image = torch.rand(1, 1, 32, 32)
    difference = (again(image) - network(image)).abs().max()
    assert 0 < difference < 0.01
    with pytest.raises(DataError, match=r"arguments that the recorded BasicUNet takes, found widths \("):
        weights.build(record["network_def"], widths=3)


def test_the_same_input_gives_the_same_bytes(run, tmp_path):
    folder, _ = run
    made = set()
    for number in range(8):
        weights.shrink(folder / "model.pt", tmp_path / f"{number}.safetensors")
        made.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(made) == 1


def test_files_that_are_no_weights_are_refused_in_one_line(run, tmp_path):
    folder, _ = run
    path = tmp_path / "small.safetensors"
    weights.shrink(folder / "model.pt", path)
    whole = path.read_bytes()
    for content in (whole[:-100], whole[:50], b"", (folder / "model.pt").read_bytes()):
        path.write_bytes(content)
        for read in (weights.state_of, weights.record_of):
            with pytest.raises(
                DataError, match=r"expected whole weights in .*small.safetensors, found no"
            ) as told:
                read(path)
            assert "\n" not in str(told.value)
    with pytest.raises(DataError, match="found no such file; see --checkpoint"):
        weights.state_of(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "expected weights of format 1 in .*, found 2; update FeatherSeg"),
        (
            {"network_def": {"_target_": "os.system", "command": "true"}},
            "found os.system; see `featherseg netw",
        ),
        (
            {"network_def": {"_target_": "networks.NoSuch"}},
            "expected the class of a network .*networks.NoSuch",
        ),
        ({"network_def": None}, "found it damaged"),
    ],
)
def test_a_record_can_name_nothing_but_a_network(run, tmp_path, change, message):
    folder, _ = run
    path = tmp_path / "small.safetensors"
    record = weights.shrink(folder / "model.pt", path)
    entry = json.dumps({**record, **change})
    path.write_bytes(weights.safetensors.torch.save({"weight": torch.zeros(1)}, {weights.ENTRY: entry}))
    with pytest.raises(DataError, match=message):
        weights.record_of(path)


def test_what_cannot_be_told_in_plain_values_is_not_shrunk(run, tmp_path):
    folder, _ = run
    bare = tmp_path / "bare" / "model.pt"
    bare.parent.mkdir()
    bare.write_bytes((folder / "model.pt").read_bytes())
    assert weights.record_of(bare) == {}
    with pytest.raises(DataError, match=r"run.json and config.json beside it, found .*bare/model.pt alone"):
        weights.shrink(bare, tmp_path / "small.safetensors")
    with pytest.raises(DataError, match=r"expected a file \*.safetensors"):
        weights.shrink(folder / "model.pt", tmp_path / "small.bin")
    kind = {"_target_": "BasicUNet", "act": "$print"}
    write_json(folder / "config.json", {"network_def": kind})
    with pytest.raises(DataError, match="arguments are plain values"):
        weights.shrink(folder / "model.pt", tmp_path / "small.safetensors")
    write_json(folder / "config.json", {"network_def": {"_target_": "os.getcwd"}})
    with pytest.raises(DataError, match=r"expected the class of a network .* found os.getcwd"):
        weights.shrink(folder / "model.pt", tmp_path / "small.safetensors")
    assert not list(tmp_path.glob("*.safetensors"))


def test_the_record_of_a_packaged_bundles_run_is_read_in_the_project():
    network = {
        "_target_": "featherseg_lits.networks.LightUNet",
        "_requires_": "@code::path",
        "in_channels": 1,
    }
    code = {"path": "$no.such.name", "runs": "$__import__('featherseg_lits.pipelines.runs')"}
    record = weights.from_config({"network_def": network, "code": code, "seed": 3})
    assert record == {"network_def": {"_target_": "networks.LightUNet", "in_channels": 1}, "seed": 3}

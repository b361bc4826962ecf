"""The overlay that keeps slices on the device: the same training, and no picture on its way to or fro."""

import pytest
import torch
from ignite.engine import Events
from monai.utils import set_determinism
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipelines import datasets
from pipelines.bench_setup import experiment

OVERLAY = ["bundles/common/on_device.json"]
BUNDLES = ["lits", "brain_tumour", "inbreast", "dce_us", "ceus"]
NETWORK = {
    "_target_": "BasicUNet",
    "spatial_dims": 2,
    "in_channels": "$@input_shape[0]",
    "out_channels": 1,
    "features": [4, 4, 8, 8, 8, 4],
}
SIZE = {"lits": 48, "brain_tumour": 48, "inbreast": 96, "dce_us": 96, "ceus": 64}
GIVEN = {"brain_tumour": {"whitening": {"mean": [0] * 4, "matrix": torch.eye(4).tolist()}}}  # without data
CASES = {"lits": 1, "brain_tumour": 1, "inbreast": 1, "dce_us": 2, "ceus": 2}


def small(name, folder):
    """Options that train a bundle on a small phantom in `folder`, not yet where."""
    datasets.get(name).phantom(folder / "data", cases=CASES[name], size=SIZE[name], progress=False)
    options = {
        "dataset_dir": str(folder / "data"),
        "cache_dir": str(folder / "cache"),
        "image_size": [32, 32],
        "batch_size": 2,
        "max_epochs": 2,
        "network_def": NETWORK,
        "train#dataset#data": "$@cases",
        "train#dataset#workers": 0,
        "train#handlers": [],
    }
    return options | ({"frames_dir": str(folder / "frames")} if name == "ceus" else {})


@pytest.fixture(scope="module", params=BUNDLES)
def bundle(request, tmp_path_factory):
    """A bundle's name, and its options."""
    return request.param, small(request.param, tmp_path_factory.mktemp(request.param))


def train(name, overlays=(), **options):
    """Train; returns the loss of each step, and the weights."""
    set_determinism(0)
    parser = experiment(name, overlays, **options)
    trainer = parser.get_parsed_content("train#trainer")
    losses = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output["loss"]))
    trainer.run()
    set_determinism(None)
    return losses, trainer.network.state_dict(), parser.get_parsed_content("train#dataset")


def test_a_training_is_the_same_to_the_bit(bundle, workspace):
    name, options = bundle
    losses, weights, read = train(name, device="cpu", num_workers=0, **options)
    kept_losses, kept_weights, kept = train(name, OVERLAY, device="cpu", **options)
    assert read.kept is None
    assert len(kept.kept) == len(kept.data)
    assert len(losses) >= 4
    assert losses == kept_losses
    assert all(torch.equal(weights[key], kept_weights[key]) for key in weights)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_augmented_slices_on_a_gpu_are_those_of_the_cpu(bundle, workspace):
    name, options = bundle
    on_cpu, on_gpu = (
        experiment(name, OVERLAY, device=device, **options).get_parsed_content("train#dataset")
        for device in ("cpu", "cuda")
    )
    for index in range(len(on_cpu)):
        for key, expected in on_cpu[index].items():
            found = on_gpu[index][key]
            assert found.is_cuda
            # A sample that falls between two pixels may round to the other one, in a label.
            assert (found.cpu() - expected).abs().mean() < 1e-3


class Transfers(TorchDispatchMode):
    """The sizes of the tensors that cross from one device to another.

    What would leave the "meta" device, which holds no values, leaves it as ones.
    """

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        devices = {tensor.device.type for tensor in given}
        leaves = function is torch.ops.aten._to_copy.default and (kwargs or {}).get("device")
        if devices == {"meta"} and leaves == torch.device("cpu"):
            out = torch.ones(given[0].shape, dtype=(kwargs.get("dtype") or given[0].dtype))
        elif devices == {"meta"} and function is torch.ops.aten._local_scalar_dense.default:
            out = 1.0
        else:
            out = function(*args, **(kwargs or {}))
        after = {one.device.type for one in tree_leaves(out) if isinstance(one, torch.Tensor)} or {"cpu"}
        if given and (len(devices) > 1 or devices != after):
            self.sizes.append(max(tensor.numel() for tensor in given))
        return out


@pytest.mark.parametrize("name", BUNDLES)
def test_no_picture_crosses_between_devices(name, workspace):
    # The device that has no values stands for a GPU: what is computed where is the same.
    parser = experiment(name, OVERLAY, device="meta", **GIVEN.get(name, {}))
    augment = parser.get_parsed_content("train#preprocessing")
    channels, *size = parser.get_parsed_content("input_shape")
    for seed in range(8):  # with each transform taking place, and not
        augment.set_random_state(seed)
        item = {"image": torch.empty(channels, *size, device="meta")}
        item["label"] = torch.empty(1, *size, device="meta")
        with Transfers() as transfers:
            done = augment(item)
        assert {key: part.device.type for key, part in done.items()} == {"image": "meta", "label": "meta"}
        assert all(numel <= 512 for numel in transfers.sizes), (
            f"{transfers.sizes}: set the transform's device"
        )


def test_transfers_are_seen():
    with Transfers() as transfers:
        torch.ones(4, 4).to("meta").sum().item()
    assert transfers.sizes == [16, 1]

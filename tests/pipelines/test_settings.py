import pytest
import torch

from networks import CEUSegNet, DeepLabV3Plus, HighResUNet, ReducedUNet
from pipelines.errors import DataError
from pipelines.settings import check, check_batch, check_network

SOUND = {
    "known_labels": [0, 1, 2],
    "target_labels": [2],
    "window": [-100, 200],
    "image_size": [256, 256],
    "batch_size": 16,
    "max_epochs": 37,
    "val_interval": 1,
    "learning_rate": 1e-3,
    "field_of_view": [144, 72.5],
    "label_coding": "brats",
    "intensity_offset": 5,
}


def test_sound_settings_pass():
    check(**SOUND)
    check_network(ReducedUNet(), [1, 16, 17])
    check_network(torch.nn.Identity(), [1, 1, 1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("window", value) for value in ([200, -100], [-100], "-100 200")),
        *(("image_size", value) for value in (8, [8], [0, 8], "8 8", [8.5, 8])),
        *(("field_of_view", value) for value in (144, [144], [0, 144], ["144", "144"])),
        *(("label_coding", value) for value in ("BraTS", None)),
        *(("intensity_offset", value) for value in ("5", True)),
        *(("batch_size", value) for value in (0, 1.5, "four", True)),
        *(("accumulate", value) for value in (0, 0.5)),
        *(("max_epochs", value) for value in (0, None)),
        ("val_interval", 0),
        *(("learning_rate", value) for value in ("fast", 0, -1)),
        *(("target_labels", value) for value in ([3], [0], [], 2)),
    ],
)
def test_what_is_wrong_is_named(name, value):
    with pytest.raises(DataError, match=f"expected --{name} to be .*, found "):
        check(**{**SOUND, name: value})


def test_images_smaller_than_the_network_takes_are_refused():
    with pytest.raises(DataError, match=r"at least \[16,16\] for ReducedUNet, found \[8, 32\]"):
        check_network(ReducedUNet(), [1, 8, 32])


def test_a_network_for_other_images_is_refused():
    with pytest.raises(
        DataError, match="images of 1 channel, found CEUSegNet for 2; set --network_def#in_ch"
    ):
        check_network(CEUSegNet(), [1, 128, 128])


@pytest.mark.parametrize(("batch", "side"), [(1, 128), (2, 64)])
def test_batches_that_norms_can_train_on(batch, side):
    check_batch(HighResUNet(width=2), (1, side, side), batch)


def test_a_batch_that_a_norm_cannot_train_on():
    network = HighResUNet(width=2)
    with pytest.raises(
        DataError, match=r"HighResUNet to train it, found one, with --batch_size 1 and --image_size \[64"
    ):
        check_batch(network, (1, 64, 64), 1)
    with pytest.raises(DataError, match="DeepLabV3Plus"):
        deeplab = DeepLabV3Plus(backbone="mobilenet_v2")
        check_batch(deeplab, (3, 256, 256), 1)
    assert next(network.parameters()).device.type == "cpu"
    with pytest.raises(RuntimeError, match="channel dim"):  # another error is another error
        check_batch(network, (3, 128, 128), 1)

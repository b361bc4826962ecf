import json
import shutil
import sys

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from pipelines import cli, datasets, explain
from pipelines.errors import DataError
from tests.conftest import ROOT, SHARED, write_volume

BUSI = SHARED / "busi"
SHIPPED = ROOT / "bundles/dce_us/models/model.safetensors"


def conv(folder, channels, bias, weight=10.0):
    """A network of one 1x1 convolution: a file of its weights, and the options that go with them."""
    network = nn.Conv2d(channels, 1, 1)
    nn.init.constant_(network.weight, weight)
    nn.init.constant_(network.bias, bias)
    torch.save(network.state_dict(), folder / "conv.pt")
    definition = {"_target_": "torch.nn.Conv2d", "in_channels": channels, "out_channels": 1, "kernel_size": 1}
    return {"checkpoint": str(folder / "conv.pt"), "network_def": definition, "device": "cpu"}


@pytest.fixture
def volume(workspace):
    """A CT-like volume with a bright box of 15 pixels in slice 1 and of 24 in slices 2 and 3."""
    image = np.zeros((20, 16, 6), np.int16)
    image[0, 0, [0, 4, 5]] = 150  # or equalization would make these slices white
    image[3:8, 5:8, 1] = 150
    image[3:9, 5:9, 2:4] = 150
    return write_volume(workspace / "volume-1.nii.gz", image, np.diag([2.0, 1.0, 3.0, 1.0]))


@pytest.fixture
def picture(workspace):
    datasets.get("dce_us").phantom(workspace / "data/dce_us", cases=2, seed=3, size=120, progress=False)
    return workspace / "data/dce_us/images/Patient001_img1.png"


def invoke(monkeypatch, capsys, *words):
    """The command's exit code and what it printed."""
    monkeypatch.setattr(sys, "argv", ["featherseg", "explain", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code or 0, *capsys.readouterr()


def pixels(path):
    return (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)


@pytest.mark.skipif(not SHIPPED.is_file(), reason="the bundle dce_us ships no weights")
def test_the_command_explains_a_picture_with_the_weights_that_ship(picture, monkeypatch, capsys):
    code, out, _ = invoke(monkeypatch, capsys, "dce_us", picture, "--device", "cpu", "--seed", 1)
    assert code == 0
    assert "weights: shipped with the bundle" in out
    made = "runs/dce_us/explain/Patient001_img1_explain.png"
    assert f"picture: {made}" in out
    record = json.loads((picture.parents[3] / made).with_suffix(".json").read_text())
    assert record["network"] == "LighterUNet"
    assert record["mean logit over"] == "the predicted lesion"
    for method in ("vanilla", "smooth"):
        shares = record["methods"][method]["shares"]
        assert list(shares) == ["red", "green", "blue"]
        assert sum(shares.values()) == pytest.approx(1)
        for share in shares.values():
            assert f"{100 * share:.1f} %" in out
    assert record["methods"]["smooth"]["seed"] == 1
    assert record["methods"]["gradcam"] == {"layer": "encoder.levels.4", "grid": [4, 4]}
    drawn = pixels(made)
    height, width, _ = drawn.shape
    assert 700 < width < 1600 and 700 < height < 1600
    orange = (np.abs(drawn - (230, 159, 0)).max(axis=-1) < 40).sum()
    assert orange > 200 * 3  # an outline in each of twelve panels
    blue = ((drawn[..., 2] > drawn[..., 0] + 60) & (drawn[..., 2] > 90)).sum()
    assert blue > 2000


def test_the_picture_is_the_same_for_the_same_seed_and_another_name(picture, workspace, monkeypatch):
    options = conv(workspace, 3, bias=-2)
    renamed = picture.with_name("Jane_Doe.png")
    shutil.copy(picture, renamed)
    first = explain.explain("dce_us", picture, out="one.png", options=options)
    second = explain.explain("dce_us", renamed, out="two.png", options=options)
    one, two = first.picture.read_bytes(), second.picture.read_bytes()
    assert one == two and b"Jane" not in two
    assert first.record["methods"] == second.record["methods"]
    assert sorted(file.name for file in workspace.glob("*.png")) == ["one.png", "two.png"]


def test_the_slice_with_most_lesion_is_taken_and_its_pixels_are_counted(volume, workspace, capsys):
    options = {**conv(workspace, 1, bias=-5), "image_size": [20, 16]}
    record = explain.explain("lits", volume, options=options).record
    assert (record["slice"], record["pixels"], record["image"]) == (2, 24, [1, 20, 16])
    assert record["mean logit over"] == "the predicted lesion"
    # A 1x1 convolution has no coarser grid: said, and left out.
    assert "Conv2d" in capsys.readouterr().out
    assert set(record["methods"]) == {"vanilla", "smooth"}
    assert explain.table(record) is None  # one channel has nothing to share
    record = explain.explain("lits", volume, number=1, methods=["vanilla"], options=options).record
    assert (record["slice"], record["pixels"]) == (1, 15)


def test_where_nothing_is_predicted_the_whole_image_is_explained_and_the_picture_says_so(
    volume, workspace, monkeypatch
):
    titles = []
    monkeypatch.setattr(explain, "draw", lambda shown, path, title, note: titles.append((title, note)))
    options = {**conv(workspace, 1, bias=-50), "image_size": [20, 16]}
    record = explain.explain("lits", volume, methods=["vanilla"], options=options).record
    assert (record["slice"], record["pixels"]) == (3, 320)
    assert record["mean logit over"] == "the whole image, since no lesion is predicted"
    ((title, note),) = titles
    assert "slice 3: what moves the mean logit over the whole image, since no lesion is predicted" in title
    assert "prediction" not in note
    options = {**conv(workspace, 1, bias=-5), "image_size": [20, 16]}
    explain.explain("lits", volume, methods=["vanilla"], options=options)
    title, note = titles[1]
    assert "over the predicted lesion (24 pixels)" in title and "volume-1" not in title
    assert note.startswith("Orange: outline of the prediction.")


def test_gradients_and_image_are_those_of_the_slice_as_it_is_shown(volume, workspace, monkeypatch):
    drawn = []
    monkeypatch.setattr(explain, "draw", lambda shown, *_: drawn.append(shown))
    options = {**conv(workspace, 1, bias=-5), "image_size": [20, 16]}
    explain.explain("lits", volume, number=1, methods=["vanilla"], options=options)
    (shown,) = drawn
    box = np.zeros((20, 16), bool)
    box[3:8, 5:8] = True
    assert np.array_equal(shown.prediction, box)
    assert np.array_equal(shown.image[0] > 0, box)
    # The weight is 10 for a range of 1, which is 255 levels, and the mean is over 15 pixels.
    np.testing.assert_allclose(shown.gradients["gradient"][0], box * 10 / 255 / 15, rtol=1e-5)
    assert shown.volume and shown.spacing == [2.0, 1.0]


def test_a_network_of_one_image_of_the_bundle_has_its_name(workspace, monkeypatch):
    datasets.get("ceus").phantom(workspace / "data/ceus", cases=1, seed=0, size=64, progress=False)
    options = {**conv(workspace, 1, bias=0), "inputs": ["us"], "image_size": [32, 32]}
    record = explain.explain("ceus", methods=["vanilla"], options=options).record
    assert record["methods"]["vanilla"]["shares"] == {"us": 1}
    options = {**conv(workspace, 2, bias=0), "image_size": [32, 32]}
    record = explain.explain("ceus", methods=["vanilla"], options=options).record
    assert list(record["methods"]["vanilla"]["shares"]) == ["contrast", "B-mode"]


def test_a_case_is_chosen_by_its_id_and_an_unknown_one_is_told_some(picture, workspace, monkeypatch, capsys):
    options = conv(workspace, 3, bias=-2)
    words = ["--case", "Patient002_img2", "--method", "vanilla", "--checkpoint", options["checkpoint"]]
    words += ["--network_def", json.dumps(options["network_def"]), "--device", "cpu"]
    assert invoke(monkeypatch, capsys, "dce_us", *words)[0] == 0
    made = workspace / "runs/dce_us/explain/Patient002_img2_explain.png"
    assert made.is_file()
    assert json.loads(made.with_suffix(".json").read_text())["case"] == "Patient002_img2"
    with pytest.raises(DataError) as told:
        explain.explain("dce_us", case="Patient9", options=options)
    assert str(told.value) == (
        "expected a case out of Patient001_img1, Patient001_img2, Patient002_img1, Patient002_img2, "
        "found 'Patient9'"
    )
    capsys.readouterr()
    assert explain.explain("dce_us", methods=["vanilla"], options=options).record["case"] == "Patient001_img1"
    assert "the first of 4 cases; choose another by --case" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["brain", "VOLUME"], "expected one of the bundles in bundles/, brain_tumour, ceus, dce_us"),
        (["lits", "nowhere.nii.gz"], "expected images to segment at nowhere.nii.gz, found nothing there"),
        (
            ["lits", "VOLUME", "--method", "cam"],
            "expected a method out of vanilla, smooth, gradcam, found 'cam'",
        ),
        (["lits", "VOLUME", "--slice", "6"], "expected --slice from 0 to 5, found 6"),
        (["lits", "VOLUME", "--out", "picture.jpg"], "whose name ends in .png, found picture.jpg"),
        (
            ["lits", "VOLUME", "--method", "gradcam"],
            "expected a layer of Conv2d on a coarser grid for Grad-CAM",
        ),
        (["lits", "BAD"], "bad.nii.gz: expected finite"),
        (["lits", "VOLUME", "--run-name", "absent"], "expected the weights runs/lits/absent/model.pt"),
        (["lits", "VOLUME", "--device"], "expected options as `--key value`, found --device"),
    ],
)
def test_errors_are_one_line(volume, workspace, monkeypatch, capsys, words, message):
    bad = nib.load(volume).get_fdata()
    bad[2, 2, 2] = np.nan
    write_volume(workspace / "bad.nii.gz", bad.astype(np.float32))
    given = conv(workspace, 1, bias=-5)
    if "--run-name" not in words:
        words = [*words, "--checkpoint", given["checkpoint"]]
    words = [{"VOLUME": volume, "BAD": workspace / "bad.nii.gz"}.get(word, word) for word in words]
    if words[-3] != "--device":
        words += [
            "--network_def",
            json.dumps(given["network_def"]),
            "--image_size",
            "[20,16]",
            "--device",
            "cpu",
        ]
    code, _, err = invoke(monkeypatch, capsys, *words)
    assert code == 2
    assert message in err
    assert err.startswith("featherseg: ") and err.count("\n") == 1
    assert not list(workspace.glob("runs/lits/explain/*"))


def test_a_slice_of_a_picture_and_an_unknown_layer_are_errors(picture, workspace):
    options = conv(workspace, 3, bias=-2)
    with pytest.raises(DataError, match="expected no --slice of a picture, found 2"):
        explain.explain("dce_us", picture, number=2, options=options)
    options["network_def"] = {
        "_target_": "BasicUNet",
        "spatial_dims": 2,
        "in_channels": 3,
        "out_channels": 1,
        "features": [4, 4, 8, 8, 8, 4],
    }
    torch.save(explain.ConfigParser(options).get_parsed_content("network_def").state_dict(), "conv.pt")
    options["image_size"] = [32, 32]
    with pytest.raises(DataError, match=r"expected a layer that gives features, such as .*final_conv, found"):
        explain.explain("dce_us", picture, layer="bottom", options=options)
    record = explain.explain("dce_us", picture, methods=["gradcam"], layer="down_3", options=options).record
    assert record["methods"] == {"gradcam": {"layer": "down_3", "grid": [4, 4]}}


@pytest.mark.skipif(not SHIPPED.is_file(), reason="the bundle dce_us ships no weights")
@pytest.mark.skipif(not BUSI.is_dir(), reason="no real ultrasound in ../shared/data/busi")
def test_a_real_image_moves_its_lesion_from_nearby(workspace):
    """The smoothed gradient is strongest in and around the lesion, not anywhere in the image."""
    image = BUSI / "benign" / "benign (100).png"
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explain, "draw", lambda shown, *_: drawn.append(shown))
        explain.explain("dce_us", image, methods=["smooth"], options={"device": "cpu"})
    (shown,) = drawn
    heat = shown.gradients["smoothed gradient"].sum(axis=0)
    assert heat[shown.prediction].mean() > 5 * heat[~shown.prediction].mean()

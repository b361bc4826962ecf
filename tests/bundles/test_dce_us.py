"""The DCE-US bundle: what is its own, by the commands that its users type."""

import json
import shutil

import numpy as np
import pytest
from monai.bundle import ConfigParser
from PIL import Image
from scipy import ndimage

from pipelines import datasets
from pipelines.datasets import masks
from pipelines.scoring import read_cases
from tests.bundles.running import for_inference, noisy_weights, run, small, train
from tests.conftest import ROOT, SHARED
from tests.pipelines.dicom_pictures import PATIENT, write_dicom

SMALL, TRAIN = small("dce_us"), train("dce_us")
INFERENCE = "bundles/dce_us/inference.json"
CALIPERS = "bundles/dce_us/experiments/calipers_removed.json"


def test_both_views_of_a_patient_are_in_one_of_three_parts(evaluations):
    folder, _ = evaluations("dce_us")
    made = folder / "runs/dce_us/a"
    split = json.loads((made / "split.json").read_text())["folds"]
    tested, validated = read_cases(made / "evaluation/cases.csv"), read_cases(made / "cases.csv")
    for rows, patients in ((tested, split[0]), (validated, split[1])):
        assert sorted(row["case"] for row in rows) == sorted(f"{p}_img{v}" for p in patients for v in (1, 2))
    assert json.loads((made / "run.json").read_text())["facts"]["cases"] == 12  # of which 4 were trained on


def test_scores_are_in_pixels_of_the_image_and_of_the_grid(evaluations):
    folder, out = evaluations("dce_us")
    assert "HD95 (pixels)" in out
    rows = read_cases(folder / "runs/dce_us/a/evaluation/cases.csv")
    grid = read_cases(folder / "runs/dce_us/a/evaluation/cases_on_grid.csv")
    cases = {case["case"]: case for case in datasets.get("dce_us").index(folder / "data/dce_us")}
    for row, small_row in zip(rows, grid, strict=True):
        mask = masks.read(cases[row["case"]]["label"])
        assert row["true_positive"] + row["false_negative"] == mask.sum()
        assert row["truth_area"] == mask.sum()
        assert small_row["truth_area"] == pytest.approx(mask.mean() * 32 * 32, abs=12)
        if row["missed"]:
            assert row["hd95"] == pytest.approx(np.hypot(*(np.array(mask.shape) - 1)))
            assert small_row["hd95"] == pytest.approx(31 * np.sqrt(2))


def parsed(monkeypatch, *overlays, **options):
    monkeypatch.chdir(ROOT)
    parser = ConfigParser()
    parser.read_config([TRAIN, *(f"bundles/dce_us/experiments/{overlay}.json" for overlay in overlays)])
    parser.update({"device": "cpu", **options})
    return parser


@pytest.mark.parametrize(
    ("rung", "expected"),
    [
        ("ladder_1_start", ("BCEWithLogitsLoss", "SGD", 0.001, 2, False, False, 0)),
        ("ladder_2_augmentation", ("BCEWithLogitsLoss", "SGD", 0.001, 2, True, False, 0)),
        ("ladder_3_dice_loss", ("DiceLoss", "SGD", 0.001, 2, True, False, 0)),
        ("ladder_4_adam", ("DiceLoss", "Adam", 0.0001, 2, True, False, 0)),
        ("ladder_5_plateau", ("DiceLoss", "Adam", 0.0001, 2, True, True, 0)),
        ("ladder_6_batch_8", ("DiceLoss", "Adam", 0.0001, 8, True, True, 0)),
        (None, ("DiceLoss", "Adam", 0.0001, 8, True, True, 0.0001)),
    ],
)
def test_each_rung_of_the_ladder_differs_by_one_thing(monkeypatch, rung, expected):
    small_network = {"network_def": {"_target_": "networks.LighterUNet", "group_size": 16}}
    parser = parsed(monkeypatch, *([rung] if rung else []), **small_network)
    optimizer = parser.get_parsed_content("optimizer")
    scheduler = parser.get_parsed_content("lr_scheduler")
    for _ in range(7):
        scheduler.step(1.0)
    rate = parser.get_parsed_content("learning_rate")
    found = (
        type(parser.get_parsed_content("loss")).__name__,
        type(optimizer).__name__,
        rate,
        parser.get_parsed_content("batch_size"),
        len(parser.get("augmenting")) > 1,
        optimizer.param_groups[0]["lr"] == rate / 2,
        optimizer.param_groups[0]["weight_decay"],
    )
    assert found == expected


@pytest.mark.parametrize(
    ("network", "decay"),
    [
        ({"_target_": "networks.PlainUNet"}, 1e-4),
        ({"_target_": "networks.LightUNet"}, 1e-3),
        ({"_target_": "networks.LighterUNet"}, 1e-4),
        ({"_target_": "networks.LighterUNet", "group_size": 1}, 1e-2),
        ({"_target_": "networks.FCN8s"}, 1e-4),
    ],
)
def test_the_weight_decay_is_the_one_tuned_for_the_network(monkeypatch, network, decay):
    assert parsed(monkeypatch, network_def=network).get_parsed_content("weight_decay") == decay


def test_the_default_network_is_the_papers(monkeypatch):
    network = parsed(monkeypatch).get_parsed_content("network_def")
    assert sum(parameter.numel() for parameter in network.parameters()) == 7_944_661


@pytest.mark.parametrize(("interval", "halved_after"), [(1, 5), (2, 3), (6, 1)])
def test_the_rate_is_halved_after_five_epochs_without_a_better_loss(monkeypatch, interval, halved_after):
    options = {"network_def#group_size": 16, "val_interval": interval}
    scheduler = parsed(monkeypatch, **options).get_parsed_content("lr_scheduler")
    scheduler.step(0.9)
    for _ in range(halved_after):
        assert scheduler.optimizer.param_groups[0]["lr"] == 1e-4
        scheduler.step(0.9)
    assert scheduler.optimizer.param_groups[0]["lr"] == 5e-5


@pytest.fixture(scope="module")
def without_calipers(workspaces):
    folder, _ = workspaces("dce_us")
    run(folder, "training", f"['{TRAIN}','{CALIPERS}']", run_name="plain", max_epochs=1, **SMALL)
    return folder


def test_calipers_are_gone_from_what_the_overlay_trains_on(monkeypatch, workspaces):
    folder, _ = workspaces("dce_us")
    case = datasets.get("dce_us").index(folder / "data/dce_us")[0]
    kept, removed = (
        parsed(monkeypatch, *overlay).get_parsed_content("preprocessing")(case)["image"].numpy()
        for overlay in ([], ["calipers_removed"])
    )
    blue = [float((image[2] - image[0]).max()) for image in (kept, removed)]  # as the calipers are
    assert blue[0] > 30 > blue[1]


def test_a_model_is_not_given_other_calipers_than_it_was_trained_with(without_calipers):
    folder = without_calipers
    options = {"run_name": "plain", "dataset_dir": "data/dce_us/images"}
    out = run(folder, "inferring", INFERENCE, expect=1, output_dir="none", remove_calipers="false", **options)
    assert "featherseg: expected remove_calipers=True, as runs/dce_us/plain/model.pt was trained" in out
    assert "--remove_calipers" in out
    run(folder, "inferring", INFERENCE, output_dir="plain-masks", **options)
    assert len(list((folder / "plain-masks").glob("*_mask.png"))) == 12


@pytest.fixture(scope="module")
def noisy(workspaces):
    folder, _ = workspaces("dce_us")
    noisy_weights(folder, "dce_us")
    return folder


def infer(folder, source, name):
    options = {**for_inference("dce_us"), "checkpoint": folder / "noisy.pt"}
    out = run(folder, "inferring", INFERENCE, dataset_dir=source, output_dir=name, **options)
    return out, {path.name: path for path in (folder / name).iterdir()}


def test_png_jpeg_and_dicom_give_one_mask_and_a_picture_each(noisy):
    folder = noisy
    source = sorted((folder / "data/dce_us/images").glob("*.png"))[0]
    with Image.open(source) as image:
        picture = image.convert("RGB")
    (folder / "in").mkdir()
    picture.save(folder / "in/a.png")
    picture.save(folder / "in/b.jpg", quality=95)
    write_dicom(folder / "in/c", np.asarray(picture))
    out, files = infer(folder, "in", "out")
    assert sorted(files) == sorted(f"{case}_{part}.png" for case in "abc" for part in ("mask", "overlay"))
    found = {}
    for case in "abc":
        with Image.open(files[f"{case}_mask.png"]) as mask:
            assert (mask.mode, mask.size) == ("L", picture.size)
            found[case] = np.asarray(mask)
        assert set(np.unique(found[case])) == {0, 255}
        with Image.open(files[f"{case}_overlay.png"]) as overlay:
            assert min(overlay.size) > 200
    assert np.array_equal(found["a"], found["c"])
    assert (found["a"] != found["b"]).mean() < 0.05
    for text in PATIENT:
        assert text not in out
        assert not any(text.encode() in path.read_bytes() for path in files.values())


def test_the_largest_component_is_what_is_left(noisy):
    folder = noisy
    _, files = infer(folder, "data/dce_us", "largest")
    for name, path in files.items():
        if name.endswith("_mask.png"):
            with Image.open(path) as mask:
                assert ndimage.label(np.asarray(mask), np.ones((3, 3)))[1] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("cut", "expected a whole picture, found one that cannot be read"),
        ("size", "a mask is never resized"),
        ("absent", "found none"),
    ],
)
def test_a_file_at_fault_is_named_in_one_line(workspaces, change, message):
    folder, _ = workspaces("dce_us")
    broken = folder / f"data/broken-{change}"
    shutil.copytree(folder / "data/dce_us", broken, dirs_exist_ok=True)
    image = sorted((broken / "images").glob("*.png"))[0]
    mask = broken / "masks" / image.name
    if change == "cut":
        image.write_bytes(image.read_bytes()[:1000])
    elif change == "size":
        Image.new("L", (10, 10)).save(mask)
    else:
        mask.unlink()
    out = run(folder, "training", TRAIN, expect=1, dataset_dir=broken, run_name=f"broken-{change}", **SMALL)
    line = next(line for line in out.splitlines() if line.startswith("featherseg: "))
    assert message in line
    assert image.name in line
    assert "Traceback" not in out
    assert not (folder / f"runs/dce_us/broken-{change}").exists()


@pytest.mark.skipif(not (SHARED / "busi").is_dir(), reason="no real ultrasound in ../shared/data/busi")
def test_real_images_are_read_in_their_layout(workspaces):
    folder, _ = workspaces("dce_us")
    smoke = f"['{TRAIN}','bundles/common/smoke.json']"
    options = {"network_def": SMALL["network_def"], "dataset_dir": SHARED / "busi", "run_name": "busi"}
    run(folder, "training", smoke, **options)
    note = json.loads((folder / "runs/smoke/busi/run.json").read_text())
    assert note["facts"]["cases"] == 334 + 163  # those with a lesion

"""The INbreast bundle: what is its own."""

import copy
import json

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.utils import set_determinism
from PIL import Image
from scipy import ndimage

from pipelines import datasets, runs
from pipelines.bench_setup import experiment
from pipelines.datasets.contour_reader import ContourReader
from pipelines.scoring import read_cases
from tests.bundles.running import train
from tests.conftest import ROOT
from tests.pipelines.mammogram_files import PATIENT, write

TRAIN, INFERENCE = train("inbreast"), "bundles/inbreast/inference.json"
OPTIONS = ("normalize_side", "crop_breast", "keep_aspect")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inbreast")
    datasets.get("inbreast").phantom(folder, cases=5, seed=0, size=160, progress=False)
    return folder


def parsed(monkeypatch, *overlays, **options):
    monkeypatch.chdir(ROOT)
    parser = ConfigParser()
    parser.read_config([TRAIN, *(f"bundles/inbreast/experiments/{overlay}.json" for overlay in overlays)])
    parser.update({"device": "cpu", **options})
    return parser


def prepared(monkeypatch, case, *overlays, **options):
    return parsed(monkeypatch, *overlays, **options).get_parsed_content("preprocessing")(dict(case))


@pytest.mark.parametrize(
    ("overlay", "count"), [(None, 5_350_026), ("separable", 4_649_098), ("dense", 37_417_841)]
)
def test_the_networks_are_the_papers(monkeypatch, overlay, count):
    with torch.device("meta"):
        network = parsed(monkeypatch, *([overlay] if overlay else [])).get_parsed_content("network_def")
    assert sum(parameter.numel() for parameter in network.parameters()) == count


class Bright(torch.nn.Module):
    """A network of sorts: what is brighter than two thirds of an image's white is a lesion."""

    def __init__(self, in_channels=1, out_channels=1):
        super().__init__()

    def forward(self, image):
        return 60 * (image - 2 / 3)


HEIGHT, WIDTH = 260, 170


def mammogram(side, view):
    """Levels of 12 bits of a breast at its side, high up in an MLO view, with a lesion; and the lesion."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    middle = 0.5 if view == "CC" else 0.35
    image = 1500.0 * ((x / 120) ** 2 + ((y - middle * HEIGHT) / 90) ** 2 < 1) + (x + y) / 100
    lesion = np.zeros((HEIGHT, WIDTH), bool)
    lesion[int(middle * HEIGHT) - 60 : int(middle * HEIGHT) - 20, 12:40] = True  # up, near the chest
    image[lesion] = 3500
    if side == "R":
        image, lesion = image[:, ::-1], lesion[:, ::-1]
    return image.astype(np.uint16), lesion


@pytest.mark.parametrize("options", [(), OPTIONS, *((option,) for option in OPTIONS)], ids=str)
def test_masks_have_the_size_and_the_place_of_the_lesions(monkeypatch, tmp_path, capsys, options):
    (tmp_path / "in").mkdir()
    lesions, photometric = {}, {"L": "MONOCHROME2", "R": "MONOCHROME1"}
    for side in "LR":
        for view in ("CC", "MLO"):
            levels, lesions[side + view] = mammogram(side, view)
            # Without an ending, as hospitals send them.
            write(
                tmp_path / "in" / (side + view), levels, side=side, view=view, photometric=photometric[side]
            )
    monkeypatch.chdir(ROOT)
    parser = ConfigParser()
    parser.read_config(INFERENCE)
    settings = {option: option in options for option in OPTIONS}
    network = {"_target_": "tests.bundles.test_inbreast.Bright"}
    parser.update(
        {
            "dataset_dir": str(tmp_path / "in"),
            "output_dir": str(tmp_path / "out"),
            "trained_with": {**settings, "image_size": [192, 192], "target_labels": [1, 2]},
            "weights_file": "none.pt",
            "network_def": network,
            "device": "cpu",
        }
    )
    parser.get_parsed_content("evaluator").run()
    out = capsys.readouterr().out
    for name, lesion in lesions.items():
        with Image.open(tmp_path / f"out/{name}_mask.png") as picture:
            assert (picture.mode, picture.size) == ("L", (WIDTH, HEIGHT))
            mask = np.asarray(picture) == 255
        both = np.count_nonzero(mask & lesion)
        assert 2 * both / (mask.sum() + lesion.sum()) > 0.93, name
        # In a mirror, either way, it would lie elsewhere.
        assert not (mask & (lesion[:, ::-1] | lesion[::-1])).any()
        with Image.open(tmp_path / f"out/{name}_overlay.png") as picture:
            assert min(picture.size) > 200
    assert "% of the image segmented" in out
    assert not any(text in out for text in PATIENT.values())
    files = list((tmp_path / "out").iterdir())
    assert len(files) == 8
    assert not any(text.encode() in file.read_bytes() for file in files for text in PATIENT.values())


def bounds(mask):
    """Left, right, top and bottom of what is set."""
    places = np.argwhere(np.asarray(mask))
    return [int(edge) for axis in (0, 1) for edge in (places[:, axis].min(), places[:, axis].max())]


def test_the_geometry_is_the_one_that_is_chosen(monkeypatch, tmp_path):
    levels, _ = mammogram("R", "CC")
    case = {"image": str(write(tmp_path / "a.dcm", levels, side="R")), "case": "a"}
    size = {"image_size": [130, 130]}
    breasts = {
        overlay: bounds(prepared(monkeypatch, case, *overlay, **size)["image"][0] > 0.2)
        for overlay in ((), ("one_side",), ("aspect",), ("cropped",), ("geometry",))
    }
    # The breast is 120 of 170 columns wide and 180 of 260 rows high.
    assert breasts[()] == pytest.approx([130 * 50 / 170, 129, 20, 109], abs=2)
    assert breasts["one_side",] == pytest.approx([0, 130 * 120 / 170, 20, 109], abs=2)
    assert breasts["aspect",] == pytest.approx([25, 84, 20, 109], abs=2)
    assert breasts["cropped",] == pytest.approx([130 * 16 / 136, 129, 130 * 16 / 212, 130 * 196 / 212], abs=2)
    assert breasts["geometry",] == pytest.approx([0, 73, 10, 119], abs=3)


def test_the_cache_holds_what_is_prepared_in_more_than_8_bits(workspace, tmp_path, data):
    case = datasets.get("inbreast").index(data)[0]
    options = {"image_size": [128, 128], "cache_dir": str(tmp_path), "augmenting": []}
    options |= {"train#dataset#data": [case], "train#dataset#workers": 0}
    parser = experiment("inbreast", **options)
    slices = parser.get_parsed_content("train#dataset")
    direct = parser.get_parsed_content("preprocessing")(dict(case))
    assert slices.volumes.facts[0]["dtype"] == "float16"
    assert direct["image"].dtype == torch.float16
    assert torch.equal(slices[0]["image"], direct["image"].as_tensor().float())
    assert torch.equal(slices[0]["label"], direct["label"].as_tensor().float())
    assert len(slices[0]["image"].unique()) > 1000


def test_masses_and_calcifications_are_one_class_or_each_its_own(monkeypatch, data):
    cases = datasets.get("inbreast").index(data)
    drawn = {}
    for case in cases:
        for labels in ([1], [2], [1, 2]):
            reader = ContourReader(labels)
            drawn[case["case"], *labels] = reader.get_data(reader.read(case["label"]))[0] > 0
    # One in which a calcification lies on the mass, and one with both apart.
    on = next(case for case in cases if (drawn[case["case"], 1] & drawn[case["case"], 2]).any())
    apart = next(
        case
        for case in cases
        if not (drawn[case["case"], 1] & drawn[case["case"], 2]).any()
        and all(drawn[case["case"], label].any() for label in (1, 2))
    )
    for case in (on, apart):
        # At the image's own size nothing is resized, and the label is what was drawn.
        size = {"image_size": list(drawn[case["case"], 1].shape)}
        for overlay, labels in (((), [1, 2]), (("masses",), [1]), (("calcifications",), [2])):
            label = prepared(monkeypatch, case, *overlay, **size)["label"]
            assert np.array_equal(label[0].numpy() > 0, drawn[case["case"], *labels])


def test_no_lesion_vanishes_in_a_small_image(monkeypatch, data):
    for case in datasets.get("inbreast").index(data, normal=False):
        reader = ContourReader([2])
        lesions, count = ndimage.label(reader.get_data(reader.read(case["label"]))[0], np.ones((3, 3)))
        label = prepared(monkeypatch, case, "calcifications", image_size=[64, 64])["label"][0]
        places = np.argwhere(label.numpy() > 0) + 0.5
        for centre in ndimage.center_of_mass(lesions > 0, lesions, range(1, count + 1)):
            place = (np.array(centre) + 0.5) * 64 / lesions.shape
            assert np.abs(places - place).max(axis=1).min() < 2


NETWORK = {
    "_target_": "BasicUNet",
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 1,
    "features": [4, 4, 8, 8, 8, 4],
}


def trained(folder, data, **options):
    """Train an epoch on the first four images.

    Returns the losses of the steps, the weights before and after them, and the experiment.
    """
    cases = datasets.get("inbreast").index(data)[:4]
    set_determinism(0)
    settings = {"cache_dir": str(folder / "cache"), "image_size": [64, 64], "max_epochs": 1, "num_workers": 0}
    settings |= {"train#dataset#data": cases, "train#dataset#workers": 0, "train#handlers": []}
    parser = experiment("inbreast", **{"device": "cpu", "network_def": NETWORK, **settings, **options})
    chosen = [step for step in parser.get("initialize") if "checkpoint_activations" in str(step)]
    parser.update({"choose": chosen})
    parser.get_parsed_content("choose")
    trainer = parser.get_parsed_content("train#trainer")
    losses = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output["loss"].item())
    )
    start = copy.deepcopy(trainer.network.state_dict())
    trainer.run()
    set_determinism(None)
    return losses, start, trainer.network.state_dict(), parser


def test_four_images_one_by_one_take_the_step_of_a_batch_of_four(workspace, tmp_path, data):
    # Without BatchNorm, which would see one image or four.
    network = {**NETWORK, "norm": ["instance", {"affine": True}]}
    options = {"network_def": network, "optimizer#_target_": "torch.optim.SGD", "learning_rate": 0.1}
    whole, start, batch, _ = trained(tmp_path, data, batch_size=4, accumulate=1, **options)
    single, _, accumulated, _ = trained(tmp_path, data, batch_size=1, accumulate=4, **options)
    assert (len(whole), len(single)) == (1, 4)
    assert np.mean(single) == pytest.approx(whole[0], rel=1e-5)
    assert list(accumulated) == list(batch)
    for key, value in batch.items():
        torch.testing.assert_close(accumulated[key], value, atol=1e-6, rtol=1e-4)
    assert max(float((value - start[key]).abs().max()) for key, value in batch.items()) > 1e-4


def test_checkpointing_changes_neither_the_training_nor_the_weights_names(workspace, tmp_path, data):
    plain, _, weights, parser = trained(tmp_path, data)
    saving, _, others, saver = trained(tmp_path, data, checkpoint_activations="true")
    assert saving == pytest.approx(plain, rel=1e-5)
    assert list(others) == list(weights)
    for key, value in weights.items():
        torch.testing.assert_close(others[key], value)  # the norms' statistics too
    forwards = ["forward" in vars(one.get_parsed_content("network_def").conv_0) for one in (parser, saver)]
    assert forwards == [False, True]
    parser.get_parsed_content("network_def").load_state_dict(others)
    saver.get_parsed_content("network_def").load_state_dict(weights)
    assert "checkpoint_activations" in runs.MAY_CHANGE  # when a run goes on


def test_lesions_are_counted_against_false_alarms(evaluations):
    folder, out = evaluations("inbreast")
    made = folder / "runs/inbreast/a/evaluation"
    rows = read_cases(made / "cases.csv")
    cases = {case["case"]: case for case in datasets.get("inbreast").index(folder / "data/inbreast")}
    expected = {}
    for kind, labels in (("mass", [1]), ("calcification", [2])):
        reader = ContourReader(labels)
        masks = [reader.get_data(reader.read(cases[row["case"]]["label"]))[0] > 0 for row in rows]
        expected[kind] = sum(ndimage.label(mask, np.ones((3, 3)))[1] for mask in masks)
    assert min(expected.values()) > 0
    for kind, plural in (("mass", "masses"), ("calcification", "calcifications")):
        assert f"false an image, {plural}: " in out
        assert f"({expected[kind]} in {len(rows)} images, detections above 0.1)" in out
    assert (made / "froc.png").is_file()
    lines = (made / "froc.csv").read_text().splitlines()
    assert lines[0] == "lesions,threshold,false_per_image,sensitivity"
    assert "Lesions found against false detections" in (made / "report.md").read_text()
    assert {"all", "mass", "calcification"} == {line.split(",")[0] for line in lines[1:]}


def test_scores_are_in_pixels_of_the_mammogram_and_of_the_grid(evaluations):
    folder, out = evaluations("inbreast")
    made = folder / "runs/inbreast/a"
    assert "HD95 (pixels)" in out
    rows, grid = (read_cases(made / f"evaluation/{name}.csv") for name in ("cases", "cases_on_grid"))
    cases = {case["case"]: case for case in datasets.get("inbreast").index(folder / "data/inbreast")}
    for row, small in zip(rows, grid, strict=True):
        reader = ContourReader([1, 2])
        mask = reader.get_data(reader.read(cases[row["case"]]["label"]))[0] > 0
        assert row["true_positive"] + row["false_negative"] == row["truth_area"] == mask.sum()
        assert small["true_positive"] + small["false_negative"] <= 32 * 32
        assert bool(small["truth_area"]) == bool(row["truth_area"])
    patients = json.loads((made / "split.json").read_text())["folds"]
    for name, fold in (("evaluation/cases", 0), ("cases", 1)):
        found = {cases[row["case"]]["patient"] for row in read_cases(made / f"{name}.csv")}
        assert found == set(patients[fold])

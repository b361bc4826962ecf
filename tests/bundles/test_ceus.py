"""The CEUS bundle: what is its own, by the commands that its users type."""

import json

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from pipelines import datasets
from pipelines.clips import read_clip
from pipelines.datasets.ceus_writers import IDENTITY
from pipelines.scoring import read_cases
from tests.bundles.running import for_inference, noisy_weights, run, small, train
from tests.conftest import ROOT, SHARED

SMALL, TRAIN = small("ceus"), train("ceus")
INFERENCE = "bundles/ceus/inference.json"


def test_each_key_frame_is_a_case_scored_in_the_frames_own_pixels(evaluations):
    folder, out = evaluations("ceus")
    assert "HD95 (pixels)" in out
    made = folder / "runs/ceus/a"
    held_out = json.loads((made / "split.json").read_text())["folds"][0]
    cases = {
        case["case"]: case
        for case in datasets.get("ceus").index(folder / "data/ceus", frames_dir=folder / "f")
    }
    rows = read_cases(made / "evaluation/cases.csv")
    assert [row["case"] for row in rows] == [
        name for name, case in cases.items() if case["patient"] in held_out
    ]
    for row in rows:
        with Image.open(cases[row["case"]]["label"]) as mask:
            assert row["truth_area"] == np.count_nonzero(np.asarray(mask.convert("L")))


def parsed(monkeypatch, *overlays):
    monkeypatch.chdir(ROOT)
    parser = ConfigParser()
    parser.read_config([TRAIN, *(f"bundles/ceus/experiments/{overlay}.json" for overlay in overlays)])
    parser.update({"device": "cpu"})
    return parser


@pytest.mark.parametrize(
    ("overlay", "parameters", "channels"),
    [
        (None, 9_281_025, 2),
        ("ablation_1_ceus", 4_580_993, 1),
        ("ablation_2_us", 4_580_993, 1),
        ("ablation_3_both", 7_407_105, 2),
        ("ablation_4_csa", 7_718_401, 2),
        ("ablation_5_cff", 8_969_729, 2),
        ("dual_unet", 7_181_697, 2),
    ],
)
def test_each_part_of_the_ablation_is_another_network(monkeypatch, overlay, parameters, channels):
    parser = parsed(monkeypatch, *([overlay] if overlay else []))
    network = parser.get_parsed_content("network_def")
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert parser.get_parsed_content("input_shape")[0] == network.image_channels == channels


def test_either_image_alone_is_the_one_that_both_together_have(monkeypatch, workspaces):
    folder, _ = workspaces("ceus")
    case = datasets.get("ceus").index(folder / "data/ceus", frames_dir=folder / "f")[0]
    both, ceus, us = (
        parsed(monkeypatch, *overlay).get_parsed_content("preprocessing")(dict(case))["image"]
        for overlay in ([], ["ablation_1_ceus"], ["ablation_2_us"])
    )
    assert torch.equal(both.as_tensor(), torch.cat([ceus.as_tensor(), us.as_tensor()]))
    assert not torch.equal(ceus.as_tensor(), us.as_tensor())


@pytest.fixture(scope="module")
def noisy(workspaces):
    folder, _ = workspaces("ceus")
    noisy_weights(folder, "ceus")
    return folder


def infer(folder, source, name, expect=0):
    options = {**for_inference("ceus"), "checkpoint": folder / "noisy.pt"}
    out = run(folder, "inferring", INFERENCE, expect, dataset_dir=source, output_dir=name, **options)
    return out, {path.name: path for path in (folder / name).glob("*.png")}


def test_pictures_and_clips_give_a_mask_on_the_contrast_panel_alone(noisy):
    folder = noisy
    cases = datasets.get("ceus").index(folder / "data/ceus", frames_dir=folder / "f")
    patients = {case["patient"]: case["panels"] for case in cases}
    sources = {"P001": "IM_0001", "P002": "bolus.mp4", "P003": "clip.dcm"}  # DICOM, a video, a DICOM file
    for patient, name in sources.items():
        clip = folder / "data/ceus" / patient / name
        height, width = next(iter(read_clip(clip))).image.shape[:2]
        out, files = infer(folder, clip, f"out-{patient}")
        found = [path for file, path in files.items() if file.endswith("_mask.png")]
        assert len(found) == 2
        top, left, rows, columns = patients[patient]["contrast"]
        for path in found:
            assert path.with_name(path.name.replace("_mask", "_overlay")).is_file()
            with Image.open(path) as image:
                mask = np.asarray(image)
            assert mask.shape == (height, width)
            assert mask[top : top + rows, left : left + columns].any()
            mask = mask.copy()
            mask[top : top + rows, left : left + columns] = 0
            assert not mask.any()
        for text in IDENTITY.values():
            assert str(text) not in out
            assert not any(str(text).encode() in path.read_bytes() for path in files.values())


def test_panels_that_are_not_found_are_asked_for(noisy):
    folder = noisy
    (folder / "unsure").mkdir()
    grey = np.random.default_rng(0).integers(0, 255, (90, 120), dtype=np.uint8)
    Image.fromarray(grey).save(folder / "unsure/a.png")
    out, files = infer(folder, "unsure", "out-unsure", expect=1)
    line = next(line for line in out.splitlines() if line.startswith("featherseg: "))
    assert "a.png" in line
    assert "give both in panels.json" in line
    assert "Traceback" not in out
    assert not files
    boxes = {"contrast": [10, 0, 70, 55], "bmode": [10, 60, 70, 55]}
    (folder / "unsure/panels.json").write_text(json.dumps(boxes))
    _, files = infer(folder, "unsure", "out-unsure")
    assert sorted(files) == ["a_mask.png", "a_overlay.png"]


@pytest.mark.skipif(not (SHARED / "ceus").is_dir(), reason="no real ultrasound in ../shared/data/ceus")
def test_a_real_frame_is_segmented_where_its_contrast_panel_is(noisy):
    _, files = infer(noisy, SHARED / "ceus/dual_panel.png", "real")
    with Image.open(files["dual_panel_mask.png"]) as mask:
        assert mask.size == (729, 350)
        assert np.asarray(mask)[:, :364].any()
        assert not np.asarray(mask)[:, 364:].any()

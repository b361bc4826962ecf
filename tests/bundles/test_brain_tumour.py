"""The brain tumour bundle: what is its own."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.transforms import Compose, Spacingd
from monai.utils import set_determinism

from pipelines import datasets
from pipelines.bench_setup import experiment
from pipelines.cases import load_case
from pipelines.errors import causes
from tests.bundles.running import noisy_weights, runs_of
from tests.conftest import ROOT, SHARED

WHITENING = {"mean": [0.0] * 4, "matrix": np.eye(4).tolist()}
CODINGS = ("msd", "brats", "brats2023")
SMALL = {"image_size": [32, 32], "device": "cpu"}
# Finds what is bright in FLAIR, as edema and most of a tumour are.
BRIGHT = {"_target_": "torch.nn.Conv2d", "in_channels": 4, "out_channels": 1, "kernel_size": 1}


@pytest.fixture
def here(monkeypatch):
    monkeypatch.chdir(ROOT)


def parsed(*overlays, **options):
    return experiment(
        "brain_tumour",
        [f"bundles/brain_tumour/experiments/{overlay}.json" for overlay in overlays],
        **{"device": "cpu", **options},
    )


# Of NETWORKS.md.
NETWORKS = {
    None: 8_505_601,
    "attention": 8_493_389,
    "nas": 8_534_593,
    "nas_reduction": 8_470_759,
    "efficient": 8_489_391,
}


@pytest.mark.parametrize("overlay", NETWORKS)
def test_each_architecture_has_the_size_of_the_paper(here, overlay):
    parser = parsed(*filter(None, [overlay]))
    network = parser.get_parsed_content("network_def")
    assert sum(parameter.numel() for parameter in network.parameters()) == NETWORKS[overlay]
    offset = parser.get_parsed_content("intensity_offset")
    # The cells of NASNet begin with a ReLU, which would hide what is below the mean.
    assert (offset > 0) == str(overlay).startswith("nas")


def expected_losses(logits, truth):
    """By formulas written out, over the pixels of all slices of the batch."""
    p, t = 1 / (1 + np.exp(-logits.double().numpy())), truth.double().numpy()
    both, missed, invented = (p * t).sum(), ((1 - p) * t).sum(), (p * (1 - t)).sum()
    return {
        None: 1 - 2 * both / (p.sum() + t.sum()),
        "loss_dice_squared": 1 - 2 * both / ((p**2).sum() + (t**2).sum()),
        "loss_bce": -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean(),
        # Abraham and Khan (2019): alpha 0.7 on what is missed, gamma 4/3.
        "loss_focal_tversky": (1 - both / (both + 0.7 * missed + 0.3 * invented)) ** (3 / 4),
    }


@pytest.mark.parametrize("overlay", [None, "loss_dice_squared", "loss_bce", "loss_focal_tversky"])
def test_each_loss_is_that_of_its_formula(here, overlay):
    loss = parsed(*filter(None, [overlay])).get_parsed_content("loss")
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 1, 12, 13, generator=random)
    truth = (torch.rand(5, 1, 12, 13, generator=random) < 0.3).float()
    truth[1:3] = 0  # slices without a tumour
    expected = expected_losses(logits, truth)
    assert float(loss(logits, truth)) == pytest.approx(expected[overlay], abs=1e-5)
    assert len({round(value, 3) for value in expected.values()}) == 4
    # Nothing breaks where a batch is segmented perfectly.
    perfect = (truth * 200 - 100).requires_grad_()
    loss(perfect, truth).backward()
    assert torch.isfinite(perfect.grad).all()


@pytest.mark.parametrize(
    ("overlay", "labels"),
    [
        (None, [1, 2, 3]),
        ("class_edema", [1]),
        ("class_non_enhancing", [2]),
        ("class_enhancing", [3]),
        ("region_core", [2, 3]),
        ("region_enhancing", [3]),
    ],
)
def test_each_class_and_region_is_of_the_labels_it_names(here, tmp_path, overlay, labels):
    data = tmp_path / "data"
    datasets.get("brain_tumour").phantom(data, cases=1, size=48, progress=False)
    parser = parsed(*filter(None, [overlay]), dataset_dir=str(data))
    case = parser.get_parsed_content("cases")[0]
    loading = Compose(parser.get_parsed_content("loading"))
    mask = np.asarray(load_case(dict(case), loading)["label"][0])
    assert np.array_equal(mask, np.isin(np.asarray(nib.load(case["label"]).dataobj), labels))
    assert mask.any()


def scored(data, coding, **options):
    """The regions of all cases and, of a network with random weights, the scores."""
    set_determinism(0)
    parser = parsed(
        dataset_dir=str(data),
        cache_dir=str(data / "cache"),
        label_coding=coding,
        whitening=WHITENING,
        **{**SMALL, "network_def": {**BRIGHT}, "validate#dataset#data": "$@cases", "validate#handlers": []},
        **options,
    )
    evaluator = parser.get_parsed_content("validate#evaluator")
    masks = []
    evaluator.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: masks.append(np.asarray(engine.state.batch[0]["label"])),
    )
    evaluator.run()
    set_determinism(None)
    return masks, evaluator.state.metrics


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """The same cases, four files each, in folders by the coding of their masks."""
    folder = tmp_path_factory.mktemp("raw")
    for coding in CODINGS:
        options = {"layout": "raw", "coding": coding, "progress": False}
        datasets.get("brain_tumour").phantom(folder / coding, cases=2, size=48, **options)
    return folder


@pytest.mark.parametrize("targets", [[1, 2, 3], [2, 3], [3]])
def test_labels_of_any_coding_end_in_the_same_regions_and_scores(here, raw, targets):
    found = {coding: scored(raw / coding, coding, target_labels=targets) for coding in CODINGS}
    masks, metrics = found["msd"]
    assert all(mask.any() for mask in masks)
    assert 0 < metrics["val_slice_iou"] < 1
    for coding in ("brats", "brats2023"):
        assert all(np.array_equal(*pair) for pair in zip(found[coding][0], masks, strict=True))
        assert found[coding][1] == metrics


def test_a_wrong_coding_is_refused_where_a_label_tells_it(here, raw):
    with pytest.raises(RuntimeError) as error:
        scored(raw / "brats", "msd")
    said = [str(cause) for cause in causes(error.value)]
    assert any("expected labels {0, 1, 2, 3}, found [0.0, 1.0, 2.0, 4.0]" in text for text in said)


def test_the_decathlons_images_are_cropped_and_rounded_but_never_resampled(here, tmp_path):
    random = np.random.default_rng(0)
    image = random.integers(0, 900, (240, 240, 5, 4)).astype(np.int16)
    image[:30], image[..., 1] = 0, image[..., 1] // 3 * 4
    files = {key: str(tmp_path / f"{key}.nii.gz") for key in ("image", "label")}
    affine = np.diag([-1.0, -1, 1, 1])
    affine[1, 3] = 239
    nib.save(nib.Nifti1Image(image, affine), files["image"])
    nib.save(nib.Nifti1Image((image[..., 0] > 700).astype(np.uint8), affine), files["label"])
    parser = parsed(cases=[])
    chain = parser.get_parsed_content("preprocessing")
    prepared = chain({"case": "a", "label_coding": "msd", **files})
    assert prepared["image"].shape == (4, 144, 144, 5)
    without = Compose([one for one in chain.flatten().transforms if not isinstance(one, Spacingd)])
    assert len(without.transforms) == len(chain.flatten().transforms) - 1
    same = without({"case": "a", "label_coding": "msd", **files})
    assert all(torch.equal(prepared[key], same[key]) for key in ("image", "label"))
    # What it is, by NumPy: in RAS the first two axes are turned round.
    ras = image[::-1, ::-1].astype(float)
    for channel in range(4):
        inside = ras[..., channel][ras[..., channel] != 0]
        expected = np.where(
            ras[..., channel] != 0, (ras[..., channel] - inside.mean()) / inside.std(), 0
        ).astype(np.float16)[48:192, 48:192]
        found = np.asarray(prepared["image"][channel])
        assert np.array_equal(found, found.astype(np.float16))
        assert np.allclose(found, expected, atol=2e-3)
    assert np.array_equal(prepared["label"][0], ras[48:192, 48:192, :, 0] > 700)


def test_the_whitening_of_a_run_is_that_of_its_training_patients(workspaces, monkeypatch):
    folder, _ = workspaces("brain_tumour")
    monkeypatch.chdir(folder)
    run = json.loads((folder / "runs/brain_tumour/a/run.json").read_text())
    folds = json.loads((folder / "runs/brain_tumour/a/split.json").read_text())["folds"]
    parser = parsed(**SMALL)
    chain = parser.get_parsed_content("preprocessing")
    pixels = {True: [], False: []}
    for case in parser.get_parsed_content("cases"):
        image = np.asarray(load_case(dict(case), chain)["image"], float).reshape(4, -1)
        pixels[case["patient"] in folds[2]].append(image[:, (image != 0).any(axis=0)])
    assert len(pixels[True]) == 2 and len(pixels[False]) == 4
    found = run["model_settings"]["whitening"]
    matrix = np.array(found["matrix"])
    for training, patients in pixels.items():
        brain = np.concatenate(patients, axis=1)
        covariance = matrix @ np.cov(brain, bias=True) @ matrix.T
        assert np.allclose(covariance, np.eye(4), atol=1e-4) == training
        assert np.allclose(found["mean"], brain.mean(axis=1), atol=1e-5) == training
    # Inference takes it from the checkpoint, and so does config.json, wherever it is read.
    assert inference(run_name="a").get_parsed_content("whitening") == found
    config = json.loads((folder / "runs/brain_tumour/a/config.json").read_text())
    assert config["whitening"] == found


def test_the_epoch_kept_is_the_best_over_slices(workspaces, evaluations):
    folder, out = evaluations("brain_tumour")
    client, found = runs_of(folder, "brain_tumour")
    history = client.get_metric_history(found["a"].info.run_id, "val_slice_iou")
    values = {metric.step: metric.value for metric in history}
    kept = torch.load(folder / "runs/brain_tumour/a/last.pt", weights_only=True)["best"]
    assert kept == {"metric": max(values.values()), "epoch": max(values, key=values.get)}
    metrics = found["a"].data.metrics
    for name in ("test_slice_iou", "test_slice_dice", "test_grid_slice_iou", "test_grid_slice_dice"):
        assert 0 < metrics[name] <= 1
    held_out = json.loads((folder / "runs/brain_tumour/a/split.json").read_text())["folds"][0]
    assert metrics["test_slices"] == metrics["test_grid_slices"] == 28 * len(held_out)
    assert "Slice by slice: Dice" in out and "Slice by slice, on the network's grid: Dice" in out


def test_cells_see_what_lies_below_the_mean(workspaces, monkeypatch):
    folder, _ = workspaces("brain_tumour")
    monkeypatch.chdir(folder)
    plain, shifted = (
        parsed(*overlay, **SMALL, num_folds=3, **{"train#dataset#workers": 0}).get_parsed_content(
            "train#dataset"
        )
        for overlay in ([], ["nas"])
    )
    for number in (5, 14):
        before, after = (dataset[number]["image"] for dataset in (plain, shifted))
        assert before.min() < -1
        assert after.min() > 0
        assert torch.allclose(after, before + 5, atol=1e-5)


def inference(**options):
    parser = ConfigParser()
    parser.read_config("bundles/brain_tumour/inference.json")
    parser.resolve_macro_and_relative_ids()
    parser.update({"device": "cpu", **options})
    return parser


@pytest.fixture
def bright(workspaces, monkeypatch):
    """A workspace, and options with which inference finds what is bright in FLAIR."""
    folder, _ = workspaces("brain_tumour")
    monkeypatch.chdir(folder)
    weights = torch.zeros(1, 4, 1, 1)
    weights[0, 0] = 1
    torch.save({"weight": weights, "bias": torch.tensor([-1.0])}, folder / "bright.pt")
    options = {"network_def": BRIGHT, "checkpoint": str(folder / "bright.pt"), "whitening": WHITENING}
    return folder, options


def infer(source, out, **options):
    parser = inference(dataset_dir=str(source), output_dir=str(out), **options)
    parser.get_parsed_content("initialize")
    parser.get_parsed_content("run")
    return sorted(out.glob("*.nii.gz"))


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_an_image_in_eight_orientations_gives_one_mask_over_the_tumour(bright):
    folder, options = bright
    case = datasets.get("brain_tumour").index(folder / "data/brain_tumour")[2]  # a tumour on one side
    source = nib.as_closest_canonical(nib.load(case["image"]))
    truth = np.asarray(nib.as_closest_canonical(nib.load(case["label"])).dataobj) > 0
    (folder / "turned").mkdir(exist_ok=True)
    orientations = ["RAS", "LAS", "RPS", "LPI", "RAI", "SAR", "PSL", "IRP"]
    for codes in orientations:
        turn = nib.orientations.ornt_transform(
            nib.io_orientation(source.affine), nib.orientations.axcodes2ornt(codes)
        )
        nib.save(source.as_reoriented(turn), folder / "turned" / f"{codes}.nii.gz")
    masks = infer(folder / "turned", folder / "turned-masks", **options)
    assert [mask.name for mask in masks] == sorted(f"{codes}_mask.nii.gz" for codes in orientations)
    canonical = []
    for mask in masks:
        image = nib.load(folder / "turned" / mask.name.replace("_mask", ""))
        found = nib.load(mask)
        assert found.shape == image.shape[:3]
        assert np.array_equal(found.affine, image.affine)
        assert nib.aff2axcodes(found.affine) == tuple(mask.name[:3])
        canonical.append(np.asarray(nib.as_closest_canonical(found).dataobj).astype(bool))
    # Edema and some of the brain's folds are bright, but nowhere is it as bright as where the tumour is.
    assert dice(canonical[0], truth) > 0.45
    for axis in range(3):
        assert dice(np.flip(canonical[0], axis), truth) < 0.25
    for other in canonical[1:]:
        assert np.array_equal(canonical[0], other)


@pytest.mark.skipif(not (SHARED / "mr_tcga").is_dir(), reason="no real MRI in ../shared/data/mr_tcga")
def test_a_real_examination_of_four_files_gives_a_mask_on_the_grid_of_t1gd(bright, capsys):
    folder, options = bright
    masks = infer(SHARED / "mr_tcga", folder / "real", **options)
    assert [mask.name for mask in masks] == ["examination_mask.nii.gz"]
    said = capsys.readouterr()
    assert "registered by header only: FLAIR 208x256x26, T2w 224x256x26 -> T1gd 256x224x26" in (
        said.out + said.err
    )
    image = sitk.ReadImage(str(SHARED / "mr_tcga/TCGA-FG-6692_t1gd.nii.gz"))
    mask = sitk.ReadImage(str(masks[0]))
    assert mask.GetSize() == image.GetSize()
    for get in ("GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(mask, get)() == pytest.approx(getattr(image, get)(), abs=1e-4)
    assert 0 < sitk.GetArrayFromImage(mask).mean() < 0.5
    assert (folder / "real/examination_mask.png").is_file()


def test_weights_without_their_whitening_are_refused_and_those_of_a_run_bring_it(bright):
    folder, options = bright
    with pytest.raises(RuntimeError) as error:
        inference(
            **{**options, "whitening": "$whitening.recorded(@trained_with, @weights_file)"}
        ).get_parsed_content("normalizing")
    assert any("found none; give a model.pt in the folder of its run" in str(c) for c in causes(error.value))
    # Weights beside the record of a run need nothing else.
    shutil.copytree(folder / "runs/brain_tumour/a", folder / "kept", dirs_exist_ok=True)
    shutil.move(noisy_weights(folder, "brain_tumour"), folder / "kept/model.pt")
    data = datasets.get("brain_tumour").index(folder / "data/brain_tumour")[0]["image"]
    masks = infer(data, folder / "kept-masks", checkpoint=str(folder / "kept/model.pt"))
    assert 0.01 < np.asarray(nib.load(masks[0]).dataobj).mean() < 0.99
    # So do those of a network of cells, whose images are raised.
    note = json.loads((folder / "kept/run.json").read_text())
    note["model_settings"]["intensity_offset"] = 5
    (folder / "kept/run.json").write_text(json.dumps(note))
    chain = inference(checkpoint=str(folder / "kept/model.pt")).get_parsed_content("normalizing")
    image = torch.zeros(4, 8, 8)
    assert (Compose(chain)({"image": image})["image"] == 5).all()

"""The LiTS bundle from end to end, by the commands that its users type."""

import json
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from pipelines import datasets
from pipelines.scoring import read_cases
from tests.bundles.running import SMALL, TRAIN, environment, noisy_weights, run, runs_of
from tests.conftest import SHARED


@pytest.fixture(scope="module")
def trained(workspaces):
    """A workspace with a phantom and a run of two epochs by the main command."""
    return workspaces("lits")


def test_volumes_are_scored_in_their_own_geometry(evaluations):
    folder, _ = evaluations("lits")
    rows = read_cases(folder / "runs/lits/a/evaluation/cases.csv")
    held_out = json.loads((folder / "runs/lits/a/split.json").read_text())["folds"][0]
    assert sorted(row["case"].split("-")[1] for row in rows) == sorted(held_out)
    truth = {case["case"]: case["label"] for case in datasets.get("lits").index(folder / "data/lits")}
    for row in rows:  # as many voxels as the file has, so on its own grid
        image = sitk.ReadImage(truth[row["case"]])
        voxels = int((sitk.GetArrayFromImage(image) == 2).sum())
        assert row["true_positive"] + row["false_negative"] == voxels
        assert row["truth_volume_ml"] == pytest.approx(voxels * np.prod(image.GetSpacing()) / 1000, rel=1e-5)


def test_a_fixed_threshold_is_scored_on_the_same_volumes(evaluations):
    folder, _ = evaluations("lits")
    words = [sys.executable, "-m", "pipelines.cli", "baseline", "runs/lits/a"]
    done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mean ± std. dev.") == 2
    network, fixed = (
        {row["case"]: row["lesions"] for row in read_cases(folder / f"runs/lits/a/evaluation/{name}.csv")}
        for name in ("cases", "baseline")
    )
    assert network == fixed


def test_another_network_trains_with_its_own_arguments(trained):
    folder, _ = trained
    config = f"['{TRAIN}','bundles/common/smoke.json']"
    other = {"network_def#_target_": "networks.LighterUNet", "network_def#group_size": 16}
    run(folder, "training", config, run_name="lighter", num_folds=3, **other)
    weights = torch.load(folder / "runs/smoke/lighter/model.pt", weights_only=True)
    assert sum(w.numel() for n, w in weights.items() if n.endswith(("weight", "bias"))) == 2_700_555


def test_a_network_for_other_images_is_refused(trained):
    folder, _ = trained
    config = f"['{TRAIN}','bundles/common/smoke.json']"
    other = {"network_def#_target_": "networks.CEUSegNet"}
    out = run(folder, "training", config, expect=1, run_name="ceus", num_folds=3, **other)
    assert "featherseg: expected a network for images of 1 channel, found CEUSegNet for 2" in out
    assert "Traceback" not in out


def infer(folder, source, name="masks", **options):
    out = run(
        folder,
        "inferring",
        "bundles/lits/inference.json",
        dataset_dir=source,
        output_dir=folder / name,
        **{key: SMALL[key] for key in ("network_def", "image_size", "batch_size")},
        **options,
    )
    return out, sorted((folder / name).glob("*.nii.gz"))


@pytest.fixture(scope="module")
def noisy(trained):
    folder, _ = trained
    return folder, {"checkpoint": noisy_weights(folder, "lits")}


def same_grid(image, mask):
    """SimpleITK as an independent reader."""
    image, mask = (one if isinstance(one, sitk.Image) else sitk.ReadImage(str(one)) for one in (image, mask))
    assert image.GetSize() == mask.GetSize()
    for get in ("GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(mask, get)() == pytest.approx(getattr(image, get)(), abs=1e-4)
    return sitk.GetArrayFromImage(mask)


def test_a_volume_in_eight_orientations_gives_one_mask_in_the_world(noisy):
    folder, options = noisy
    source = nib.load(datasets.get("lits").index(folder / "data/lits")[0]["image"])
    source = nib.as_closest_canonical(source)
    (folder / "turned").mkdir()
    orientations = ["RAS", "LAS", "RPS", "LPI", "RAI", "SAR", "PSL", "IRP"]
    for codes in orientations:
        turn = nib.orientations.ornt_transform(
            nib.io_orientation(source.affine), nib.orientations.axcodes2ornt(codes)
        )
        nib.save(source.as_reoriented(turn), folder / "turned" / f"{codes}.nii.gz")
    _, masks = infer(folder, folder / "turned", "turned-masks", **options)
    assert [mask.name for mask in masks] == sorted(f"{codes}_mask.nii.gz" for codes in orientations)
    canonical = []
    for mask in masks:
        image = folder / "turned" / mask.name.replace("_mask", "")
        same_grid(image, mask)
        assert nib.aff2axcodes(nib.load(mask).affine) == tuple(mask.name[:3])
        canonical.append(np.asarray(nib.as_closest_canonical(nib.load(mask)).dataobj))
    assert 0.01 < canonical[0].mean() < 0.99
    for other in canonical[1:]:
        assert np.array_equal(canonical[0], other)


@pytest.mark.skipif(not (SHARED / "ct").is_dir(), reason="no real CT in ../shared/data/ct")
def test_real_ct_gives_masks_on_its_own_grid(noisy):
    folder, options = noisy
    volume = SHARED / "ct/example_ct_sm.nii.gz"
    out, masks = infer(folder, volume, "real", **options)
    assert "noisy.pt" in out
    assert same_grid(volume, masks[0]).any()
    series = SHARED / "ct/dicom_series"
    _, masks = infer(folder, series, "real", **options)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    assert same_grid(reader.Execute(), folder / "real/series_mask.nii.gz").any()
    assert (folder / "real/series_mask.png").is_file()
    assert len(masks) == 2


def broken_case(folder, number, change):
    """A copy of the phantom in which one volume's file is changed."""
    shutil.copytree(folder / "data/lits", folder / f"data/broken-{number}", dirs_exist_ok=True)
    case = datasets.get("lits").index(folder / f"data/broken-{number}")[0]
    change(case)
    return folder / f"data/broken-{number}"


def cut(case):
    with open(case["image"], "r+b") as file:
        file.truncate(3000)


def rewrite(key, change):
    def rewriting(case):
        image = nib.load(case[key])
        array = change(np.asarray(image.dataobj))
        nib.save(nib.Nifti1Image(array, image.affine), case[key])

    return rewriting


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (0, cut, "expected a whole image file, found one that cannot be read"),
        (1, rewrite("label", lambda a: a[:-1]), "expected the shape of its image"),
        (2, rewrite("label", lambda a: (a > 0).astype(np.uint8) * 255), "found [0.0, 255.0]"),
        (3, rewrite("image", lambda a: np.full(a.shape, np.nan, np.float32)), "NaN or infinite voxels"),
        (4, rewrite("image", lambda a: a[:, :, 0]), "expected one 3D volume, found an array of shape (1, "),
    ],
)
def test_bad_files_end_in_one_line_that_names_them(trained, number, change, message):
    folder, _ = trained
    data = broken_case(folder, number, change)
    options = {**SMALL, "num_folds": 3, "dataset_dir": data, "cache_dir": folder / f"cache-{number}"}
    out = run(folder, "training", TRAIN, expect=1, run_name=f"broken-{number}", **options)
    line = next(line for line in out.splitlines() if line.startswith("featherseg: "))
    assert message in line
    assert str(data) in line
    assert "Traceback" not in out
    assert not (folder / f"runs/lits/broken-{number}").exists()


def test_no_data_and_an_unknown_fold_end_in_one_line(trained):
    folder, _ = trained
    out = run(folder, "training", TRAIN, expect=1, dataset_dir="data/none", **SMALL)
    assert "featherseg phantom lits" in out
    assert "data/none" in out
    assert "Traceback" not in out
    out = run(folder, "training", TRAIN, expect=1, fold=9, num_folds=3, **SMALL)
    assert "featherseg: expected a fold from 0 to 2, found 9" in out


def test_training_goes_on_without_its_tracking_server_and_loses_nothing(trained):
    folder, _ = trained
    out = run(
        folder,
        "training",
        TRAIN,
        run_name="alone",
        max_epochs=1,
        num_folds=3,
        env={"MLFLOW_TRACKING_URI": "http://127.0.0.1:1"},
        **SMALL,
    )
    assert "training goes on" in out
    assert (folder / "runs/lits/alone/model.pt").is_file()
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "track", "runs/lits/alone"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, found = runs_of(folder, "lits")
    one = found["alone"]
    assert one.info.status == "FINISHED"
    assert "val_dice" in one.data.metrics

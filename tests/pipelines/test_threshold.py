from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from medpy.metric.binary import dc
from monai.bundle import ConfigParser
from PIL import Image

from pipelines import datasets
from pipelines.datasets.dce_us import LEVELS as GREY
from pipelines.datasets.lits import LEVELS as HU
from pipelines.datasets.reading import Levels
from pipelines.errors import DataError
from pipelines.files import write_json
from pipelines.folds import write_split
from pipelines.scoring import score_case, summarize, write_cases
from pipelines.threshold import band_rows, beside_run, best_band, fixed_threshold
from tests.conftest import SHARED

CT = SHARED / "ct" / "example_ct_sm.nii.gz"


def volume(seed: int, lesion: bool = True, dtype: type = np.int16) -> tuple[np.ndarray, np.ndarray]:
    """Noise about 100 HU, air below the window, bone above it, and a darker lesion."""
    rng = np.random.default_rng(seed)
    hu = rng.normal(100, 40, (6, 5, 4))
    hu[0], hu[1] = -1024, 900
    truth = np.zeros(hu.shape, bool)
    if lesion:
        truth[2:4, 1:4, 1:3] = True
        hu[truth] = rng.normal(60, 15, truth.sum())
    return hu.astype(dtype), truth


def brute_force(volumes, first: int, last: int) -> tuple[float, list[tuple[int, int]]]:
    """The best mean Dice, and every band that has it: all from the first to the last tried one by one."""
    means = {}
    for lowest in range(first, last + 1):
        for highest in range(lowest, last + 1):
            total = 0.0
            for hu, truth in volumes:
                within = (hu >= lowest) & (hu <= highest)
                size = within.sum() + truth.sum()
                total += 2 * within[truth].sum() / size if size else 1.0
            means[lowest, highest] = total / len(volumes)
    best = max(means.values())
    return best, [band for band, mean in means.items() if mean == pytest.approx(best, abs=1e-12)]


def grey(seed: int, lesion: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The same as a picture of 8 bits."""
    values, truth = volume(seed, lesion)
    return np.clip(values, 0, 255).astype(np.uint8)[..., 0], truth[..., 1]


@pytest.mark.parametrize(
    ("make", "levels", "first", "last"),
    [
        (volume, HU, -100, 200),
        (lambda *options: volume(*options, dtype=np.float32), HU, -100, 200),
        (grey, GREY, 0, 255),
    ],
    ids=["integers", "floats", "grey levels"],
)
def test_equals_brute_force(make, levels, first, last):
    volumes = [make(0), make(1, False), make(2)]
    best, bands = brute_force(volumes, first, last)
    band = best_band(iter(volumes), levels)
    assert band == bands[0]
    masks = [((hu >= band[0]) & (hu <= band[1]), truth) for hu, truth in volumes]
    dice = [dc(within, truth) if truth.any() else float(not within.any()) for within, truth in masks]
    assert best == pytest.approx(np.mean(dice))


def test_ends_belong_to_the_band_and_a_fraction_is_outside():
    hu = np.array([[9.5, 10, 10.5, 12], [12.5, 150, -500, 800]])
    assert best_band([(hu, (hu >= 10) & (hu <= 12))], HU) == (10, 12)
    assert best_band([(hu, hu == 12.5)], HU) == (11, 13)  # as good as (12, 13): both hold 12 and 12.5
    # The ends of the levels are within them, and what lies beyond is in no band.
    hu = np.array([[-101, -100, 0, 200, 201]])
    assert best_band([(hu, hu == -100)], HU) == (-100, -100)
    assert best_band([(hu, hu == 200)], HU) == (1, 200)
    assert best_band([(hu, hu == 0)], Levels("HU", 0, 200)) == (0, 0)


def test_a_case_without_lesion_pulls_the_band_to_where_it_has_no_voxel():
    hu = np.array([[50, 50, 50, 70, 70, 300]])
    lesion = np.array([[1, 1, 1, 1, 1, 0]], bool)
    healthy = np.array([[50, 50, 300, 300, 300, 300]])
    assert best_band([(hu, lesion)], HU) == (-100, 70)
    # (51, 70) has Dice 4/7 on the first and 1 on the second; (-100, 70) 1 and 0.
    assert best_band([(hu, lesion), (healthy, np.zeros_like(lesion))], HU) == (51, 70)


def test_held_out_cases_are_scored_by_the_policy():
    hu = np.array([[[0, 40], [60, 300]]])
    truth = np.array([[[0, 1], [0, 0]]])
    volumes = [
        ("a", hu, truth, (1, 1, 1)),
        ("b", hu, truth * 0, (1, 1, 1)),
        ("c", hu + 500, truth, (1, 1, 1)),
        ("d", hu + 500, truth * 0, (1, 1, 1)),
    ]
    rows = band_rows(volumes, (40, 60))
    assert [row["case"] for row in rows] == ["a", "b", "c", "d"]
    assert [row["dice"] for row in rows] == [pytest.approx(2 / 3), 0, 0, 1]
    assert [row["false_alarm"] for row in rows] == [False, True, False, False]
    assert [row["missed"] for row in rows] == [False, False, True, False]
    assert summarize(rows)["cases_missed"] == 1


def test_chooses_on_training_cases_only_and_reads_each_once():
    volumes = {"t1": volume(0), "t2": volume(2), "h1": volume(3), "h2": volume(4, lesion=False)}
    read = []

    def load(case: str):
        read.append(case)
        return (f"case {case}", *volumes[case], (0.8, 0.8, 2.0))

    band, rows = fixed_threshold(["t1", "t2"], ["h1", "h2"], load, HU)
    assert read == ["t1", "t2", "h1", "h2"]
    assert band == best_band([volumes["t1"], volumes["t2"]], HU)
    hu, truth = volumes["h1"]
    assert rows[0]["case"] == "case h1"
    assert rows[0]["dice"] == pytest.approx(dc((hu >= band[0]) & (hu <= band[1]), truth))
    assert rows[1]["false_alarm"]


def test_says_what_is_wrong_with_the_input():
    hu, truth = volume(0)
    with pytest.raises(DataError, match="found none"):
        best_band([], HU)
    with pytest.raises(DataError, match=r"\(6, 5, 4\) and \(6, 5, 3\)"):
        best_band([(hu, truth[..., :3])], HU)
    with pytest.raises(DataError, match="found 2"):
        best_band([(hu, truth * 2)], HU)
    with pytest.raises(DataError, match="NaN"):
        best_band([(np.where(truth, np.nan, hu), truth)], HU)
    with pytest.raises(DataError, match="NaN"):
        band_rows([("a", np.where(truth, np.nan, hu), truth, (1, 1, 1))], (0, 1))


@pytest.mark.skipif(not CT.exists(), reason=f"no real CT at {CT}")
def test_finds_the_soft_tissue_of_a_real_ct():
    import nibabel

    hu = np.asarray(nibabel.load(CT).dataobj)
    truth = (hu >= 30) & (hu <= 110)
    assert best_band([(hu, truth)], HU) == (30, 110)
    row = band_rows([("ct", hu, truth, (3, 3, 3))], (30, 110))[0]
    assert (row["dice"], row["hd95"], row["lesions_false"]) == (1, 0, 0)


def write_picture(path, lesion: int | None, mask_size: tuple[int, int] = (20, 16)) -> None:
    """A picture of 20x16 pixels, grey 100, with a lesion of a grey level of its own, and its mask."""
    values, mask = np.full((16, 20), 100, np.uint8), np.zeros(mask_size[::-1], np.uint8)
    if lesion is not None:
        values[4:9, 6:12], mask[4:9, 6:12] = lesion, 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    Image.fromarray(mask).save(path.with_name(f"{path.stem}_mask.png"))


def write_run(folder, bundle: str, folds: list[list[str]], scored: list[str], **options) -> None:
    """What a training and an evaluation leave, as far as the baseline reads it."""
    parser = ConfigParser()
    parser.read_config(f"bundles/{bundle}/train.json")
    parser.update(options)
    parser.resolve_macro_and_relative_ids()
    write_json(folder / "config.json", {key: value for key, value in parser.get().items() if key != "_meta_"})
    write_split(folder / "split.json", folds)
    truth = np.ones((2, 2), bool)
    rows = [{"case": case, **score_case(truth, truth, (1, 1))} for case in scored]
    write_cases(rows, folder / "evaluation" / "cases.csv")


@pytest.fixture
def busi(workspace):
    """BUSI with lesions of grey 40, 50, 60, 70 and 80 in images 1 to 5, and a normal image, 6."""
    names = [f"benign/benign ({n}).png" for n in range(1, 6)] + ["normal/normal (6).png"]
    for name, lesion in zip(names, (40, 50, 60, 70, 80, None), strict=True):
        write_picture(workspace / "data/dce_us" / name, lesion)
    with (workspace / "data/dce_us/groups.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "group"), *((name, str(n)) for n, name in enumerate(names, 1))])
    return workspace


class TestBesideRun:
    def test_pictures_are_chosen_on_neither_for_validation_nor_for_test(self, busi):
        folds = [["1", "2"], ["3"], ["4"], ["5"]]
        write_run(busi / "run", "dce_us", folds, ["benign (5)"], fold=3)
        # Held out are 5, and 1 and 2 for validation: the brightest lesion of the others is 70.
        assert beside_run(busi / "run").band == (0, 70)
        write_run(busi / "run", "dce_us", folds, ["benign (4)"], fold=2)
        # Now 4, and 5 for validation.
        found = beside_run(busi / "run")
        assert found.band == (0, 60)
        assert (found.levels, found.unit) == (("grey levels", 0, 255), "pixels")
        assert [(row["case"], row["dice"], row["missed"]) for row in found.rows] == [("benign (4)", 0, True)]
        assert found.rows[0]["hd95"] == pytest.approx(np.hypot(15, 19))
        assert [row["dice"] for row in found.network] == [1]

    def test_normal_images_count_where_the_run_counted_them(self, busi):
        folds = [["1", "6"], ["2"], ["3"], ["4"], ["5"]]
        write_run(busi / "run", "dce_us", folds, ["benign (1)", "normal (6)"], normal_images="true")
        rows = beside_run(busi / "run").rows
        assert [(row["case"], row["dice"]) for row in rows] == [("benign (1)", 1), ("normal (6)", 1)]

    def test_volumes_are_chosen_on_all_but_one_fold(self, workspace, cases, monkeypatch):
        monkeypatch.setattr(datasets.get("lits"), "index", lambda root: cases)
        write_run(workspace / "run", "lits", [["0", "2"], ["1"]], ["volume-1"], fold=1)
        found = beside_run(workspace / "run")
        read = [datasets.get("lits").read(case, [2]) for case in cases]
        assert found.band == best_band([read[0][:2], read[2][:2]], HU)
        assert found.rows == band_rows([("volume-1", *read[1])], found.band)
        assert (found.levels.unit, found.unit) == ("HU", "mm")

    def test_other_cases_than_those_held_out_are_refused(self, busi):
        folds = [["1", "2"], ["3"], ["4"], ["5"]]
        write_run(busi / "run", "dce_us", folds, ["benign (2)", "benign (3)", "benign (4)"])
        with pytest.raises(DataError, match=r"the 2 cases .* found 1 of them missing and 2 others; evaluate"):
            beside_run(busi / "run")

    def test_what_is_wrong_with_a_run_is_one_line(self, busi):
        with pytest.raises(DataError, match="evaluate first"):
            beside_run(busi / "run")
        write_run(busi / "run", "dce_us", [["1", "2"], ["3"], ["4"]], ["benign (1)"])
        with pytest.raises(DataError, match=r"1 of it without a fold \['5'\]"):
            beside_run(busi / "run")
        write_picture(busi / "data/dce_us/benign/benign (5).png", 41, mask_size=(20, 17))
        write_run(busi / "run", "dce_us", [["1"], ["2"], ["3", "4", "5"]], ["benign (1)"])
        with pytest.raises(DataError, match="20x16 pixels of its image, found 20x17"):
            beside_run(busi / "run")
        config = json.loads((busi / "run/config.json").read_text())
        write_json(busi / "run/config.json", {**config, "dataset_dir": "gone"})
        with pytest.raises(DataError, match="gone"):
            beside_run(busi / "run")

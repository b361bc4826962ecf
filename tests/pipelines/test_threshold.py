from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from medpy.metric.binary import dc

from pipelines.errors import DataError
from pipelines.scoring import summarize
from pipelines.threshold import band_rows, best_band, fixed_threshold

CT = Path(__file__).parents[3] / "shared" / "data" / "ct" / "example_ct_sm.nii.gz"


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


def brute_force(volumes) -> tuple[float, list[tuple[int, int]]]:
    """The best mean Dice, and every band that has it: all 45,451 tried one by one."""
    means = {}
    for lowest in range(-100, 201):
        for highest in range(lowest, 201):
            total = 0.0
            for hu, truth in volumes:
                within = (hu >= lowest) & (hu <= highest)
                size = within.sum() + truth.sum()
                total += 2 * within[truth].sum() / size if size else 1.0
            means[lowest, highest] = total / len(volumes)
    best = max(means.values())
    return best, [band for band, mean in means.items() if mean == pytest.approx(best, abs=1e-12)]


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_equals_brute_force(dtype):
    volumes = [volume(0, dtype=dtype), volume(1, lesion=False, dtype=dtype), volume(2, dtype=dtype)]
    best, bands = brute_force(volumes)
    band = best_band(iter(volumes))
    assert band == bands[0]
    masks = [((hu >= band[0]) & (hu <= band[1]), truth) for hu, truth in volumes]
    dice = [dc(within, truth) if truth.any() else float(not within.any()) for within, truth in masks]
    assert best == pytest.approx(np.mean(dice))


def test_ends_belong_to_the_band_and_a_fraction_is_outside():
    hu = np.array([[9.5, 10, 10.5, 12], [12.5, 150, -500, 800]])
    assert best_band([(hu, (hu >= 10) & (hu <= 12))]) == (10, 12)
    assert best_band([(hu, hu == 12.5)]) == (11, 13)  # as good as (12, 13): both hold 12 and 12.5
    # The ends of the window are within it, and what lies beyond is in no band.
    hu = np.array([[-101, -100, 0, 200, 201]])
    assert best_band([(hu, hu == -100)]) == (-100, -100)
    assert best_band([(hu, hu == 200)]) == (1, 200)


def test_a_case_without_lesion_pulls_the_band_to_where_it_has_no_voxel():
    hu = np.array([[50, 50, 50, 70, 70, 300]])
    lesion = np.array([[1, 1, 1, 1, 1, 0]], bool)
    healthy = np.array([[50, 50, 300, 300, 300, 300]])
    assert best_band([(hu, lesion)]) == (-100, 70)
    # (51, 70) has Dice 4/7 on the first and 1 on the second; (-100, 70) 1 and 0.
    assert best_band([(hu, lesion), (healthy, np.zeros_like(lesion))]) == (51, 70)


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

    band, rows = fixed_threshold(["t1", "t2"], ["h1", "h2"], load)
    assert read == ["t1", "t2", "h1", "h2"]
    assert band == best_band([volumes["t1"], volumes["t2"]])
    hu, truth = volumes["h1"]
    assert rows[0]["case"] == "case h1"
    assert rows[0]["dice"] == pytest.approx(dc((hu >= band[0]) & (hu <= band[1]), truth))
    assert rows[1]["false_alarm"]


def test_says_what_is_wrong_with_the_input():
    hu, truth = volume(0)
    with pytest.raises(DataError, match="found none"):
        best_band([])
    with pytest.raises(DataError, match=r"\(6, 5, 4\) and \(6, 5, 3\)"):
        best_band([(hu, truth[..., :3])])
    with pytest.raises(DataError, match="found 2"):
        best_band([(hu, truth * 2)])
    with pytest.raises(DataError, match="NaN"):
        best_band([(np.where(truth, np.nan, hu), truth)])
    with pytest.raises(DataError, match="NaN"):
        band_rows([("a", np.where(truth, np.nan, hu), truth, (1, 1, 1))], (0, 1))


@pytest.mark.skipif(not CT.exists(), reason=f"no real CT at {CT}")
def test_finds_the_soft_tissue_of_a_real_ct():
    import nibabel

    hu = np.asarray(nibabel.load(CT).dataobj)
    truth = (hu >= 30) & (hu <= 110)
    assert best_band([(hu, truth)]) == (30, 110)
    row = band_rows([("ct", hu, truth, (3, 3, 3))], (30, 110))[0]
    assert (row["dice"], row["hd95"], row["lesions_false"]) == (1, 0, 0)

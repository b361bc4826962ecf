from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from medpy.metric import binary as medpy
from monai.data import MetaTensor
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou
from scipy.ndimage import gaussian_filter
from skimage.measure import label

from pipelines.errors import DataError
from pipelines.scoring import SCORES, format_table, read_cases, score_case, summarize, write_cases

surface_distances = getattr(medpy, "__surface_distances")


def blobs(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Lumps and specks, some of them at the border."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.standard_normal(shape), 2)
    mask = smooth > np.quantile(smooth, 0.9)
    return mask | (rng.random(shape) > 0.999)


def touches_border(mask: np.ndarray) -> bool:
    return any(np.take(mask, end, axis).any() for axis in range(mask.ndim) for end in (0, -1))


def one_lesion(shape: tuple[int, ...] = (20, 20, 10)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(4, 8) for _ in shape)] = True
    return mask


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((40, 33), (1.0, 1.0)),
        ((40, 33), (0.07, 0.2)),
        ((24, 30, 12), (1.0, 1.0, 1.0)),
        ((24, 30, 12), (0.7, 0.8, 5.0)),
        ((90, 80, 60), (3.0, 3.0, 10.0)),
    ],
)
def test_equals_medpy_and_monai(shape, spacing, seed):
    prediction, truth = blobs(shape, seed), blobs(shape, seed + 100)
    assert touches_border(prediction) and touches_border(truth)
    scores = score_case(prediction, truth, spacing)

    assert scores["dice"] == pytest.approx(medpy.dc(prediction, truth), abs=1e-5)
    assert scores["iou"] == pytest.approx(medpy.jc(prediction, truth), abs=1e-5)
    directed = [surface_distances(*pair, spacing) for pair in ((prediction, truth), (truth, prediction))]
    assert scores["hd95"] == pytest.approx(max(np.percentile(d, 95) for d in directed), abs=1e-5)

    batch = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth)]
    assert scores["dice"] == pytest.approx(compute_dice(*batch, include_background=True).item(), abs=1e-5)
    assert scores["iou"] == pytest.approx(compute_iou(*batch, include_background=True).item(), abs=1e-5)
    hd95 = compute_hausdorff_distance(*batch, include_background=True, percentile=95, spacing=spacing)
    assert scores["hd95"] == pytest.approx(hd95.item(), rel=1e-5)

    full = truth.ndim
    truth_labels, truth_number = label(truth, connectivity=full, return_num=True)
    found = sum(bool(prediction[truth_labels == i].any()) for i in range(1, truth_number + 1))
    labels, number = label(prediction, connectivity=full, return_num=True)
    false = sum(not truth[labels == i].any() for i in range(1, number + 1))
    assert (scores["lesions"], scores["lesions_found"]) == (truth_number, found)
    assert (scores["lesions_missed"], scores["lesions_false"]) == (truth_number - found, false)


def test_surface_at_the_border_of_the_image_counts():
    truth, prediction = np.zeros((2, 30, 30), bool)
    truth[:, :20], prediction[:, :25] = True, True
    # Both masks reach three sides of the image, and most of their surface lies along these.
    directed = [surface_distances(*pair, (2.0, 1.0)) for pair in ((prediction, truth), (truth, prediction))]
    hd95 = score_case(prediction, truth, (2.0, 1.0))["hd95"]
    assert hd95 == pytest.approx(max(np.percentile(d, 95) for d in directed), abs=1e-5)
    assert hd95 == pytest.approx(5.0)


def test_counts_the_larger_directed_percentile_not_the_pooled_one():
    truth, prediction = np.zeros((2, 200, 1000), bool)
    truth[100, 100:900] = True
    prediction[100, 100:150] = True
    prediction[110, 100:105] = True
    scores = score_case(prediction, truth, (1, 1))
    # From the truth to the prediction it is 0 for 50 voxels and then 1 to 750; back it is 0, and 10 for five.
    assert scores["hd95"] == pytest.approx(750 - 0.05 * 799)
    assert medpy.hd95(prediction, truth) != pytest.approx(scores["hd95"], abs=1)


@pytest.mark.parametrize(
    ("shape", "spacing", "diagonal"), [((13, 9, 25), (1, 2, 2), 52), ((31, 41), (1, 1), 50)]
)
def test_policy_for_empty_masks(shape, spacing, diagonal):
    lesion, empty = one_lesion(shape), np.zeros(shape, bool)

    both_empty = score_case(empty, empty, spacing)
    assert (both_empty["dice"], both_empty["iou"], both_empty["hd95"]) == (1, 1, 0)
    assert not both_empty["missed"] and not both_empty["false_alarm"]
    assert both_empty["lesions"] == both_empty["lesions_false"] == 0

    alarm = score_case(lesion, empty, spacing)
    assert (alarm["dice"], alarm["iou"]) == (0, 0)
    assert alarm["hd95"] == pytest.approx(diagonal)
    assert alarm["false_alarm"] and not alarm["missed"]
    assert (alarm["lesions"], alarm["lesions_false"]) == (0, 1)

    missed = score_case(empty, lesion, spacing)
    assert (missed["dice"], missed["iou"]) == (0, 0)
    assert missed["hd95"] == pytest.approx(diagonal)
    assert missed["missed"] and not missed["false_alarm"]
    assert (missed["lesions"], missed["lesions_missed"], missed["lesions_false"]) == (1, 1, 0)

    # Nothing that a prediction can do is worse than to miss the lesion.
    far = np.zeros(shape, bool)
    far[(-1,) * len(shape)] = True
    elsewhere = score_case(far, lesion, spacing)
    assert elsewhere["missed"] and not elsewhere["false_alarm"]
    assert 0 < elsewhere["hd95"] < diagonal


def test_lesions_by_hand():
    truth, prediction = np.zeros((2, 12, 12), bool)
    truth[1, 1] = truth[2, 2] = True  # touch at a corner: one lesion
    truth[6:9, 6:9] = True  # found by one voxel
    truth[11, 0] = True  # missed
    prediction[2, 2] = prediction[8, 8] = True
    prediction[8, 9:11] = True  # belongs to the component that found the second lesion
    prediction[0, 11] = True  # false
    scores = score_case(prediction, truth, (1, 1))
    assert [scores[key] for key in ("lesions", "lesions_found", "lesions_missed", "lesions_false")] == [
        3,
        2,
        1,
        1,
    ]
    assert [scores[key] for key in ("true_positive", "false_positive", "false_negative")] == [2, 3, 10]
    assert scores["dice"] == pytest.approx(2 * 2 / (5 + 12))
    assert (scores["truth_area"], scores["prediction_area"]) == (12, 5)


def test_volumes_in_millilitres():
    truth = one_lesion((100, 100, 50))
    truth[30:50, 30:50, 20:40] = True  # 8000 voxels and the 64 of the lesion
    scores = score_case(truth, truth, (0.5, 0.5, 2))
    assert scores["truth_volume_ml"] == scores["prediction_volume_ml"] == pytest.approx(8064 * 0.5 / 1000)
    assert (scores["dice"], scores["iou"], scores["hd95"]) == (1, 1, 0)


@pytest.mark.parametrize("kind", [torch.from_numpy, MetaTensor, np.uint8, np.float32])
def test_any_binary_array_scores_the_same(kind):
    prediction, truth = blobs((16, 17, 9), 1), blobs((16, 17, 9), 2)
    expected = score_case(prediction, truth, (1, 1, 3))
    assert score_case(kind(prediction), kind(truth), (1, 1, 3)) == expected
    assert score_case(np.asfortranarray(prediction), truth[::-1][::-1], (1, 1, 3)) == expected
    for score, value in expected.items():
        assert type(value) is SCORES[score]


def test_says_what_is_wrong_with_the_input():
    lesion = one_lesion()
    with pytest.raises(ValueError, match=r"\(20, 20, 10\).*\(20, 20, 9\)"):
        score_case(lesion[..., :9], lesion, (1, 1, 1))
    with pytest.raises(DataError, match=r"the truth to be a mask of 0 and 1, found nan"):
        score_case(lesion, np.where(lesion, np.nan, 0), (1, 1, 1))
    with pytest.raises(DataError, match="the prediction to be a mask of 0 and 1, found 255"):
        score_case(lesion * np.uint8(255), lesion, (1, 1, 1))
    with pytest.raises(DataError, match=r"found 0\.5"):
        score_case(torch.full((4, 4), 0.5), np.zeros((4, 4)), (1, 1))
    for spacing in [(1, 1), (1, 1, 0), (1, 1, float("nan")), 1.0]:
        with pytest.raises(DataError, match="3 positive numbers as spacing"):
            score_case(lesion, lesion, spacing)
    with pytest.raises(DataError, match="2 or 3 axes"):
        score_case(lesion[None], lesion[None], (1, 1, 1, 1))


def test_a_volume_takes_seconds():
    rng = np.random.default_rng(0)
    truth = np.zeros((256, 256, 100), bool)
    truth[100:150, 100:150, 40:60] = True
    prediction = np.roll(truth, 3, axis=0) | (rng.random(truth.shape) > 0.9999)
    start = time.perf_counter()
    score_case(prediction, truth, (0.8, 0.8, 2.5))
    assert time.perf_counter() - start < 10  # 0.3 s at leisure


def rows() -> list[dict]:
    lesion = one_lesion()
    half = lesion.copy()
    half[:, :, 6:] = False
    empty = np.zeros_like(lesion)
    pairs = {"perfect": (lesion, lesion), "half": (half, lesion), "missed": (empty, lesion)}
    pairs |= {"alarm": (lesion, empty), "nothing": (empty, empty)}
    return [{"case": case, "fold": 0, **score_case(*pair, (1, 1, 1))} for case, pair in pairs.items()]


def test_summary_counts_every_case():
    summary = summarize(rows())
    dice, iou = [1, 2 / 3, 0, 0, 1], [1, 0.5, 0, 0, 1]
    diagonal = np.linalg.norm([19, 19, 9])
    # The half lacks two of four slices: 16 of the lesion's 56 surface voxels are 2 away from it.
    assert summary["dice_mean"] == pytest.approx(np.mean(dice))
    assert summary["dice_std"] == pytest.approx(np.std(dice))
    assert summary["iou_mean"] == pytest.approx(np.mean(iou))
    assert summary["iou_std"] == pytest.approx(np.std(iou))
    assert summary["hd95_mean"] == pytest.approx(np.mean([0, 2, diagonal, diagonal, 0]))
    assert summary["hd95_std"] == pytest.approx(np.std([0, 2, diagonal, diagonal, 0]))
    assert summary["dice_global"] == pytest.approx(2 * 96 / (2 * 96 + 64 + 32 + 64))
    assert summary["iou_global"] == pytest.approx(96 / (96 + 64 + 32 + 64))
    counts = ("cases", "cases_missed", "cases_false_alarm", "lesions", "lesions_found", "lesions_missed")
    assert [summary[count] for count in counts] == [5, 1, 1, 3, 2, 1]
    assert summary["lesions_false"] == 1
    assert summary["lesion_sensitivity"] == pytest.approx(2 / 3)
    assert summary["lesions_false_per_case"] == pytest.approx(0.2)


def test_summary_of_cases_without_lesions_and_of_none():
    summary = summarize(row for row in rows() if row["case"] == "nothing")
    assert summary["dice_global"] == summary["iou_global"] == summary["lesion_sensitivity"] == 1
    assert summary["dice_std"] == 0
    with pytest.raises(DataError, match="found none"):
        summarize([])


def test_cases_survive_the_file(tmp_path):
    path = tmp_path / "run" / "cases.csv"
    cases = rows()
    cases[0] |= {"case": "0012, left", "fold": 3}
    cases[1]["patient"] = "Ångström"
    write_cases(reversed(cases), path)
    assert read_cases(path) == cases[::-1]
    assert summarize(read_cases(path)) == summarize(cases[::-1])
    columns = path.read_text(encoding="utf-8").splitlines()[0].split(",")
    assert columns[:6] == ["case", "fold", "patient", "dice", "iou", "hd95"]
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_no_table_of_cases(tmp_path):
    path = tmp_path / "cases.csv"
    with pytest.raises(DataError, match="found none"):
        read_cases(path)
    path.write_text("name,dice\na,0.5\n")
    with pytest.raises(DataError, match="column 'case'"):
        read_cases(path)
    for wrong in ("high,True", "nan,True", "0.5,perhaps"):
        path.write_text(f"case,dice,missed\na,0.5,False\nb,{wrong}\n")
        with pytest.raises(DataError, match="line 3"):
            read_cases(path)


def test_table_shows_every_case_and_what_hides_behind_the_means():
    cases = rows()
    cases[1]["case"] = "[red]half"
    table = format_table(cases, summarize(cases), unit="pixels")
    lines = {line.split()[0]: line for line in table.splitlines() if line.strip()}
    assert lines["[red]half"].split()[1:] == ["0.667", "0.500", "2.0", "1", "0", "0"]
    assert lines["alarm"].endswith("false alarm") and lines["missed"].endswith("missed")
    assert "0.533 ± 0.452" in lines["mean"]
    assert "0.545" in lines["global"]
    assert "HD95 (pixels)" in table
    assert lines["Of"].startswith("Of 5 cases: missed 1, false alarm 1. 2 of 3 lesions found (66.7%)")
    assert "\x1b" not in table

import numpy as np
import pytest

from pipelines.scoring import score_case
from pipelines.slice_scores import axial, in_words, score_slices, summarize


def volumes(axis=2):
    """Six slices along `axis`: right, half right, missed, invented, rightly nothing, and beside it."""
    truth, prediction = np.zeros((6, 8, 9), bool), np.zeros((6, 8, 9), bool)
    truth[[0, 1, 2, 5], 2:4, 2:6] = True
    prediction[0, 2:4, 2:6] = prediction[1, 2:4, 4:6] = prediction[3, 0, 0] = prediction[5, 5:7, 2:6] = True
    return np.moveaxis(prediction, 0, axis), np.moveaxis(truth, 0, axis)


DICE, IOU = [1, 2 / 3, 0, 0, 1, 0], [1, 1 / 2, 0, 0, 1, 0]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_slice_counts_by_the_policy_of_cases(axis):
    prediction, truth = volumes(axis)
    scores = score_slices(prediction, truth, axis)
    assert scores["slice_dice"] == pytest.approx(np.mean(DICE))
    assert scores["slice_iou"] == pytest.approx(np.mean(IOU))
    assert (scores["slices"], scores["slices_missed"], scores["slices_false_alarm"]) == (6, 2, 1)


def test_slices_score_as_pictures_of_their_own():
    random = np.random.default_rng(0)
    prediction, truth = (random.random((12, 11, 10)) < random.random(10) ** 6 for _ in range(2))
    truth[..., 3], prediction[..., 7], truth[..., 7] = False, False, False
    cases = [score_case(prediction[..., k], truth[..., k], (1, 1)) for k in range(10)]
    scores = score_slices(prediction, truth, 2)
    assert scores["slice_dice"] == pytest.approx(np.mean([case["dice"] for case in cases]))
    assert scores["slice_iou"] == pytest.approx(np.mean([case["iou"] for case in cases]))
    assert scores["slices_missed"] == sum(case["missed"] for case in cases)
    assert scores["slices_false_alarm"] == sum(case["false_alarm"] for case in cases)


def test_a_slice_counts_once_whichever_volume_it_is_of():
    prediction, truth = volumes()
    parts = [score_slices(prediction[..., part], truth[..., part], 2) for part in (slice(1), slice(1, 6))]
    summary = summarize([*parts, {"case": "a picture", "dice": 1.0}])
    assert summary["slice_iou_mean"] == pytest.approx(np.mean(IOU))
    assert summary["slice_iou_mean"] != pytest.approx(np.mean([part["slice_iou"] for part in parts]))
    assert (summary["slices"], summary["slices_missed"], summary["slices_false_alarm"]) == (6, 2, 1)
    assert in_words(summary) == "Dice 0.444, IoU 0.417; of 6 axial slices 2 missed, 1 false alarms"
    assert summarize([{"case": "a picture", "dice": 1.0}]) == {}


@pytest.mark.parametrize(
    ("columns", "axis"), [([0, 1, 2], 2), ([1, 2, 0], 1), ([2, 0, 1], 0)], ids=["RAS", "ASR", "SRA"]
)
def test_the_axis_from_foot_to_head_is_found_in_the_affine(columns, axis):
    turned = np.eye(4)
    turned[:3, :3] = np.diag([-1.0, 1, -3])[:, columns]
    tilted = turned + np.array([[0, 0.1, 0, 5], [0.1, 0, 0.2, 6], [0, 0.2, 0, 7], [0, 0, 0, 0]])
    assert axial(turned) == axial(tilted) == axis

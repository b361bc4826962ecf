import pytest

from pipelines.label.judging import judge


def row(patient, dice, missed=False, false_alarm=False):
    return {"patient": patient, "dice": dice, "missed": missed, "false_alarm": false_alarm}


def test_better_on_the_mean_over_patients_not_over_images():
    # Over images the candidate would lose, 0.6 to 0.65; patient b has three of the four.
    served = [row("a", 0.2), *[row("b", 0.8)] * 3]
    candidate = [row("a", 0.6), *[row("b", 0.6)] * 3]
    found = judge(served, candidate, 4)
    assert found.better
    assert found.figures == pytest.approx({"label_dice": 0.6, "label_dice_served": 0.5, "label_patients": 2})
    assert (
        "on 4 labels of 2 patients held out (" in found.reason
        and "better than 0.500 of version 4" in found.reason
    )


@pytest.mark.parametrize("dice", [0.5, 0.4])
def test_as_good_is_not_better(dice):
    found = judge([row("a", 0.5)], [row("a", dice)], 1)
    assert not found.better
    assert (
        "no better than 0.500 of version 1" in found.reason
        and "1 label of 1 patient held out" in found.reason
    )


def test_missed_and_false_alarms_stand_beside_the_mean():
    served = [row("a", 0.0, missed=True), row("b", 0.0, false_alarm=True)]
    found = judge(served, [row("a", 0.5), row("b", 0.0, false_alarm=True)], 1)
    assert "1 missed or false" in found.reason and "(2 missed or false)" in found.reason

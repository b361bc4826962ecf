"""The study of labels for what a model doubts: who is dealt where, made-up records, a small one."""

import numpy as np
import pytest

from pipelines import active_study, datasets
from pipelines.active_study import CHANCE, DOUBT, LISTS, START, TEST, WAITING, deal, gains, interval
from pipelines.errors import DataError
from pipelines.files import read_json

CASES = [{"case": f"volume-{number}"} for number in range(240)]


def names(cases):
    return {one["case"] for one in cases}


@pytest.mark.parametrize("share", LISTS.values())
def test_nobody_is_in_two_groups(share):
    test, first, waiting = deal(CASES, 3, share)
    assert (len(test), len(first), len(waiting)) == (sum(TEST), START, WAITING)
    assert len(names(test) | names(first) | names(waiting)) == sum(TEST) + START + WAITING
    empty = [sum(map(active_study._is_empty, group)) for group in (test, first, waiting)]
    assert empty == [TEST[1], 0, round(share * WAITING)]


def test_both_lists_have_the_same_test_and_start():
    one, other = (deal(CASES, 3, share) for share in LISTS.values())
    assert one[:2] == other[:2] and one[2] != other[2]
    assert deal(CASES, 3, 0.5) == deal(list(reversed(CASES)), 3, 0.5)
    assert names(deal(CASES, 4, 0.5)[0]) != names(deal(CASES, 3, 0.5)[0])


def record(seed, way, cases, dice, name="as the phantom"):
    counts = {"val_cases_missed": 0, "val_cases_false_alarm": 1, "val_lesions_false": 5, "without": 1}
    return {"list": name, "seed": seed, "way": way, "cases": cases, "val_dice": dice, **counts}


RECORDS = [
    record(seed, way, cases, dice)
    for seed, offset in ((0, 0.0), (1, 0.1), (2, -0.1))
    for way, curve in ((CHANCE, (0.5, 0.6, 0.7)), (DOUBT, (0.5, 0.64 + 0.1 * offset, 0.72)))
    for cases, dice in zip((4, 6, 8), (one + offset for one in curve), strict=True)
]


def test_gains_are_paired_by_seed():
    found = gains(RECORDS[::-1])
    assert list(found) == ["6 cases", "8 cases", "mean over rounds"]
    assert found["6 cases"] == pytest.approx([0.04, 0.05, 0.03])
    assert found["8 cases"] == pytest.approx([0.02, 0.02, 0.02])
    assert found["mean over rounds"] == pytest.approx([0.03, 0.035, 0.025])


def test_the_interval_is_students():
    mean, low, high = interval(np.array([0.04, 0.05, 0.03]))
    # t of 2 degrees of freedom is 4.303, and the standard error 0.01 / sqrt(3).
    assert (mean, low, high) == pytest.approx((0.04, 0.04 - 0.02484, 0.04 + 0.02484), abs=1e-5)
    assert np.isnan(interval(np.array([0.4]))[1:]).all()


def test_tables_tell_both_curves_and_the_gain(tmp_path):
    from rich.console import Console

    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    for table in active_study.tables(RECORDS, "as the phantom"):
        console.print(table)
    text = console.export_text()
    assert "mean over 3 seeds" in text and "0.640 (" in text and "3 of 3" in text
    assert "+0.040 (+0.015 to +0.065)" in text


def test_the_picture_is_drawn(tmp_path):
    other = [{**one, "list": "most without a lesion"} for one in RECORDS]
    active_study.picture([*RECORDS, *other], tmp_path / "active.png")
    assert (tmp_path / "active.png").stat().st_size > 10_000


def test_a_small_study_is_played_and_kept(tmp_path, monkeypatch):
    for name, value in {"TEST": (2, 0), "WAITING": 2, "START": 2, "STEP": 1}.items():
        monkeypatch.setattr(active_study, name, value)
    for name in ("FIRST_STEPS", "FURTHER_STEPS"):
        monkeypatch.setattr(active_study, name, 2)
    monkeypatch.setattr(active_study, "EPOCHS", 1)
    monkeypatch.setattr(active_study, "LISTS", {"half without a lesion": 0.5})
    network = {**active_study.SETTING["network_def"], "features": [2, 2, 4, 4, 4, 2]}
    monkeypatch.setitem(active_study.SETTING, "network_def", network)
    monkeypatch.setitem(active_study.SETTING, "image_size", [32, 32])
    datasets.get("lits").phantom(tmp_path / "phantom", cases=16, seed=0, size=48)
    records = active_study.project(tmp_path / "phantom", tmp_path / "cache", 0, 1)
    told = [(one["way"], one["cases"]) for one in records]
    assert told == [(CHANCE, 2), (CHANCE, 3), (DOUBT, 2), (DOUBT, 3)]
    assert records[0]["val_dice"] == records[2]["val_dice"]  # the same network
    assert all(0 <= one["val_dice"] <= 1 and one["val_cases"] == 2 for one in records)


def test_what_was_played_is_not_played_again(tmp_path, monkeypatch):
    def unexpected(*_, **__):
        raise AssertionError

    monkeypatch.setattr(datasets.get("lits"), "phantom", lambda *_, **__: True)
    monkeypatch.setattr(active_study, "ProcessPoolExecutor", unexpected)
    with pytest.raises(DataError, match="expected at least 240 patients, found 12"):
        active_study.study(tmp_path, [0], 3, 12, 1)
    with pytest.raises(DataError, match="at least one seed"):
        active_study.study(tmp_path, [], 3, 240, 1)
    monkeypatch.undo()
    monkeypatch.setattr(datasets.get("lits"), "phantom", lambda *_, **__: True)
    monkeypatch.setattr(active_study, "project", unexpected)
    setting = {**active_study.SETTING, "cases": 240, "rounds": 2}
    setting |= {**active_study.machine.describe(), "threads": 1}
    active_study.write_json(tmp_path / "active.json", {"setting": setting, "records": RECORDS})
    assert active_study.study(tmp_path, range(2), 2, 240, 1) == [one for one in RECORDS if one["seed"] < 2]
    with pytest.raises(DataError, match="study of the same setting"):
        active_study.study(tmp_path, range(2), 3, 240, 1)
    assert read_json(tmp_path / "active.json")["records"] == RECORDS

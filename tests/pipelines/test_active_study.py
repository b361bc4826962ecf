"""The study of labels for what a model doubts: who is dealt where, made-up records, a small one."""

import numpy as np
import pytest

from pipelines import active_study, datasets
from pipelines.active_study import CHANCE, DOUBT, LISTS, START, Dealt, deal, gains, interval, kind_of
from pipelines.errors import DataError
from pipelines.files import read_json

CASES = [{"case": f"volume-{number}"} for number in range(420)]
LIST = "of several looks"


def names(cases):
    return {one["case"] for one in cases}


def counts(cases):
    kinds = [kind_of(one) for one in cases]
    return {kind: kinds.count(kind) for kind in kinds}


@pytest.mark.parametrize("dealt", LISTS.values())
def test_nobody_is_in_two_groups(dealt):
    test, first, waiting = deal(CASES, 3, dealt)
    assert len(names([*test, *first, *waiting])) == len(test) + len(first) + len(waiting)
    assert counts(test) == dealt.test and counts(waiting) == dealt.waiting
    assert counts(first) == {"portal": START}


def test_a_seed_deals_the_same_whatever_the_order():
    dealt = LISTS[LIST]
    assert deal(CASES, 3, dealt) == deal(CASES[::-1], 3, dealt)
    assert names(deal(CASES, 4, dealt)[0]) != names(deal(CASES, 3, dealt)[0])
    with pytest.raises(DataError, match=r"too few \(without a lesion\); give --cases more"):
        deal(CASES[:240], 3, LISTS["most without a lesion"])


def record(seed, way, cases, dice, name=LIST):
    counted = {"val_cases_missed": 0, "val_cases_false_alarm": 1, "val_lesions_false": 5, "without": 1}
    counted |= {"rare": 2} | {f"dice_{kind}": dice - 0.1 for kind in active_study.LOOKS}
    return {"list": name, "seed": seed, "way": way, "cases": cases, "val_dice": dice, **counted}


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
    for table in active_study.tables(RECORDS, LIST):
        table.print(console)
    text = console.export_text()
    assert "mean over 3 seeds" in text and "0.640 (" in text and "3 of 3" in text
    assert "+0.040 (+0.015 to +0.065)" in text
    assert "2.0 / 2.0" in text and "0.400 / 0.400" in text  # of a rare look; Dice of one, at the start


def test_a_list_of_one_look_has_no_columns_of_looks(tmp_path):
    records = [{**one, "rare": 0, "list": "of one look"} for one in RECORDS]
    table = active_study.tables(records, "of one look")[0]
    assert table.heading[-1] == "added without a lesion"
    assert table.markdown().count("\n| ") == 2 + len(table.rows)


def test_the_picture_is_drawn(tmp_path):
    other = [{**one, "list": "of one look"} for one in RECORDS]
    active_study.picture([*RECORDS, *other], tmp_path / "active.png")
    assert (tmp_path / "active.png").stat().st_size > 10_000


def test_a_small_project_is_played(tmp_path, monkeypatch):
    kinds = {"portal": 1, "arterial": 1}
    for name, value in {"LISTS": {LIST: Dealt(kinds, kinds)}, "START": 1, "STEP": 1}.items():
        monkeypatch.setattr(active_study, name, value)
    for name in ("FIRST_STEPS", "FURTHER_STEPS", "EPOCH"):
        monkeypatch.setattr(active_study, name, 2)
    network = {**active_study.SETTING["network_def"], "channels": [2, 4, 4, 4]}
    monkeypatch.setitem(active_study.SETTING, "network_def", network)
    monkeypatch.setitem(active_study.SETTING, "image_size", [32, 32])
    datasets.get("lits").phantom(tmp_path / "phantom", cases=9, seed=0, size=48, looks="varied")
    records = active_study.project(tmp_path / "phantom", tmp_path / "cache", 0, LIST, 1)
    told = [(one["way"], one["cases"]) for one in records]
    assert told == [(CHANCE, 1), (CHANCE, 2), (DOUBT, 1), (DOUBT, 2)]
    assert records[0]["val_dice"] == records[2]["val_dice"]  # the same network
    for one in records:
        looks = one["dice_portal"] + one["dice_arterial"]
        assert one["val_cases"] == 2 and one["val_dice"] == pytest.approx(looks / 2)
    assert [one["without"] for one in records] == [0] * 4


def test_what_was_played_is_not_played_again(tmp_path, monkeypatch):
    def unexpected(*_, **__):
        raise AssertionError

    monkeypatch.setattr(datasets.get("lits"), "phantom", lambda *_, **__: True)
    monkeypatch.setattr(active_study, "ProcessPoolExecutor", unexpected)
    with pytest.raises(DataError, match="expected more patients"):
        active_study.study(tmp_path, [0], 3, 12, 1, LISTS)
    with pytest.raises(DataError, match="at least one seed"):
        active_study.study(tmp_path, [], 3, 420, 1, LISTS)
    with pytest.raises(DataError, match="expected 1 to 11 rounds"):
        active_study.study(tmp_path, [0], 12, 420, 1, LISTS)
    monkeypatch.undo()
    monkeypatch.setattr(datasets.get("lits"), "phantom", lambda *_, **__: True)
    monkeypatch.setattr(active_study, "project", unexpected)
    setting = {**active_study.SETTING, "cases": 420, "rounds": 2}
    setting |= {**active_study.machine.describe(), "threads": 1}
    active_study.write_json(tmp_path / "active.json", {"setting": setting, "records": RECORDS})
    assert active_study.study(tmp_path, range(2), 2, 420, 1, [LIST]) == [
        one for one in RECORDS if one["seed"] < 2
    ]
    with pytest.raises(DataError, match="study of the same setting"):
        active_study.study(tmp_path, range(2), 3, 420, 1, [LIST])
    assert read_json(tmp_path / "active.json")["records"] == RECORDS

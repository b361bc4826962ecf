"""What each version of a model made of studies, and which study comes next."""

import random

import pytest

from pipelines.label.doubts import MOST, MOST_SETTING, Doubts, due, most, most_doubtful

STUDIES = [f"study-{number}" for number in range(6)]


def test_each_version_has_its_own(tmp_path):
    kept = Doubts(tmp_path / "doubts")
    assert kept.of(1) == {}
    kept.add(1, "a", {"doubt": 0.5, "candidates": 1})
    kept.add(1, "b", {"error": "expected a whole file"})
    kept.add(2, "a", {"doubt": 2.0, "candidates": 3})
    assert Doubts(tmp_path / "doubts").of(1) == {
        "a": {"doubt": 0.5, "candidates": 1},
        "b": {"error": "expected a whole file"},
    }
    assert kept.of(2)["a"]["doubt"] == 2.0
    assert kept.of(None) == {}


def test_what_was_looked_at_or_has_a_label_is_not_due():
    assert sorted(due(STUDIES, {}, 10)) == STUDIES
    assert sorted(due(STUDIES, {STUDIES[0]: {}, "labelled since": {}}, 10)) == STUDIES[1:]
    assert due(STUDIES, dict.fromkeys(STUDIES), 10) == []


def test_of_many_a_fair_part_is_due_the_same_each_time():
    many = [f"study-{number:04}" for number in range(1000)]
    first = due(many, {}, 100)
    assert first == due(reversed(many), {}, 100) and len(first) == 100
    assert 0.35 < sum(one < "study-0500" for one in first) / 100 < 0.65
    # Half way through, the same ones are left.
    assert due(many, dict.fromkeys(first[:40]), 100) == first[40:]
    # One of them has got a label; another takes its place.
    left = [one for one in many if one != first[0]]
    assert len(due(left, dict.fromkeys(first), 100)) == 1
    assert due(many, {}, 0) == []


def test_how_many_is_a_setting(monkeypatch):
    monkeypatch.delenv(MOST_SETTING, raising=False)
    assert most() == MOST
    monkeypatch.setenv(MOST_SETTING, "7")
    assert most() == 7


FOUND = {
    "a": {"doubt": 0.5, "candidates": 1},
    "b": {"doubt": 2.5, "candidates": 4},
    "c": {"doubt": 1.5, "candidates": 2},
    "d": {"error": "expected a whole file"},
}


@pytest.mark.parametrize(
    ("unlabelled", "taken", "chosen"),
    [
        ("abcde", "", "b"),
        ("acde", "", "c"),  # b has its label
        ("abcde", "b", "c"),  # somebody else has b
        ("bde", "b", "b"),  # but there is no other
        ("de", "", None),
        ("", "", None),
    ],
)
def test_the_most_doubtful_is_next(unlabelled, taken, chosen):
    assert most_doubtful(list(unlabelled), FOUND, set(taken), random.Random(0)) == chosen


def test_equals_are_drawn():
    found = {study: {"doubt": 0.0} for study in "abc"}
    draws = [most_doubtful("abc", found, (), random.Random(seed)) for seed in range(30)]
    assert set(draws) == set("abc")
    assert draws == [most_doubtful("abc", found, (), random.Random(seed)) for seed in range(30)]

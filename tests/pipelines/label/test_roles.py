import pytest

from pipelines.errors import DataError
from pipelines.label import roles


@pytest.fixture
def file(tmp_path):
    return tmp_path / "splits" / "lits.json"


def patients(count, start=0):
    return [f"patient-{number}" for number in range(start, start + count)]


def of(found, role):
    return {patient for patient, has in found.items() if has == role}


def test_two_patients_are_one_to_learn_from_and_one_to_test_on(file):
    found = roles.decide(file, patients(2), 0.2)
    assert sorted(found.values()) == ["test", "training"]


def test_shares_are_of_all_that_have_labels(file):
    found = roles.decide(file, patients(20), 0.2)
    counts = {role: len(of(found, role)) for role in ("test", "validation", "training")}
    assert counts == {"test": 4, "validation": 3, "training": 13}  # 0.2 of 20, and of the 16 left


def test_the_order_does_not_matter_and_the_seed_does(tmp_path):
    one = roles.decide(tmp_path / "1.json", patients(12), 0.25)
    other = roles.decide(tmp_path / "2.json", reversed(patients(12)), 0.25)
    third = roles.decide(tmp_path / "3.json", patients(12), 0.25, seed=1)
    assert one == other != third


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_over_rounds_no_patient_ever_changes_its_role(file, share):
    seen = {}
    for count in (2, 3, 4, 5, 9, 30):
        found = roles.decide(file, patients(count), share)
        assert set(found) == set(patients(count))
        assert all(found[patient] == role for patient, role in seen.items())
        assert of(found, "test") and of(found, "training")
        seen = found


def test_another_share_or_seed_in_a_later_round_changes_no_role(file):
    first = roles.decide(file, patients(10), 0.2)
    later = roles.decide(file, patients(14), 0.6, seed=5)
    assert first.items() <= later.items()


def test_a_label_taken_away_and_submitted_again_keeps_its_role(file):
    first = roles.decide(file, patients(10), 0.2)
    roles.decide(file, [one for one in patients(12) if one != "patient-3"], 0.2)
    assert roles.decide(file, patients(12), 0.2)["patient-3"] == first["patient-3"]


@pytest.mark.parametrize("share", [0, 1, -1, 1.5])
def test_nothing_held_out_is_refused(file, share):
    with pytest.raises(DataError, match=rf"val_split above 0 and below 1, found {share}.*0\.2"):
        roles.decide(file, patients(5), share)
    assert not file.exists()


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_patients_are_refused(file, count):
    with pytest.raises(DataError, match=f"at least two patients.*found {count}; annotate"):
        roles.decide(file, patients(count), 0.2)
    assert not file.exists()


def test_where_all_that_are_left_are_tested_on_nobody_becomes_one_to_learn_from(file):
    found = roles.decide(file, patients(10), 0.5)
    tested = sorted(of(found, "test"))
    with pytest.raises(DataError, match=r"patient to learn from.*annotate and submit another case"):
        roles.decide(file, tested, 0.5)
    more = roles.decide(file, [*tested, "new"], 0.5)
    assert more["new"] == "training"

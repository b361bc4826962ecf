import pytest

from pipelines import folds
from pipelines.errors import DataError

CASES = [{"image": f"v{n}.nii", "patient": str(n // 2), "case": str(n)} for n in range(20)]


def test_every_patient_is_held_out_once_and_never_divided():
    split = folds.split(CASES, 4)
    assert sorted(patient for fold in split for patient in fold) == sorted(
        {case["patient"] for case in CASES}
    )
    assert {len(fold) for fold in split} == {2, 3}
    for fold in range(4):
        train = folds.training_cases(CASES, split, fold)
        held_out = folds.held_out_cases(CASES, split, fold)
        assert len(train) + len(held_out) == len(CASES)
        assert not {case["patient"] for case in train} & {case["patient"] for case in held_out}


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_files():
    assert folds.split(CASES, 4) == folds.split(CASES[::-1], 4)
    assert folds.split(CASES, 4) != folds.split(CASES, 4, seed=1)


def test_a_written_split_is_honoured(tmp_path):
    file = tmp_path / "split.json"
    mine = [["0", "1", "2", "3", "4", "5", "6"], ["7", "8", "9"]]
    folds.write_split(file, mine)
    assert folds.split(CASES, 4, file=file) == mine


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([["0", "1"], ["1"]], r"each patient in one fold, found \['1'\] in two"),
        ([["0"], ["99"]], r"1 that it lacks \['99'\] and 9 of it without a fold"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(tmp_path, content, message):
    folds.write_split(tmp_path / "split.json", content)
    with pytest.raises(DataError, match=message):
        folds.split(CASES, 2, file=tmp_path / "split.json")


def test_an_unknown_fold_and_too_few_patients_are_refused():
    with pytest.raises(DataError, match="a fold from 0 to 3, found 4"):
        folds.training_cases(CASES, folds.split(CASES, 4), 4)
    with pytest.raises(DataError, match="found 10 patients for 11 folds"):
        folds.split(CASES, 11)


def test_a_file_that_is_no_split_is_refused(tmp_path):
    (tmp_path / "split.json").write_text("[]")
    with pytest.raises(DataError, match="found other content"):
        folds.read_split(tmp_path / "split.json")


def test_everybody_is_one_fold():
    assert folds.everybody(CASES) == [sorted({case["patient"] for case in CASES})]
    assert folds.held_out_cases(CASES, folds.everybody(CASES), 0) == CASES


def test_a_split_has_a_short_name_that_tells_it_from_others():
    split = folds.split(CASES, 4)
    assert folds.digest(split) == folds.digest(folds.split(CASES[::-1], 4))
    assert len({folds.digest(folds.split(CASES, 4, seed=seed)) for seed in range(5)}) == 5
    # As it is written beside a run: sha256 of {"folds": [["1"], ["2"]]}.
    assert folds.digest([["1"], ["2"]]) == "c64e940dfa1b"

import pytest

from pipelines import folds, packaged
from pipelines.datasets.fingerprint import fingerprint
from pipelines.errors import DataError
from pipelines.files import write_json
from tests.pipelines.package_runs import make_run


@pytest.fixture
def data(tmp_path):
    """Six cases of six patients, as files that have a fingerprint."""
    cases = []
    for name in "abcdef":
        (tmp_path / f"{name}.nii").write_text(name)
        cases.append({"image": str(tmp_path / f"{name}.nii"), "patient": name})
    return cases


def known(cases, num_folds=3):
    """What a bundle records of a training on these cases."""
    split = folds.digest(folds.split(cases, num_folds))
    return {"dataset_fingerprint": fingerprint(cases), "split": split, "fold": 1}


def origin(tmp_path, trained_on, unseen=False):
    return packaged.Origin(tmp_path / "bundle/models/model.pt", tmp_path / "bundle", trained_on, unseen)


def test_the_split_of_the_training_is_found_again(data, tmp_path):
    of = origin(tmp_path, known(data))
    assert of.split(data, 3) == folds.split(data, 3)
    assert of.fold == 1
    assert of.folder("lits") == "runs/lits/packaged"
    assert not of.run


def test_other_data_are_refused_unless_nothing_of_them_was_seen(data, tmp_path):
    of = origin(tmp_path, known(data))
    with pytest.raises(DataError, match=r"expected the data that .*model\.pt was trained on .*--unseen true"):
        of.split(data[:4], 3)
    with pytest.raises(DataError, match=r"trained on \(unknown\)"):
        origin(tmp_path, {}).split(data, 3)
    unseen = origin(tmp_path, known(data), unseen="true")
    assert unseen.split(data[:1], 3) == [["a"]]
    assert unseen.split(data, 3) == [list("abcdef")]
    assert unseen.fold == 0


def test_another_split_or_fold_of_the_same_data_is_refused(data, tmp_path):
    of = origin(tmp_path, known(data))
    with pytest.raises(DataError, match=r"expected the split that .*--split_file"):
        of.split(data, 2)
    of.require(1)
    with pytest.raises(DataError, match=r"expected fold 1, .*found 0; leave --fold out"):
        of.require(0)


def test_a_split_of_its_own_is_given_as_a_file(data, tmp_path):
    own = [["a", "f"], ["b", "c"], ["d", "e"]]
    folds.write_split(tmp_path / "split.json", own)
    of = origin(tmp_path, {**known(data), "split": folds.digest(own)})
    with pytest.raises(DataError, match="expected the split"):
        of.split(data, 3)
    assert of.split(data, 3, tmp_path / "split.json") == own


def test_a_run_brings_its_own(data, tmp_path, workspace):
    file = make_run(workspace / "runs/lits/mine", "lits")
    note = {"fold": 2, "facts": {"dataset_fingerprint": fingerprint(data)}}
    write_json(file.parent / "run.json", note)
    own = [["a", "f"], ["b", "c"], ["d", "e"]]
    folds.write_split(file.parent / "split.json", own)
    tags = f'{{"kind": "tags", "time": 0, "values": {{"split": "{folds.digest(own)}"}}}}\n'
    (file.parent / "tracking.jsonl").write_text(tags)
    of = packaged.Origin(file, tmp_path / "bundle", known(data))
    assert of.run
    assert of.split(data, 99) == own
    assert of.fold == 2
    assert of.folder("lits") == str(file.parent)


def test_weights_are_the_bundles_own_or_those_of_a_run(workspace):
    make_run(workspace / "runs/lits/mine", "lits")
    assert packaged.checkpoint("there", "lits", None) == "there/models/model.pt"
    assert packaged.checkpoint("there", "lits", "mine") == "runs/lits/mine/model.pt"
    with pytest.raises(DataError, match=r"expected the weights runs/lits/none/model\.pt"):
        packaged.checkpoint("there", "lits", "none")


def test_what_was_fitted_is_that_of_the_weights(workspace):
    file = make_run(workspace / "runs/lits/mine", "lits")
    assert packaged.fitted("image_size", file, None) == [32, 32]
    assert packaged.fitted("image_size", "there/models/model.pt", [64, 64]) == [64, 64]

import subprocess
import sys
import time

import pytest
import torch
from monai.bundle import ConfigParser

from pipelines import runs, weights
from pipelines.errors import DataError
from pipelines.files import read_json, write_json

SPLIT = [["1"], ["2"]]


def start(workspace, name="a", resume=False, split=SPLIT):
    run = runs.Run(runs.folder("lits", name), "lits", resume)
    run.begin(split, 0, {"window": [0, 1]}, torch.nn.Identity())
    return run


def test_names_are_unique_and_folders_are_below_runs(workspace):
    names = {runs.folder("lits") for _ in range(20)}
    assert len(names) == 20
    assert all(name.startswith("runs/lits/") for name in names)
    assert runs.folder("lits", "mine") == "runs/lits/mine"


def test_a_run_knows_its_beginning_and_its_end(workspace):
    run = start(workspace)
    assert run.note["status"] == runs.RUNNING
    assert (run.folder / "split.json").is_file()
    run.end(runs.FINISHED)
    assert run.note["status"] == runs.FINISHED
    assert run.note["network"] == "Identity"
    assert runs.recorded(str(run.folder), "fold") == 0


def test_what_was_fitted_to_the_training_cases_is_kept_as_it_was_found(workspace, monkeypatch):
    written = {"whitening": "$whitening.fit(@cases)", "model_settings": {"whitening": "@whitening"}}
    monkeypatch.setattr(runs, "configuration", lambda: (dict(written), {}))
    found = {"mean": [0.1], "matrix": [[1.0000001]]}
    run = runs.Run(runs.folder("lits", "fitted"), "lits")
    run.begin(SPLIT, 0, {"whitening": found}, torch.nn.Identity())
    config = read_json(run.folder / "config.json")
    assert config == {**written, "whitening": found}
    assert weights.from_config(config)["model_settings"] == {"whitening": found}
    # Other folds, other numbers: the recipe is the same.
    assert runs.recipe(config) == runs.recipe(written)


def test_a_folder_with_a_run_is_not_overwritten_and_an_empty_one_not_resumed(workspace):
    start(workspace)
    with pytest.raises(DataError, match="found one in runs/lits/a; go on with it by --resume true"):
        start(workspace)
    with pytest.raises(DataError, match="a run to resume in runs/lits/b, found none"):
        start(workspace, "b", resume=True)
    with pytest.raises(DataError, match="the dataset or the split changed since"):
        start(workspace, resume="true", split=[["1", "2"], ["3"]])
    assert start(workspace, resume="true").note["key"]


def test_a_run_goes_on_only_as_it_began(workspace):
    run = start(workspace)
    for options, message in (
        ({"fold": 1}, "expected fold=0, with which runs/lits/a began, found 1"),
        ({"model_settings": {"window": [0, 2]}}, "expected model_settings="),
        ({"network": torch.nn.Linear(1, 1)}, "expected network=Identity"),
    ):
        values = {
            "split": SPLIT,
            "fold": 0,
            "model_settings": {"window": [0, 1]},
            "network": torch.nn.Identity(),
        }
        with pytest.raises(DataError, match=message):
            runs.Run("runs/lits/a", "lits", True).begin(**{**values, **options})
    run.update(values={"seed": 1, "num_workers": 4})
    with pytest.raises(DataError, match=r"expected seed=1, .* found None; resume with the options"):
        start(workspace, resume=True)
    run.update(values={"num_workers": 4})
    start(workspace, resume=True).end(runs.FINISHED)
    with pytest.raises(DataError, match="a run that is not over, found runs/lits/a finished"):
        start(workspace, resume=True)
    assert run.note["status"] == runs.FINISHED


def test_the_newest_run_is_found_by_how_it_ended(workspace):
    with pytest.raises(DataError, match=r"a finished run of lits in runs/lits, found none; train one with"):
        runs.finished("lits")
    with pytest.raises(DataError, match="an unfinished run in runs/lits to resume"):
        runs.folder("lits", resume=True)
    for name in ("a", "b", "c"):
        run = start(workspace, name)
        (run.folder / "model.pt").touch()
        if name != "c":
            run.end(runs.FINISHED)
            time.sleep(0.01)
    assert runs.finished("lits") == "runs/lits/b"
    assert runs.finished("lits", "c") == "runs/lits/c"
    assert runs.folder("lits", resume="true") == "runs/lits/c"
    with pytest.raises(DataError, match=r"expected the weights runs/lits/d/model.pt"):
        runs.finished("lits", "d")


def test_runs_whose_process_is_gone_are_told_from_living_ones(workspace):
    living, dead = start(workspace, "living"), start(workspace, "dead")
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    dead.update(pid=process.pid)
    assert [run.name for run in runs.dead_runs("lits")] == ["dead"]
    living.update(pid_started=0)  # the same number, given to another process since
    assert len(runs.dead_runs("lits")) == 2
    dead.update(host="another")  # of which nothing can be known from here
    assert [run.name for run in runs.dead_runs("lits")] == ["living"]


def test_the_configuration_that_runs_is_found_with_its_values(workspace):
    write_json(
        workspace / "train.json",
        {
            "imports": ["$import pipelines.runs as runs"],
            "epochs": 3,
            "window": [0, 1],
            "double": "$@epochs * 2",
            "device": "$torch.device('cpu')",
            "nested": {"_target_": "torch.nn.Linear", "in_features": "@double", "out_features": 1},
            "initialize": ["$runs.configuration()"],
        },
    )
    parser = ConfigParser()
    parser.read_config("train.json")
    parser["epochs"] = 4
    config, values = parser.get_parsed_content("initialize::0")
    assert values == {"epochs": 4, "window": [0, 1], "double": 8, "device": "cpu"}
    again = ConfigParser(config)
    assert again.get_parsed_content("nested").in_features == 8


def test_another_fold_than_that_of_the_training_is_refused(workspace):
    run = start(workspace)
    runs.require(str(run.folder), fold=0)
    with pytest.raises(
        DataError, match="expected fold 0, with which runs/lits/a was trained, found 1; leave --fold"
    ):
        runs.require(str(run.folder), fold=1)


def test_flags_come_as_text_from_the_command_line():
    assert [runs.flag(value) for value in (True, "true", "True", 1)] == [True] * 4
    assert [runs.flag(value) for value in (False, "false", "no", 0)] == [False] * 4
    with pytest.raises(DataError, match="expected true or false, found 'maybe'"):
        runs.flag("maybe")


def test_the_code_has_a_version():
    assert runs.code_version()


CONFIG = {
    "seed": 0,
    "fold": 0,
    "dataset_dir": "data/a",
    "max_epochs": 3,
    "network_def": {"_target_": "networks.LighterUNet", "in_channels": 3, "group_size": 16},
}


@pytest.mark.parametrize("change", [{"seed": 1}, {"fold": 2}, {"dataset_dir": "b"}, {"network_name": "x"}])
def test_runs_of_one_recipe_differ_in_chance_place_and_name(change):
    assert runs.recipe({**CONFIG, **change}) == runs.recipe(CONFIG)


@pytest.mark.parametrize("change", [{"max_epochs": 4}, {"amp": True}, {"network_def": {"_target_": "x"}}])
def test_other_settings_are_another_recipe(change):
    assert runs.recipe({**CONFIG, **change}) != runs.recipe(CONFIG)


def test_a_network_is_called_by_its_class_and_own_arguments_or_as_the_user_says():
    assert runs.network_label(CONFIG) == "LighterUNet group_size=16"
    assert runs.network_label({**CONFIG, "network_name": "C = 16"}) == "C = 16"
    assert runs.network_label({"network_def": "$@other"}) == "network"

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from pipelines import scoring, study
from pipelines.errors import DataError
from tests.conftest import ROOT


def row(case, dice, missed=False):
    nothing = {score: kind() for score, kind in scoring.SCORES.items()}
    return {"case": case, **nothing, "dice": dice, "iou": dice / 2, "missed": missed}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the bundles, in which commands are noted and leave what the real ones leave."""
    (tmp_path / "bundles").symlink_to(ROOT / "bundles")
    monkeypatch.chdir(tmp_path)
    said = []

    def run(words, stdout, **_):
        said.append(words)
        name = words[words.index("--run_name") + 1]
        folder = tmp_path / "runs/ceus-study" / name
        stdout.write("working\nit went wrong\n" if "wrong" in words else "working\n")
        if "training" in words:
            folder.mkdir(parents=True, exist_ok=True)
            status = "running" if "wrong" in words else "finished"
            (folder / "run.json").write_text(json.dumps({"status": status}))
        else:
            dice = 0.5 if name.endswith("0") else 0.7
            rows = [row("a", dice), row("b", 0, missed=True)]
            scoring.write_cases(rows, folder / "evaluation/cases_on_grid.csv")
        return SimpleNamespace(returncode=int("wrong" in words))

    monkeypatch.setattr(subprocess, "run", run)
    return tmp_path, said


def test_every_experiment_is_trained_and_evaluated_with_every_seed(place):
    _, said = place
    results = study.study("ceus", ["bundle", "ablation_1_ceus"], [0, 1], ["--max_epochs", "3"])
    assert [words[4] for words in said] == ["training", "evaluating"] * 4
    assert said[0][:4] == [sys.executable, "-m", "monai.bundle", "run"]
    assert said[0][5:] == [
        *("--config_file", "['bundles/ceus/train.json']", "--seed", "0"),
        *("--experiment", "ceus-study", "--run_name", "bundle-seed0", "--max_epochs", "3"),
    ]
    overlay = "bundles/ceus/experiments/ablation_1_ceus.json"
    assert said[5][6] == f"['bundles/ceus/train.json', '{overlay}', 'bundles/common/evaluate.json']"
    found = results["ablation_1_ceus"]
    assert (found["runs"], found["cases"], found["missed"], found["false_alarms"]) == (2, 4, 2, 0)
    # The mean of a run counts its missed case: 0.25 and 0.35.
    assert found["dice_mean"] == pytest.approx(0.3)
    assert found["dice_std"] == pytest.approx(0.05)
    assert found["iou_mean"] == pytest.approx(0.15)


def test_one_run_has_no_spread(place):
    _, lines = study.rows_of(study.study("ceus", ["bundle"], [0]))
    assert lines == [["bundle", "1", "0.250", "0.125", "0.0", "2", "1", "0"]]


def test_what_is_done_is_not_done_again_and_what_broke_off_goes_on(place):
    folder, said = place
    study.study("ceus", ["bundle"], [0])
    assert len(said) == 2
    study.study("ceus", ["bundle"], [0])
    assert len(said) == 2
    (folder / "runs/ceus-study/bundle-seed0/run.json").write_text('{"status": "running"}')
    study.study("ceus", ["bundle"], [0])
    assert said[2][-2:] == ["--resume", "true"]
    assert said[3][4] == "evaluating"
    assert "--resume" not in said[3]


def test_a_run_of_other_options_or_another_overlay_is_not_taken_for_this_one(place):
    folder, said = place
    study.study("ceus", ["bundle"], [0], ["--max_epochs", "3"])
    with pytest.raises(DataError, match=r"ceus-study/bundle-seed0 to be of the same options"):
        study.study("ceus", ["bundle"], [0], ["--max_epochs", "4"])
    asked = folder / "runs/ceus-study/study/bundle-seed0.json"
    content = json.loads(asked.read_text())
    content["files"][0]["learning_rate"] = 7
    asked.write_text(json.dumps(content))
    with pytest.raises(DataError, match="the same options and overlay as now"):
        study.study("ceus", ["bundle"], [0], ["--max_epochs", "3"])
    assert len(said) == 2


def test_a_failure_names_the_log_and_says_its_last_line(place):
    with pytest.raises(DataError, match=r"the training of bundle-seed0 .* found: it went wrong; see .*\.log"):
        study.study("ceus", ["bundle"], [0], ["wrong"])


def test_unknown_names_are_refused_before_anything_runs(place):
    _, said = place
    with pytest.raises(DataError, match=r"ablation_1_ceus, .*, found 'ablation_9'"):
        study.study("ceus", ["bundle", "ablation_9"], [0])
    with pytest.raises(DataError, match="expected a bundle at bundles/none"):
        study.configs("none", "bundle")
    assert not said


def test_the_command_prints_the_table_and_keeps_it(place, monkeypatch, capsys):
    folder, _ = place
    monkeypatch.setattr(
        sys, "argv", ["study", "ceus", "bundle", "--seeds", "0", "1", "--", "--max_epochs", "3"]
    )
    study.main()
    assert "0.300 ± 0.050" in capsys.readouterr().out
    kept = folder / "runs/ceus-study/study/bundle_to_bundle.json"
    assert json.loads(kept.read_text())["options"] == ["--max_epochs", "3"]
    assert "| bundle | 2 | 0.300 ± 0.050 |" in kept.with_suffix(".md").read_text()


@pytest.mark.parametrize(("targets", "bundle"), [(["ladder", "calipers"], "dce_us"), (["ablation"], "ceus")])
def test_the_make_targets_name_every_experiment(targets, bundle):
    makefile = (ROOT / "Makefile").read_text()
    recipes = [makefile.split(f"\n{target}: install")[1].split("\n\n")[0] for target in targets]
    overlays = {path.stem for path in (ROOT / "bundles" / bundle / "experiments").glob("*.json")}
    assert {"bundle", *overlays} <= {word for recipe in recipes for word in recipe.split()}

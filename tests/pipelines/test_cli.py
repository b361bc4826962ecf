from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from networks import NETWORKS, count_parameters
from pipelines import scoring, threshold, tracking
from pipelines.cli import app
from pipelines.datasets.reading import Levels
from tests.conftest import ROOT


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def command(*words):
    """The command as its own process, as users start it."""
    code = "import sys; from pipelines.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("cli") / "lits"
    result = invoke("phantom", "lits", "--out", root, "--cases", 2, "--size", 48)
    assert result.exit_code == 0
    assert result.output.strip() == f"wrote the lits phantom of 2 cases to {root}"
    return root


def test_phantom_says_that_it_is_there_already(data):
    result = invoke("phantom", "lits", "--out", data, "--cases", 2, "--size", 48)
    assert result.exit_code == 0
    assert "already" in result.output


def test_check_of_sound_data_ends_well(data):
    result = invoke("check", "lits", data, "--workers", 1)
    assert result.exit_code == 0
    assert "0 errors, 0 warnings, 0 notes" in result.output


def test_check_of_faulty_data_shows_them_and_fails(tmp_path):
    root = tmp_path / "faults"
    assert invoke("phantom", "lits", "--out", root, "--cases", 2, "--size", 48, "--faults").exit_code == 0
    result = invoke("check", "lits", root, "--workers", 1, "--split", root / "split.json")
    assert result.exit_code == 1
    assert "15 errors" in result.output  # 12 of the files, 3 of the split
    rows = [line.split("│")[1:3] for line in result.output.splitlines() if line.count("│") == 5]
    severities = [severity.strip() for severity, _ in rows if severity.strip()]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert "volume-11" in result.output


def test_options_of_one_dataset_pass_through_and_others_are_refused(tmp_path):
    words = ("brain_tumour", "--layout", "raw", "--coding=brats", "--cases", 2, "--size", 32)
    assert invoke("phantom", *words, "--out", tmp_path / "data").exit_code == 0
    assert (tmp_path / "data" / "BraTS20_Training_002").is_dir()
    check = ("check", "brain_tumour", tmp_path / "data", "--workers", 1)
    assert "0 errors, 1 warning, 0 notes" in invoke(*check, "--label-coding", "brats").output
    assert invoke(*check).exit_code == 1
    error = invoke(*check, "--label-codign", "brats").exception
    assert "only --label-coding as a further option of this dataset, found --label-codign" in str(error)
    error = invoke("check", "lits", ".", "--label-coding", "brats").exception
    assert "expected no further option of this dataset" in str(error)


def test_download_says_where_the_data_is_and_what_comes_next(tmp_path):
    (tmp_path / "Task03_Liver").mkdir()
    output = invoke("download", "lits", "--out", tmp_path).output
    assert f"lits is in {tmp_path / 'Task03_Liver'}" in output
    assert f"featherseg check lits {tmp_path / 'Task03_Liver'}" in output
    assert f"--config_file bundles/lits/train.json --dataset_dir {tmp_path / 'Task03_Liver'}" in output


def test_json_alone_is_on_standard_output(tmp_path):
    root = tmp_path / "faults"
    invoke("phantom", "lits", "--out", root, "--cases", 1, "--size", 48, "--faults")
    done = command("check", "lits", root, "--json")
    assert done.returncode == 1
    findings = json.loads(done.stdout)
    assert set(findings[0]) == {"severity", "kind", "case", "file", "message"}
    assert {"severity": "error", "kind": "nonfinite", "case": "volume-8"}.items() <= next(
        finding for finding in findings if finding["kind"] == "nonfinite"
    ).items()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("check", "lits", "nowhere"), "nowhere, found no such folder"),
        (("check", "litz", "."), "brain_tumour, ceus, dce_us, inbreast, lits, found 'litz'"),
        (("phantom", "lits", "--out", "OTHER"), "choose another --out"),
        (("check", "lits", "nowhere", "--split", "no.json"), "nowhere"),
        (("track", "nowhere"), "expected the folder of a run"),
    ],
)
def test_an_error_of_the_users_is_one_line_and_exit_code_2(tmp_path, words, message):
    (tmp_path / "thesis.tex").touch()
    done = command(*(tmp_path if word == "OTHER" else word for word in words))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("featherseg: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", [info.callback.__name__ for info in app.registered_commands])
def test_every_verb_has_help_with_an_example(verb):
    result = invoke(verb, "--help")
    assert result.exit_code == 0
    assert f"Example: featherseg {verb} " in result.output


def test_help_starts_without_the_heavy_imports():
    code = "import sys, pipelines.cli; print(*{'torch', 'monai', 'numpy', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(("sent", "code"), [(True, 0), (False, 2)])
def test_track_tells_whether_the_record_was_sent(monkeypatch, capsys, tmp_path, sent, code):
    from pipelines.cli import main

    monkeypatch.setattr(tracking, "send_record", lambda folder: sent)
    monkeypatch.setattr(sys, "argv", ["featherseg", "track", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code or 0) == code
    out, err = capsys.readouterr()
    assert ("MLflow has all of it" in out) == sent
    assert ("expected an MLflow server" in err) != sent


def test_baseline_prints_the_network_and_the_threshold_in_the_units_of_the_dataset(monkeypatch, tmp_path):
    truth = np.zeros((8, 8), bool)
    truth[2:5, 2:5] = True
    network = [{"case": "benign (1)", **scoring.score_case(truth, truth, (1, 1))}]
    rows = [{"case": "benign (1)", **scoring.score_case(~truth, truth, (1, 1))}]
    found = threshold.Comparison((3, 40), Levels("grey levels", 0, 255), rows, network, "pixels")
    monkeypatch.setattr(threshold, "beside_run", lambda folder: found)
    result = invoke("baseline", tmp_path)
    assert result.exit_code == 0
    first, second = result.output.split("fixed threshold, 3 to 40 grey levels")
    assert first.strip().startswith("network")
    assert "1.000 ± 0.000" in first
    assert "1.000" not in second
    assert result.output.count("HD95 (pixels)") == 2
    assert scoring.read_cases(tmp_path / "evaluation/baseline.csv") == rows


def test_networks_are_listed_with_paper_and_cost():
    result = invoke("networks")
    assert result.exit_code == 0
    line = next(line for line in result.output.splitlines() if "LighterUNet, C = 16" in line)
    for word in ("Li et al., ISBI 2021", "2,700,757", "3x256x256", "9.28", "group_size 16"):
        assert word in line


def test_networks_as_json_can_be_built_from_it():
    result = invoke("networks", "--json")
    records = {record["title"]: record for record in json.loads(result.stdout)}
    record = records["HighResUNet, no residuals"]
    network = NETWORKS[record["network"]](**record["arguments"])
    assert count_parameters(network) == record["parameters"] == 4_649_098
    assert record["image_size"] == [1, 1536, 1536]
    assert record["gmacs"] == pytest.approx(36.28, abs=0.01)

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from networks import count_parameters
from pipelines import sweep_plan
from pipelines.errors import DataError
from tests.conftest import ROOT

FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "bundles").glob("*/sweeps/*.yaml"))


@pytest.fixture
def plan(workspace):
    """Writes a sweep file, and gives its runs."""

    def write(text, more=None):
        Path("study.yaml").write_text(text)
        return sweep_plan.read("study.yaml", more)

    return write


GRID = """
bundle: dce_us
networks:
  "U-Net": {_target_: networks.PlainUNet}
  "C = 16": {group_size: 16}
overlays: [bundle, calipers_removed]
seeds: [3, 5]
folds: [0, 1]
training: [bundles/common/bfloat16.json]
options: {max_epochs: 2, image_size: [64, 64]}
"""


def test_a_grid_has_every_run_once_and_a_seed_of_everything_before_the_next(plan):
    jobs = plan(GRID)
    assert len({job.name for job in jobs}) == len(jobs) == 16
    assert [(job.seed, job.fold) for job in jobs[::4]] == [(3, 0), (3, 1), (5, 0), (5, 1)]
    stems = ["u-net-seed3", "c-16-seed3", "u-net-calipers-removed-seed3", "c-16-calipers-removed-seed3"]
    assert [job.name[: len(stem)] for job, stem in zip(jobs, stems, strict=False)] == stems
    assert {job.experiment for job in jobs} == {"dce_us-study"}
    assert jobs[0].folder == Path("runs/dce_us-study") / jobs[0].name


def test_its_commands_are_the_users(plan):
    job = plan(GRID, {"dataset_dir": "data/some where"})[3]
    options = [
        *("--experiment", "dce_us-study", "--run_name", job.name),
        *("--max_epochs", "2", "--image_size", "[64, 64]", "--dataset_dir", "data/some where"),
        *("--network_name", "C = 16", "--network_def#group_size", "16"),
    ]
    files = '["bundles/dce_us/train.json", "bundles/dce_us/experiments/calipers_removed.json", "{}"]'
    start = [sys.executable, "-m", "monai.bundle", "run"]
    training = [*start, "training", "--config_file", files.format("bundles/common/bfloat16.json"), *options]
    training += ["--fold", "0", "--seed", "3"]
    evaluating = [
        *start,
        "evaluating",
        "--config_file",
        files.format("bundles/common/evaluate.json"),
        *options,
    ]
    assert job.training() == training
    assert job.training(resume=True) == [*training, "--resume", "true"]
    assert job.evaluating() == evaluating
    both = shlex.split(job.in_words())
    assert both == ["python", *training[1:], "&&", "python", *evaluating[1:]]
    assert plan("bundle: dce_us")[0].training()[5:7] == ["--config_file", "bundles/dce_us/train.json"]


def test_a_run_is_found_again_and_a_changed_one_is_another(plan):
    name = "bundle-seed0-fold0".removeprefix("bundle-")

    def digest(text="", **more):
        (job,) = plan(f"bundle: dce_us\n{text}", more)
        assert job.name.startswith(name)
        return job.name[len(name) + 1 :]

    same = digest()
    assert len(same) == 6
    # Where things lie and what they are called makes no other run, nor does writing a default.
    assert digest(dataset_dir="elsewhere", num_workers=0) == same
    assert digest("experiment: other") == same
    assert digest("options: {max_epochs: 200}") == same
    others = [
        digest(max_epochs=3),
        digest("training: [bundles/common/bfloat16.json]"),
        digest(**{"network_def#group_size": 1}),
    ]
    assert len({same, *others}) == 4


def test_options_are_read_as_monai_reads_them(plan):
    words = [
        "--image_size",
        "[64,64]",
        "--early_stop_patience=None",
        "--dataset_dir",
        "data/a b",
        "--amp",
        "true",
    ]
    found = sweep_plan.options(words)
    assert found == {
        "image_size": [64, 64],
        "early_stop_patience": None,
        "dataset_dir": "data/a b",
        "amp": "true",
    }
    (typed,) = plan("bundle: dce_us", sweep_plan.options(["--image_size", "[64,64]", "--max_epochs", "3"]))
    (written,) = plan("bundle: dce_us\noptions: {image_size: [64, 64], max_epochs: 3}")
    assert typed == written
    for wrong in (["--seed"], ["max_epochs", "3"], ["--", "3"]):
        with pytest.raises(DataError, match="expected options as `--key value`, found "):
            sweep_plan.options(wrong)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("networks: {}", r"expected `bundle: NAME` in study.yaml, found none"),
        ("bundle: [", r"expected YAML in study.yaml, found: "),
        ("bundle: none", r"expected a bundle at bundles/none, as study.yaml says, found none"),
        ("bundle: dce_us\nseed: [1]", r"expected the keys bundle, .* in study.yaml, found seed"),
        ("bundle: dce_us\nseeds: 3", r"expected `seeds` in study.yaml to be a list, such as \[0\], found 3"),
        ("bundle: dce_us\nseeds: []", r"expected `seeds` in study.yaml to be a list"),
        ("bundle: dce_us\nseeds: [1, 1]", r"expected each of `seeds` in study.yaml once, found \[1, 1\]"),
        ("bundle: dce_us\nfolds: [a]", r"expected whole numbers as `folds` in study.yaml, found \['a'\]"),
        (
            "bundle: dce_us\noverlays: [ladder]",
            r"overlays out of bundle, calipers_removed, .*, found 'ladder'",
        ),
        (
            "bundle: dce_us\ntraining: [no.json]",
            r"expected the overlay no.json, as study.yaml says, found no",
        ),
        ("bundle: dce_us\nnetworks: [a]", r"expected `networks` in study.yaml to be names and values"),
        ("bundle: dce_us\nnetworks: {a: 3}", r"expected arguments of the network 'a' in study.yaml, found 3"),
        ("bundle: dce_us\nnetworks: {A: {}, a: {}}", r"expected networks that differ in study.yaml"),
        ("bundle: dce_us\nnetworks: {a: {_target_: networks.No}}", r"can be imported, found networks.No"),
        ("bundle: dce_us\nnetworks: {a: {width: 3}}", r"arguments that networks.LighterUNet takes.*'width'"),
        ("bundle: dce_us\noptions: [3]", r"expected `options` in study.yaml to be names and values"),
        (
            "bundle: dce_us\noptions: {epochs: 3}",
            r"options that bundles/dce_us/train.json has.* lacks: epochs",
        ),
        ("bundle: dce_us\noptions: {'loss#a#b': 3}", r"options that bundles/dce_us/train.json has"),
        ("bundle: dce_us\noptions: {seed: 3}", r"a sweep of study.yaml does not set itself, found seed"),
    ],
)
def test_a_mistake_is_one_clear_line_before_anything_runs(plan, text, message):
    with pytest.raises(DataError, match=message) as error:
        plan(text)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(workspace):
    with pytest.raises(DataError, match=r"expected a sweep file at no.yaml, found none"):
        sweep_plan.read("no.yaml")


def readme_parameters():
    """Parameters of the networks in the README's table, by their titles there."""
    rows = [
        line.split("|") for line in (ROOT / "README.md").read_text().splitlines() if line.count("|") == 12
    ]
    found = {row[1].strip(): row[4].strip().replace(",", "") for row in rows}
    return {title: int(number) for title, number in found.items() if number.isdigit()}


def title(network):
    """What the README's table calls a network of a sweep file."""
    ours = {"U-Net": "PlainUNet", "Light": "LightUNet", "MONAI BasicUNet": "MONAI BasicUNet, default"}
    ours |= {"MONAI DynUNet": "MONAI DynUNet, default widths"}
    if network in ours:
        return ours[network]
    if network.startswith("MONAI"):
        return f"{network}, Li's widths"
    network = network.replace("DeepLab v3+ ", "DeepLabV3Plus, ").replace("Lighter C=", "LighterUNet, C = ")
    return network.replace("-32s", "32s").replace("-16s", "16s").replace("-8s", "8s")


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_sweep_file_builds_its_networks_with_their_parameters(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    counts = readme_parameters()
    for job in sweep_plan.read(file):
        options = dict(job.options)
        if job.seed:
            continue
        parser = ConfigParser()
        parser.read_config([*job.files, *job.training_files])
        parser.update(options)
        with torch.device("meta"):  # sizes without weights
            network = parser.get_parsed_content("network_def")
        name = options.get("network_name", "")
        if not name or "half width" in name:  # of the bundle, or made for this file
            assert count_parameters(network) > 1_000_000
        else:
            assert count_parameters(network) == counts[title(name)], name


def test_sweep_files_are_those_of_the_papers(monkeypatch):
    monkeypatch.chdir(ROOT)
    runs = {file.stem: sweep_plan.read(file) for file in FILES}
    sizes = {name: len(jobs) for name, jobs in runs.items()}
    assert sizes == {
        "ablation": 7 * 3,
        "architectures": 5 * 3,
        "busi": 19 * 3,
        "busi_cpu": 9 * 3,
        "busi_cpu_calipers": 2 * 3,
        "calipers": 2 * 3,
        "ladder": 7,
        "losses": 4 * 3,
        "li_table_1": 6 * 3,
        "li_table_2": 10 * 3,
    }
    # Every overlay of the bundles belongs to one.
    for bundle, names in {"dce_us": ("ladder", "calipers"), "ceus": ("ablation",)}.items():
        overlays = {path.name for path in (ROOT / "bundles" / bundle / "experiments").glob("*.json")}
        used = {Path(path).name for name in names for job in runs[name] for path in job.files}
        assert used == {"train.json", *overlays}
    # Of brain tumours all but those of a single class or region.
    experiments = (ROOT / "bundles/brain_tumour/experiments").glob("*.json")
    overlays = {path.name for path in experiments if not path.name.startswith(("class_", "region_"))}
    used = {
        Path(path).name for name in ("architectures", "losses") for job in runs[name] for path in job.files
    }
    assert used == {"train.json", *overlays}
    # Images and precision of the paper, but for the one that says otherwise.
    for name in ("busi", "li_table_1", "li_table_2"):
        assert {key for job in runs[name] for key, _ in job.options if "#" not in key} == {"network_name"}


@pytest.mark.parametrize("target", ["ladder", "calipers", "ablation"])
def test_the_make_targets_run_their_sweeps(target):
    words = ["make", "--no-print-directory", "--dry-run", "-o", "install", target]
    shown = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = [shlex.split(line) for line in shown.replace("\\\n", " ").splitlines()]
    sweep = next(line for line in lines if "sweep" in line)
    file = Path(sweep[2])
    assert (ROOT / file).is_file()
    assert lines[-1][1:] == ["compare", yaml.safe_load((ROOT / file).read_text())["experiment"], "--grid"]
    phantom = next(line for line in lines if "phantom" in line)
    options = sweep_plan.options(sweep[3:])
    assert options["dataset_dir"] == phantom[phantom.index("--out") + 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert sweep_plan.read(file, options)

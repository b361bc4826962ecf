"""What every bundle does alike, by the commands that its users type."""

import ast
import json
import signal
import time

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out

from pipelines import datasets
from pipelines.scoring import read_cases
from tests.bundles.running import (
    BUNDLES,
    EVALUATING,
    begin,
    for_inference,
    run,
    run_in_two,
    runs_of,
    small,
    torchrun,
    train,
)
from tests.conftest import ROOT

every_bundle = pytest.mark.parametrize("bundle", BUNDLES)


@every_bundle
def test_training_leaves_all_that_a_run_writes(workspaces, bundle):
    folder, out = workspaces(bundle)
    made = folder / "runs" / bundle / "a"
    names = {path.name for path in made.iterdir()}
    assert {"model.pt", "last.pt", "config.json", "split.json", "cases.csv", "report.md", "pictures"} <= names
    assert "epoch 2/2" in out
    assert json.loads((made / "config.json").read_text())["max_epochs"] == 2
    assert {path.name for path in folder.iterdir()} >= {"bundles", "data", "mlruns", "mlruns.db", "runs"}


@every_bundle
def test_training_is_tracked(workspaces, bundle):
    folder, _ = workspaces(bundle)
    client, found = runs_of(folder, bundle)
    one = found["a"]
    assert one.info.status == "FINISHED"
    params = one.data.params
    assert (params["max_epochs"], params["network"], params["fold"]) == ("2", "BasicUNet", "0")
    assert {"parameters", "GMACs", "dataset_fingerprint", "code_version", "seed"} <= params.keys()
    metrics = one.data.metrics.keys()
    assert {"train_loss", "lr", "val_dice", "val_iou", "val_hd95", "val_lesions_missed"} <= metrics
    assert {"val_dice_global", "val_lesions_false", "val_cases_missed"} <= metrics
    assert len(client.get_metric_history(one.info.run_id, "val_dice")) == 2
    kept = {artifact.path for artifact in client.list_artifacts(one.info.run_id)}
    assert {"config.json", "split.json", "model.pt", "report.md", "cases.csv", "pictures"} <= kept


@every_bundle
def test_evaluation_scores_all_cases_of_the_patients_held_out(evaluations, bundle):
    folder, out = evaluations(bundle)
    made = folder / "runs" / bundle / "a"
    assert f"weights: runs/{bundle}/a/model.pt" in out
    own, grid = (read_cases(made / f"evaluation/{name}.csv") for name in ("cases", "cases_on_grid"))
    assert [row["case"] for row in own] == [row["case"] for row in grid]
    assert f"Of {len(own)} cases: missed" in out
    assert "On the network's grid: Dice" in out
    held_out = json.loads((made / "split.json").read_text())["folds"][0]
    if bundle == "inbreast":  # whose images are called by numbers of their own
        cases = datasets.get(bundle).index(folder / "data" / bundle)
        assert {row["case"] for row in own} == {c["case"] for c in cases if c["patient"] in held_out}
    else:
        assert all(any(patient in row["case"] for patient in held_out) for row in own)
        assert len(own) == len(held_out) * {"lits": 1, "brain_tumour": 1, "dce_us": 2, "ceus": 2}[bundle]
    _, found = runs_of(folder, bundle)
    assert {"test_dice", "test_grid_dice", "test_hd95"} <= found["a"].data.metrics.keys()


@every_bundle
def test_a_finished_run_is_not_trained_over(workspaces, bundle):
    folder, _ = workspaces(bundle)
    out = run(folder, "training", train(bundle), expect=1, run_name="a", max_epochs=2, **small(bundle))
    assert f"featherseg: expected a new folder for the run, found one in runs/{bundle}/a" in out
    assert "Traceback" not in out


@every_bundle
def test_the_smoke_experiment_runs(workspaces, bundle):
    folder, _ = workspaces(bundle)
    options = {"run_name": f"smoke-{bundle}", "num_folds": 3}
    # The bundle's own network is part of what is tried, where it takes seconds.
    run(folder, "training", f"['{train(bundle)}','bundles/common/smoke.json']", **options)
    assert (folder / f"runs/smoke/smoke-{bundle}/model.pt").is_file()
    assert not (folder / f"runs/{bundle}/smoke-{bundle}").exists()


@pytest.mark.parametrize(("config", "kind"), [("train", "train"), ("inference", "infer")])
@every_bundle
def test_no_property_of_a_bundle_is_missing(workspaces, monkeypatch, bundle, config, kind):
    folder, _ = workspaces(bundle)
    monkeypatch.chdir(folder)
    options = small(bundle) if kind == "train" else for_inference(bundle)
    options = {key: ast.literal_eval(value) for key, value in options.items()}
    workflow = ConfigWorkflow(
        f"bundles/{bundle}/{config}.json",
        workflow_type=kind,
        logging_file=False,
        init_id="none",
        dataset_dir=f"data/{bundle}",
        **options,
    )
    workflow.initialize()
    assert workflow.check_properties() == []


@every_bundle
def test_the_metadata_is_that_of_the_network(tmp_path, monkeypatch, bundle):
    # The fields that MONAI's schema of 2024-07-25 requires; with a schema at hand, nothing is downloaded.
    tensor = ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"]
    top = ["schema", "version", "monai_version", "pytorch_version", "numpy_version"]
    top += ["required_packages_version", "task", "description", "authors", "copyright", "network_data_format"]
    io = {"additionalProperties": {"type": "object", "required": tensor}}
    schema = {
        "type": "object",
        "required": top,
        "properties": {
            "network_data_format": {"required": ["inputs", "outputs"], "additionalProperties": io}
        },
    }
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    monkeypatch.chdir(ROOT)
    meta = f"bundles/{bundle}/metadata.json"
    verify_metadata(meta_file=meta, filepath=str(tmp_path / "schema.json"))
    # Mammograms of their full size would take a processor long.
    smaller = {"_meta_#network_data_format#inputs#image#spatial_shape": [128, 128]}
    override = smaller if bundle == "inbreast" else {}
    verify_net_in_out("network_def", meta_file=meta, config_file=train(bundle), device="cpu", **override)


# Of lits, test_resume.py has more.
@pytest.mark.parametrize(
    ("bundle", "options"), [("dce_us", {"plateau_epochs": 1}), ("ceus", {}), ("brain_tumour", {})]
)
def test_a_killed_training_ends_as_one_that_was_not(workspaces, bundle, options):
    folder, _ = workspaces(bundle)
    options = {**small(bundle), "max_epochs": 4, **options}
    run(folder, "training", train(bundle), run_name="whole", **options)
    log = folder / "killed.log"
    process = begin(folder, log, "training", train(bundle), run_name="killed", **options)
    while process.is_alive() and "epoch 2/4" not in log.read_text():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert "epoch 4/4" not in log.read_text()
    out = run(folder, "training", train(bundle), run_name="killed", resume="true", **options)
    assert "epoch 4/4" in out
    assert "epoch 1/4" not in out
    kept = (folder / f"runs/{bundle}/{name}/last.pt" for name in ("whole", "killed"))
    whole, killed = (torch.load(path, weights_only=True) for path in kept)
    assert all(torch.equal(value, killed["network"][key]) for key, value in whole["network"].items())
    assert whole["lr_scheduler"] == killed["lr_scheduler"]
    assert whole["best"] == killed["best"]
    _, found = runs_of(folder, bundle)
    assert found["killed"].info.status == "FINISHED"


@every_bundle
def test_two_processes_share_the_work(workspaces, bundle):
    folder, _ = workspaces(bundle)
    # Nothing is prepared yet, so that both begin with it.
    fresh = {"cache_dir": "fresh/cache", **({"frames_dir": "fresh/frames"} if bundle == "ceus" else {})}
    configs = f"['{train(bundle)}','bundles/common/multi_gpu.json']"
    start = torchrun if bundle == "lits" else run_in_two
    out = start(folder, "training", configs, run_name="two", max_epochs=1, **fresh, **small(bundle))
    assert out.count("epoch 1/1") == 1
    # Every validated case once, whichever process had it.
    one, two = (read_cases(folder / f"runs/{bundle}/{name}/cases.csv") for name in ("a", "two"))
    assert [row["case"] for row in two] == [row["case"] for row in one]
    # What is found from the training cases is the same, whoever looked at them.
    one, two = (json.loads((folder / f"runs/{bundle}/{name}/run.json").read_text()) for name in ("a", "two"))
    assert one["model_settings"] == two["model_settings"]
    _, found = runs_of(folder, bundle)
    assert found["two"].info.status == "FINISHED"


@pytest.mark.parametrize("bundle", ["inbreast"])  # whose report has all that there is
def test_two_processes_evaluate_each_case_once(evaluations, bundle):
    folder, _ = evaluations(bundle)
    made = folder / "runs" / bundle / "a"
    alone = {path.name: path.read_bytes() for path in (made / "evaluation").glob("*.csv")}
    configs = f"['{train(bundle)}','bundles/common/multi_gpu.json','{EVALUATING}']"
    out = run_in_two(folder, "evaluating", configs, run_name="a", **small(bundle))
    assert out.count("mean ± std. dev.") == 1
    assert {path.name: path.read_bytes() for path in (made / "evaluation").glob("*.csv")} == alone


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train#trainer#max_epochs", 3),
        ("train#trainer#amp", False),
        ("train#dataset#data", []),
        ("train#dataloader#num_workers", 3),
        ("train#handlers", []),
        ("validate#evaluator#amp", False),
        ("validate#dataset#data", []),
        ("validate#dataloader#num_workers", 3),
        ("network_def#out_channels", 2),
        ("optimizer#lr", 1.0),
        ("loss#reduction", "sum"),
    ],
)
@every_bundle
def test_what_users_and_other_tools_override_can_be(monkeypatch, bundle, key, value):
    monkeypatch.chdir(ROOT)
    parser = ConfigParser()
    parser.read_config(train(bundle))
    parser.update({key: value})
    parser.resolve_macro_and_relative_ids()
    assert parser.get(key) == value
    assert '"%' not in json.dumps(parser.get())  # no macro stayed behind


@pytest.mark.parametrize(
    "overlay", sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("bundles/*/experiments/*.json"))
)
def test_an_overlay_changes_what_is_there(monkeypatch, overlay):
    monkeypatch.chdir(ROOT)
    bundle = overlay.split("/")[1]
    whole, changed = ConfigParser(), ConfigParser()
    whole.read_config(train(bundle))
    changed.read_config([train(bundle), overlay])
    for key, value in json.loads((ROOT / overlay).read_text()).items():
        parent, _, last = key.replace("#", "::").rpartition("::")
        known = whole.get(parent) if parent else whole.get()
        # An argument of the network may be left to its default; anything else has to be known.
        assert parent == "network_def" or last in known, f"{overlay} sets {key}, of which nothing is known"
        assert parent == "network_def" or changed.get(key) != whole.get(key) or isinstance(value, str)

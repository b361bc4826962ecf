import io
from types import SimpleNamespace

import pytest
import torch
from mlflow.entities import Metric, Param, RunTag

from pipelines import compare_mlflow, folds, package_configs, package_weights, registry, weights
from pipelines.errors import DataError
from pipelines.files import write_json
from tests.pipelines.package_runs import EVALUATED, PATIENTS, make_run, network
from tests.pipelines.tracked_runs import START, client_of

KEPT = {"test_dice": 0.8123, "test_hd95": 4.5, "test_cases": 2}


@pytest.fixture
def run(workspace):
    return make_run(workspace / "runs/lits/mine", "lits")


def test_a_run_brings_its_record_its_options_and_its_figures(run):
    found = package_weights.from_file("lits", run)
    assert found.name == "run mine"
    assert found.record["network_def"]["features"] == [4, 4, 8, 8, 8, 4]
    assert found.record["trained_on"]["dataset_fingerprint"] == "0123456789abcdef"
    assert found.record["trained_on"]["split"] == folds.digest(PATIENTS)
    assert found.config["max_epochs"] == 3
    assert found.figures == KEPT
    assert type(found.figures["test_cases"]) is int
    assert not found.shipped


def test_figures_of_other_weights_or_of_an_earlier_epoch_are_left_out(run):
    with (run.parent / "tracking.jsonl").open("a") as journal:
        journal.write('{"kind": "metrics", "time": 9, "step": 4, "values": {"val_dice": 0.9}}\n')
    assert package_weights.from_file("lits", run).figures == {}
    make_run(run.parent, "lits")
    last = run.with_name("last.pt")
    torch.save({"network": torch.load(run, weights_only=True)}, last)
    found = package_weights.from_file("lits", last)
    assert (found.name, found.figures) == ("run mine, last.pt", {})
    make_run(run.parent, "lits", figures=None)
    assert package_weights.from_file("lits", run).figures == {}


def test_a_registered_version_has_the_figures_of_its_run(run, tmp_path, monkeypatch):
    folder = tmp_path / "registry/3"
    weights.shrink(run, folder / "model.safetensors", torch.float32)
    write_json(folder / "run.json", {"network": "BasicUNet", "mlflow_run_id": "1234"})
    folds.write_split(folder / "split.json", [["a"], ["b"]])
    known = {"1234": SimpleNamespace(data=SimpleNamespace(metrics=EVALUATED))}
    client = SimpleNamespace(get_run=known.__getitem__)
    monkeypatch.setattr(registry, "local", lambda name: str(folder / "model.safetensors"))
    monkeypatch.setattr(compare_mlflow, "connect", lambda: client)
    found = package_weights.from_file("lits", "models:/lits@champion")
    assert found.name == "models:/lits@champion, version 3"
    assert found.figures == KEPT
    assert found.record["trained_on"]["split"] == folds.digest([["a"], ["b"]])


def test_weights_that_ship_are_known_as_such(workspace):
    found = package_weights.from_file("dce_us", "bundles/dce_us/models/model.safetensors")
    assert found.shipped
    assert found.name == "those that ship with the bundle"
    assert found.record["network_def"]["group_size"] == 16
    assert found.figures == {}


def test_weights_of_another_bundle_are_refused(run):
    with pytest.raises(
        DataError, match=r"expected weights of ceus, found those of lits .*package lits --che"
    ):
        package_weights.from_file("ceus", run)


def test_no_weights_are_told(workspace):
    with pytest.raises(DataError, match=r"expected weights at nothing\.pt, found no such file"):
        package_weights.from_file("lits", "nothing.pt")
    (workspace / "text.pt").write_text("no weights")
    with pytest.raises(DataError, match=r"expected weights in text\.pt, found a file that PyTorch"):
        package_weights.from_file("lits", "text.pt")


def test_weights_of_another_network_are_refused(workspace):
    torch.save(torch.nn.Conv2d(1, 1, 3).state_dict(), "other.pt")
    found = package_weights.from_file("lits", "other.pt")
    assert found.record == {}
    with pytest.raises(
        DataError, match=r"expected weights of BasicUNet as configured, found others in other"
    ):
        package_weights.network_of(found, network(1))


def test_the_model_is_a_plain_state_in_full_precision(run, tmp_path):
    weights.shrink(run, tmp_path / "half.safetensors")
    found = package_weights.from_file("lits", tmp_path / "half.safetensors")
    built = package_weights.network_of(found, network(1))
    content = package_weights.model_file(built)
    assert content == package_weights.model_file(built)
    state = torch.load(io.BytesIO(content), weights_only=True)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    halved = weights.state_of(tmp_path / "half.safetensors")
    assert all(torch.equal(tensor, halved[key].float()) for key, tensor in state.items())


def track(client, folder, name, losses, bundle="dce_us", status="FINISHED"):
    """Add a run to MLflow with its validation loss of each epoch; returns its id."""
    file = make_run(folder / name, bundle, learning_rate=losses[0])
    experiment = client.get_experiment_by_name("dce_us").experiment_id
    run_id = client.create_run(experiment, start_time=START, run_name=name).info.run_id
    metrics = [Metric("val_loss", loss, START, epoch) for epoch, loss in enumerate(losses, start=1)]
    metrics += [Metric(key, value, START, 0) for key, value in EVALUATED.items()]
    tags = {"bundle": bundle, "data": "0123456789abcdef", "fold": "0", "seed": "0"}
    params = [Param("network", "BasicUNet"), Param("dataset_fingerprint", "0123456789abcdef")]
    client.log_batch(run_id, metrics, params, [RunTag(key, value) for key, value in tags.items()])
    client.log_artifacts(run_id, str(file.parent))
    client.set_terminated(run_id, status)
    return run_id


def test_the_best_run_of_an_experiment_is_that_of_the_best_epoch_kept(workspace, tmp_path, capsys):
    client = client_of(workspace)
    track(client, tmp_path, "ends-well", [0.9, 0.5, 0.4])
    track(client, tmp_path, "was-best-once", [0.9, 0.3, 0.8])
    track(client, tmp_path, "failed", [0.1], status="FAILED")
    track(client, tmp_path, "other", [0.1], bundle="ceus")
    train = package_configs.flat("bundles/dce_us/train.json")
    (workspace / "scratch").mkdir()
    found = package_weights.from_experiment("dce_us", "dce_us", train, workspace / "scratch")
    assert found.name == "run was-best-once"
    assert found.config["learning_rate"] == 0.9
    assert found.figures == KEPT
    assert found.record["network"] == "BasicUNet"
    assert found.record["trained_on"]["split"] == folds.digest(PATIENTS)
    assert found.file.is_file()
    assert "best of 2 finished runs of dce_us, by val_loss 0.3: was-best-once" in capsys.readouterr().out
    with pytest.raises(DataError, match="expected finished runs of lits in the experiment dce_us"):
        package_weights.from_experiment("lits", "dce_us", train, workspace / "scratch")
    with pytest.raises(DataError, match="expected the experiment 'none'"):
        package_weights.from_experiment("dce_us", "none", train, workspace / "scratch")

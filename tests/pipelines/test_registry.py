import json

import mlflow
import numpy as np
import pytest
import torch
from mlflow.entities import Metric, Param, RunTag
from monai.networks.nets import BasicUNet

from pipelines import registry, weights
from pipelines.errors import DataError
from pipelines.files import read_json, write_json
from pipelines.tracking import tracking_uri

NETWORK = {"_target_": "BasicUNet", "spatial_dims": 2, "in_channels": 3, "out_channels": 1}
NETWORK |= {"features": [4, 4, 8, 8, 8, 4]}
TAGS = {
    "bundle": "dce_us",
    "network": "BasicUNet, tiny",
    "seed": "1",
    "fold": "0",
    "data": "0123456789abcdef",
}
FIGURES = {"test_dice": 0.75, "test_dice_std": 0.125, "test_hd95": 20.5, "test_cases": 96}
FIGURES |= {"test_cases_missed": 3, "test_lesions_false": 4}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A workspace with an MLflow store of its own; gives its client."""
    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'store.db'}")
        client = mlflow.MlflowClient(tracking_uri())
        for name in ("dce_us", "sweep"):
            client.create_experiment(name, (folder / "mlruns").as_uri())
        yield client


@pytest.fixture
def make_run(store, tmp_path):
    """Gives a function that records a run as a training and an evaluation leave it; returns its id."""

    def make(name, experiment="dce_us", status="FINISHED", figures=FIGURES, bundle="dce_us"):
        where = store.get_experiment_by_name(experiment).experiment_id
        run_id = store.create_run(where, run_name=name).info.run_id
        tags = [RunTag(key, value) for key, value in {**TAGS, "bundle": bundle}.items()]
        metrics = [Metric(key, value, 0, 0) for key, value in figures.items()]
        params = [Param("network", "BasicUNet"), Param("parameters", "1234")]
        store.log_batch(run_id, metrics, params, tags)
        torch.manual_seed(0)
        torch.save(BasicUNet(2, 3, 1, (4, 4, 8, 8, 8, 4)).state_dict(), tmp_path / "model.pt")
        write_json(tmp_path / "split.json", {"folds": [["1"], ["2"]]})
        config = {"bundle": bundle, "fold": 0, "seed": 1, "image_size": [32, 48], "network_def": NETWORK}
        config |= {"model_settings": {"image_size": "@image_size"}, "input_shape": "$[3, *@image_size]"}
        write_json(tmp_path / "config.json", config)
        for file in ("model.pt", "split.json", "config.json"):
            store.log_artifact(run_id, str(tmp_path / file))
        if status != "RUNNING":
            store.set_terminated(run_id, status)
        return run_id

    return make


def test_a_run_becomes_a_version_with_its_card(store, make_run):
    run_id = make_run("best")
    assert registry.promote(run_id) == registry.Promotion("dce_us", "1", "champion", made=True)
    version = store.get_model_version_by_alias("dce_us", "champion")
    assert version.run_id == run_id
    expected = {"run_name": "best", "test_dice": "0.75", "test_hd95": "20.5", "test_cases_missed": "3"}
    expected |= {"test_lesions_false": "4", "data": "0123456789abcdef", "seed": "1", "fold": "0"}
    assert expected.items() <= version.tags.items()
    assert "dice 0.75, dice_std 0.125, hd95 20.5" in version.description
    assert '"features": [4, 4, 8, 8, 8, 4]' in version.description
    assert "not for diagnosis" in version.description


def test_a_run_is_registered_once_and_its_alias_moves(store, make_run):
    one = registry.promote(make_run("one", bundle="lits"))
    two = registry.promote(make_run("two", bundle="lits"))
    assert [(p.name, p.version, p.made) for p in (one, two)] == [("lits", "1", True), ("lits", "2", True)]
    again = registry.promote("one")
    assert again == registry.Promotion("lits", "1", "champion", made=False)
    assert store.get_model_version_by_alias("lits", "champion").version == 1
    registry.promote("two", alias="challenger")
    assert store.get_registered_model("lits").aliases == {"champion": 1, "challenger": 2}
    assert len(store.search_model_versions("name = 'lits'")) == 2


def test_mlflow_loads_it_without_pickle_and_gives_the_networks_logits(store, make_run, tmp_path):
    registry.promote(make_run("loaded", bundle="loaded"))
    mlflow.set_tracking_uri(tracking_uri())
    model = mlflow.pyfunc.load_model("models:/loaded@champion")
    network = BasicUNet(2, 3, 1, (4, 4, 8, 8, 8, 4)).eval()
    network.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    images = np.random.default_rng(1).normal(size=(2, 3, 32, 48)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(model.predict(images), expected, atol=1e-6)
    assert [spec.shape for spec in model.metadata.signature.inputs] == [(-1, 3, 32, 48)]
    assert [spec.shape for spec in model.metadata.signature.outputs] == [(-1, 1, 32, 48)]
    with pytest.raises(mlflow.MlflowException):
        model.predict(images[:, :1])
    made = mlflow.artifacts.download_artifacts("models:/loaded/1", dst_path=str(tmp_path / "got"))
    suffixes = {path.suffix for path in (tmp_path / "got").rglob("*") if path.is_file()}
    assert ".safetensors" in suffixes
    assert not suffixes & {".pkl", ".pt", ".pth", ".pickle"}, made
    example = json.loads((tmp_path / "got" / "input_example.json").read_text())
    assert np.shape(example) == (1, 3, 32, 48) or np.shape(example.get("inputs")) == (1, 3, 32, 48)


def test_a_registered_model_is_fetched_once_with_its_record(store, make_run, tmp_path, capsys):
    run_id = make_run("fetched", bundle="fetched")
    registry.promote(run_id)
    path = registry.local("models:/fetched@champion")
    assert path == "runs/fetched/registry/1/model.safetensors"
    assert "models:/fetched@champion: version 1, kept in runs/fetched/registry/1" in capsys.readouterr().out
    state, given = weights.state_of(path), torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(state[key], given[key]) for key in given)
    record = weights.record_of(path)
    assert record["network_def"] == NETWORK
    assert record["model_settings"] == {"image_size": [32, 48]}
    note = read_json("runs/fetched/registry/1/run.json")
    assert (note["fold"], note["bundle"], note["mlflow_run_id"]) == (0, "dce_us", run_id)
    assert read_json("runs/fetched/registry/1/split.json") == {"folds": [["1"], ["2"]]}
    before = (registry.ROOT / "fetched/registry/1/model.safetensors").stat().st_mtime_ns
    assert registry.local("models:/fetched/1") == path
    assert (registry.ROOT / "fetched/registry/1/model.safetensors").stat().st_mtime_ns == before
    # The same number of a model that was deleted and made again is another model.
    store.delete_registered_model("fetched")
    registry.promote(make_run("again", bundle="fetched"))
    assert registry.local("models:/fetched/1") == path
    assert read_json("runs/fetched/registry/1/run.json")["mlflow_run_id"] != run_id
    assert registry.local("runs/a/model.pt") == "runs/a/model.pt"


def test_what_is_not_registered_is_answered_with_what_is(store, make_run):
    registry.promote(make_run("known", bundle="known"), alias="first")
    for uri, message in (
        ("models:/known@nobody", "found nobody; versions: 1; aliases: first"),
        ("models:/known/7", "found 7; versions: 1; aliases: first"),
        ("models:/strange/1", "found models:/strange/1; registered models: .*known"),
        ("models:/known", "expected models:/NAME@ALIAS or models:/NAME/VERSION, found models:/known;"),
    ):
        with pytest.raises(DataError, match=message):
            registry.local(uri)


def test_a_run_that_is_not_ready_is_refused_with_what_to_type(store, make_run):
    make_run("failed", status="FAILED")
    with pytest.raises(DataError, match=r"expected a finished run, found failed FAILED; .* --resume true"):
        registry.promote("failed")
    make_run("unscored", figures={}, experiment="sweep")
    with pytest.raises(
        DataError, match=r"without test_dice; .* evaluating .* --run_name unscored --experiment sw"
    ):
        registry.promote("unscored")


def test_a_run_is_found_by_name_id_or_folder(store, make_run, tmp_path):
    ids = [make_run("same"), make_run("same", experiment="sweep")]
    with pytest.raises(DataError, match="expected one run called same, found 2") as told:
        registry.promote("same")
    assert all(run_id in str(told.value) for run_id in ids)
    for given, experiment, found in (("same", "sweep", ids[1]), (ids[0], None, ids[0])):
        assert registry.find_run(store, given, experiment).info.run_id == found
    write_json(tmp_path / "run" / "run.json", {"mlflow_run_id": ids[0]})
    assert registry.find_run(store, tmp_path / "run").info.run_id == ids[0]
    write_json(tmp_path / "run" / "run.json", {})
    with pytest.raises(DataError, match=r"a run that MLflow has, found .*run.*`featherseg track"):
        registry.find_run(store, tmp_path / "run")
    with pytest.raises(DataError, match="found no run none-such in any experiment"):
        registry.promote("none-such")


def test_nothing_is_reported_over_the_internet(store, make_run, monkeypatch):
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    registry.promote(make_run("quiet", bundle="quiet"))
    assert mlflow.environment_variables.MLFLOW_DISABLE_TELEMETRY.get()


def test_a_store_that_is_not_there_is_not_made(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlruns.db'}")
    for ask in (lambda: registry.local("models:/dce_us@champion"), lambda: registry.promote("best")):
        with pytest.raises(DataError, match="found no such file; go to the folder"):
            ask()
    assert not list(tmp_path.iterdir())


def test_no_password_is_shown(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(DataError, match=r"expected MLflow at http://127\.0\.0\.1:9") as told:
        registry.promote("best")
    assert "secret" not in str(told.value)


def test_a_server_that_is_away_is_one_line(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for ask in (lambda: registry.local("models:/dce_us@champion"), lambda: registry.promote("best")):
        with pytest.raises(DataError, match=r"expected MLflow at http://127.0.0.1:9, found that it does not"):
            ask()

import json
import os
import signal

import mlflow
import pytest
import torch
from ignite.engine import Engine

from pipelines import runs, sources
from pipelines.errors import DataError
from pipelines.recording import (
    TrainingRecord,
    evaluation_folder,
    record_evaluation,
    recorder,
    same_data,
)
from pipelines.tracking import tracking_uri


@pytest.fixture
def run(workspace):
    run = runs.Run("runs/lits/a", "lits")
    run.begin([["0"], ["1"]], 0, {}, torch.nn.Identity())
    return run


def train(run, cases, step=lambda engine, batch: {"loss": batch["loss"]}):
    network = torch.nn.Conv2d(1, 1, 3)
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state.epoch = 0
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    trainer = Engine(step)
    TrainingRecord(run, evaluator, network, optimizer, (1, 8, 8), cases).attach(trainer)
    batches = [{"image": torch.zeros(2, 1, 8, 8), "loss": torch.tensor(loss)} for loss in (1.0, 2.0, 6.0)]
    trainer.run(batches, max_epochs=2)
    return run


def in_mlflow(run):
    return mlflow.MlflowClient(tracking_uri()).get_run(run.note["mlflow_run_id"])


def test_a_training_is_recorded_from_start_to_end(run, cases, capsys):
    found = in_mlflow(train(run, cases))
    assert found.info.status == "FINISHED"
    assert found.data.metrics["train_loss"] == 3
    assert found.data.metrics["lr"] == 0.5
    # Six images an epoch, in the part of its seconds that trained.
    assert found.data.metrics["images_per_second"] >= 6 / found.data.metrics["epoch_seconds"]
    tags = found.data.tags
    assert (tags["bundle"], tags["overlay"], tags["fold"], tags["device"]) == ("lits", "-", "0", "cpu")
    assert tags["data"] == found.data.params["dataset_fingerprint"]
    assert len({tags[key] for key in ("split", "code", "recipe")}) == 3
    assert (found.data.params["parameters"], found.data.params["GMACs"]) == ("10", "0.0")
    assert run.note["status"] == runs.FINISHED
    assert "epoch 2/2  loss 3.0000" in capsys.readouterr().out
    assert (run.folder / "model.pt").is_file()
    assert (run.folder / "pictures/curves.png").is_file()


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_a_crash_and_ctrl_c_close_the_run_as_failed_and_pass_on(run, cases, error):
    def step(engine, batch):
        raise error

    with pytest.raises(type(error)):
        train(run, cases, step)
    assert in_mlflow(run).info.status == "FAILED"
    assert run.note["status"] == runs.FAILED


def test_a_termination_signal_closes_the_run_as_failed(run, cases):
    before = signal.getsignal(signal.SIGTERM)

    def step(engine, batch):
        os.kill(os.getpid(), signal.SIGTERM)
        return {"loss": torch.tensor(0.0)}

    try:
        with pytest.raises(SystemExit):
            train(run, cases, step)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert in_mlflow(run).info.status == "FAILED"


def test_a_resumed_run_keeps_its_parameters_and_goes_on(run, cases):
    train(run, cases)
    first = run.note["mlflow_run_id"]
    run.end(runs.FAILED)
    again = runs.Run("runs/lits/a", "lits", resume=True)
    again.begin([["0"], ["1"]], 0, {}, torch.nn.Identity())
    train(again, cases)
    assert again.note["mlflow_run_id"] == first
    records = [json.loads(line) for line in (run.folder / "tracking.jsonl").read_text().splitlines()]
    assert sum(record["kind"] == "params" for record in records) == 1


def test_a_run_that_goes_on_with_other_code_is_like_neither(run, cases, monkeypatch):
    train(run, cases)
    before = in_mlflow(run).data.tags
    run.end(runs.FAILED)
    monkeypatch.setattr(sources, "loaded", lambda: "another")
    train(run, cases)
    now = in_mlflow(run).data.tags
    assert now["code"] not in (before["code"], "another")
    assert {key for key in now if now[key] != before.get(key)} == {"code"}


def test_a_run_does_not_go_on_with_other_images(run, cases):
    train(run, cases)
    with open(cases[0]["image"], "ab") as file:
        file.write(b"more")
    with pytest.raises(DataError, match="expected the dataset that runs/lits/a was trained with"):
        same_data(run.folder, cases)


def test_other_weights_than_the_best_leave_the_figures_of_the_run_alone(run):
    (run.folder / "model.pt").touch()
    assert evaluation_folder(run.folder, "runs/lits/../lits/a/model.pt") == run.folder / "evaluation"
    assert recorder(run.folder, run.folder / "model.pt") is not None
    assert evaluation_folder(run.folder, "b/small.safetensors").name == "evaluation-small.safetensors"
    assert recorder(run.folder, "b/small.safetensors") is None


def test_a_registered_version_is_evaluated_as_its_run(run):
    weights = run.folder / "model.safetensors"
    assert evaluation_folder(run.folder, weights).name == "evaluation"
    assert recorder(run.folder, weights) is not None


def test_an_evaluation_joins_its_run(run, cases):
    train(run, cases)
    folder = run.folder / "evaluation"
    (folder / "pictures").mkdir(parents=True)
    (folder / "pictures/best.png").write_bytes(b"png")
    record_evaluation(run.folder, {"test_dice": 0.5}, folder)
    found = in_mlflow(run)
    assert found.data.metrics["test_dice"] == 0.5
    client = mlflow.MlflowClient(tracking_uri())
    kept = client.list_artifacts(found.info.run_id, "evaluation/pictures")
    assert [one.path for one in kept] == ["evaluation/pictures/best.png"]


def test_nothing_is_recorded_before_training_starts(run, cases):
    TrainingRecord(run, Engine(print), torch.nn.Identity(), None, (1, 8, 8), cases).attach(
        Engine(lambda engine, batch: None)
    )
    assert not (run.folder / "tracking.jsonl").exists()

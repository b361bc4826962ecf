"""Runs in MLflow as trainings and evaluations leave them, without training."""

import functools
import json
import sqlite3
import tempfile
import uuid
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from pipelines import scoring, shown

START = 1_700_000_000_000  # milliseconds
TAGS = {"bundle": "dce_us", "network": "Plain", "overlay": "-", "seed": "0", "fold": "0"}
TAGS |= {"data": "d" * 16, "split": "5" * 16, "code": "c" * 16, "recipe": "e" * 16, "device": "cpu"}
PARAMS = {"unit": "pixels", "parameters": "760", "GMACs": "0.5", "input_shape": "[1, 32, 32]"}
PARAMS |= {"max_epochs": "2", "learning_rate": "0.001", "network": "BasicUNet"}
NETWORK = {"_target_": "BasicUNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 1}
NETWORK |= {"features": [4, 4, 4, 4, 4, 4]}


def rows(dice, first=0):
    """A case each, numbered from `first` and called after a patient, with one lesion.

    Dice is as given, HD95 10 times what it lacks to 1.
    """
    return [
        {
            "case": f"Doe-{number}",
            "patient": number,
            "dice": value,
            "iou": value / 2,
            "hd95": 10 * (1 - value),
            "missed": value == 0,
            "false_alarm": False,
            "lesions": 1,
            "lesions_found": int(value > 0),
            "lesions_missed": int(value == 0),
            "lesions_false": 2,
            "true_positive": 1,
            "false_positive": 1,
            "false_negative": 1,
        }
        for number, value in enumerate(dice, start=first)
    ]


def pictures(cases, side=12):
    """A square lesion of each case, found a pixel too far to the right."""
    truth = np.zeros((side, side), bool)
    truth[3:8, 3:8] = True
    image = np.full((side, side), 90, np.uint8)
    return {case: shown.Shown(image, truth, np.roll(truth, 1, 1)) for case in cases}


@functools.cache
def _empty():
    """A store without runs, which takes MLflow a while to make."""
    with tempfile.TemporaryDirectory() as folder:
        MlflowClient(f"sqlite:///{folder}/mlruns.db").search_experiments()
        return Path(folder, "mlruns.db").read_bytes()


def uri_of(folder):
    """The address of `client_of`."""
    return f"sqlite:///{folder / 'mlruns.db'}"


def client_of(folder, experiment="dce_us"):
    """MLflow on SQLite in a folder, with an experiment whose artifacts lie there, too."""
    if not (folder / "mlruns.db").is_file():
        (folder / "mlruns.db").write_bytes(_empty())
    client = MlflowClient(uri_of(folder))
    client.create_experiment(experiment, (folder / "mlruns").as_uri())
    return client


def log(
    client,
    folder,
    dice,
    experiment="dce_us",
    first=0,
    epochs=2,
    name=None,
    status="FINISHED",
    at=0,
    params=None,
    **tags,
):
    """Add a run that was evaluated on cases of these Dice; `at` is its start in minutes.

    Its scores on the network's grid are half of those in the original geometry. `dice` None is a run that
    was not evaluated, a tag None one that is not there. Returns its id.
    """
    tags = {key: value for key, value in {**TAGS, **tags}.items() if value is not None}
    name = name or "-".join(map(str, tags.values()))
    began = START + at * 60_000
    experiment_id = client.get_experiment_by_name(experiment).experiment_id
    run_id = client.create_run(experiment_id, start_time=began, run_name=name).info.run_id
    metrics = []
    for epoch in range(1, epochs + 1):
        values = {"train_loss": 1 / epoch, "val_dice": 1 - 1 / epoch, "images_per_second": 10.0 * epoch}
        metrics += [Metric(key, value, began + epoch, epoch) for key, value in values.items()]
    place = Path(folder) / f"{uuid.uuid4().hex}"
    (place / "evaluation").mkdir(parents=True)
    (place / "config.json").write_text(json.dumps({"network_def": NETWORK}))
    if dice is not None:
        scored, halved = rows(dice, first), rows([value / 2 for value in dice], first)
        scoring.write_cases(scored, place / "evaluation" / "cases.csv")
        scoring.write_cases(halved, place / "evaluation" / "cases_on_grid.csv")
        shown.write(place / "evaluation" / "shown.npz", pictures([row["case"] for row in scored]))
        metrics += [Metric("test_dice", float(np.mean(dice)), began + 999, 0)]
        metrics += [Metric("test_grid_dice", float(np.mean(dice)) / 2, began + 999, 0)]
    own = [Param(key, str(value)) for key, value in {**PARAMS, **(params or {})}.items()]
    client.log_batch(run_id, metrics, own, [RunTag(key, str(value)) for key, value in tags.items()])
    client.log_artifacts(run_id, str(place))
    if status == "RUNNING":
        client.update_run(run_id, status=status)
    else:
        client.set_terminated(run_id, status, began + 120_000)
    return run_id


def multiply(folder, run_id, copies):
    """Copy a run of `client_of` within SQLite, which is much faster than logging each.

    Args:
        copies: tags of each copy.
    """
    with sqlite3.connect(folder / "mlruns.db") as base:
        base.execute("pragma synchronous = off")
        new = [(uuid.uuid4().hex, tags) for tags in copies]
        for table in ("runs", "metrics", "latest_metrics", "params", "tags"):
            found = base.execute(f"select * from {table} where run_uuid = ?", (run_id,))
            columns = [column[0] for column in found.description]
            place, lines = columns.index("run_uuid"), found.fetchall()
            base.executemany(
                f"insert into {table} values ({', '.join('?' * len(columns))})",
                ((*line[:place], one, *line[place + 1 :]) for one, _ in new for line in lines),
            )
        for one, tags in new:
            for key, value in tags.items():
                base.execute("update tags set value = ? where run_uuid = ? and key = ?", (value, one, key))
            base.execute("update runs set name = ? where run_uuid = ?", ("-".join(tags.values()), one))
            root = base.execute("select artifact_uri from runs where run_uuid = ?", (run_id,)).fetchone()[0]
            base.execute(
                "update runs set artifact_uri = ? where run_uuid = ?", (root.replace(run_id, one), one)
            )
    return [one for one, _ in new]

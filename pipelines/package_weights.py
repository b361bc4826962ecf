"""Which weights a package gets, what is known of them, and how they are written."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from pipelines import checkpoints, compare_mlflow, folds, registry, runs, tracking, weights
from pipelines.errors import DataError
from pipelines.files import read_json
from pipelines.recording import is_own

BUNDLES = Path("bundles")
COUNT = re.compile(r"test_(cases|lesions)(_missed|_false_alarm|_found|_false)?")
# Of one machine or one moment, or of the package itself.
NOT_RECIPE = runs.NOT_RECIPE - {"seed", "fold"} | {"amp", "bundle", "overlay"}


@dataclass(frozen=True)
class Weights:
    """Weights for a package.

    Args:
        file: that holds them.
        record: what they belong to, as `weights.record_of` has it; empty where nothing is known.
        config: of their run, as it can be run again; empty for a file without one.
        figures: of the run's own evaluation of them, by the names in MLflow.
        name: what they are called in the package: no path.
        shipped: whether they are those in the bundle's own folder.
    """

    file: Path
    record: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    name: str = "a file without a record"
    shipped: bool = False


def from_file(bundle: str, checkpoint: str | Path) -> Weights:
    """Weights in a file: of a run, with what is beside it; or safetensors; or alone.

    Args:
        checkpoint: a path, or a registered model as `models:/NAME@ALIAS`.

    Raises:
        DataError: no such file, or weights of another bundle.
    """
    file = Path(registry.local(str(checkpoint)))
    weights.state_of(file)  # says in one line what is wrong with the file
    record = weights.record_of(file)
    if record.get("bundle", bundle) != bundle:
        raise DataError(
            f"expected weights of {bundle}, found those of {record['bundle']} in {file}; type `featherseg "
            f"package {record['bundle']} --checkpoint {file}`"
        )
    folder, name = file.parent, Weights.name
    shipped = file.resolve() == (BUNDLES / bundle / runs.SHIPPED).resolve()
    if str(checkpoint).startswith(registry.SCHEME):
        name = f"{checkpoint}, version {folder.name}"
    elif (folder / "run.json").is_file():
        name = f"run {folder.name}" if file.name == checkpoints.BEST else f"run {folder.name}, {file.name}"
    elif shipped:
        name = "those that ship with the bundle"
    elif record:
        name = file.name
    if (folder / "split.json").is_file() and record:
        record["trained_on"]["split"] = folds.digest(folds.read_split(folder / "split.json"))
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    return Weights(file, record, config, _figures(file), name, shipped)


def _figures(file: Path) -> dict[str, float]:
    """What the run's own evaluation found, by its journal, where no epoch came after it, or by MLflow."""
    folder = file.parent
    if not (folder / "run.json").is_file() or not is_own(folder, file):
        return {}
    found: dict[str, float] = {}
    run = runs.Run(str(folder), "")
    for record in filter(None, tracking.Tracker(run).records()):
        if record["kind"] == "metrics":
            found = record["values"] if record["step"] is None else {}
    if not found and file.name == registry.FILE:  # a registered version, whose folder has no journal
        client = compare_mlflow.connect()
        found = client.get_run(run.note["mlflow_run_id"]).data.metrics
    return _chosen(found)


def _chosen(figures: dict[str, float]) -> dict[str, float]:
    kept = {key: value for key, value in sorted(figures.items()) if key.startswith(registry.FIGURES)}
    rounded = {key: float(f"{value:.4g}") for key, value in kept.items() if math.isfinite(value)}
    return {key: int(value) if COUNT.fullmatch(key) else value for key, value in rounded.items()}


def from_experiment(bundle: str, experiment: str, train: dict[str, Any], folder: Path) -> Weights:
    """The best of an experiment's finished runs in MLflow, by the figure that chose the epoch of each.

    Each run counts with the epoch that it kept. Held-out test cases choose nothing.

    Args:
        train: the bundle's configuration, whose `validate#key_metric` and `validate#better` decide.
        folder: where the run's files are put.

    Raises:
        DataError: no such experiment, or none of its runs is finished, of this bundle, and has its model.
    """
    client = compare_mlflow.connect()
    found = compare_mlflow.experiment(client, experiment)
    every = compare_mlflow.runs(client, found.experiment_id)
    known = {one.info.run_id: one for one in every if _fits(one, bundle)}
    if not known:
        raise DataError(
            f"expected finished runs of {bundle} in the experiment {experiment} of {tracking.place()}, found "
            f"none among {len(every)} runs; train one, or give --checkpoint FILE"
        )
    key = next(iter(train["validate"]["key_metric"]))
    better = ConfigParser(train).get_parsed_content("validate::better")
    curves = compare_mlflow.histories(client, list(known), [key])
    values = {one: kept for one in sorted(known) if (kept := _kept(curves[one], key, better)) is not None}
    if not values:
        raise DataError(f"expected {key} of a run in the experiment {experiment}, found none; train one")
    best = (min if "loss" in key else max)(values, key=values.__getitem__)
    run = known[best]
    chosen = f"{key} {values[best]:.4g}: {run.info.run_name}"
    print(f"best of {len(values)} finished runs of {experiment}, by {chosen}")
    for name in ("config.json", "split.json", "model.pt"):
        try:
            client.download_artifacts(best, name, str(folder))
        except Exception as error:  # each kind of artifact store has its own
            raise DataError(
                f"expected {name} among the artifacts of the run {run.info.run_name}, found none; is the "
                "store of artifacts up?"
            ) from error
    config = read_json(folder / "config.json")
    record = registry.record_of(run, config)
    record["trained_on"]["split"] = folds.digest(folds.read_split(folder / "split.json"))
    return Weights(folder / "model.pt", record, config, _chosen(run.data.metrics), f"run {run.info.run_name}")


def _fits(run: Any, bundle: str) -> bool:
    return run.info.status == "FINISHED" and run.data.tags.get("bundle") == bundle


def _kept(curve: list[dict[str, float]], key: str, better: Callable[[float, float], bool]) -> float | None:
    """The key metric of the epoch whose weights a training kept."""
    best = None
    for epoch in curve:
        if key in epoch and (best is None or better(epoch[key], best)):
            best = epoch[key]
    return best


def network_of(found: Weights, network_def: dict[str, Any]) -> torch.nn.Module:
    """The network with its weights, on the CPU.

    Raises:
        DataError: the weights are of another network.
    """
    network = weights.build(network_def)
    checkpoints.load_state(network, weights.state_of(found.file), found.file)
    return network.eval()


def model_file(network: torch.nn.Module) -> bytes:
    """The weights as every tool for bundles reads them: a plain `state_dict`, in full precision."""
    written = io.BytesIO()
    torch.save(network.state_dict(), written)
    return written.getvalue()

"""MLflow's Model Registry: a run's model gets a name, a version and an alias, and is loaded by them.

What is registered is a pyfunc model without pickle: the weights as safetensors with the record of their
network, and the split. This module is its loader.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines import checkpoints, compare_mlflow, weights
from pipelines.errors import DataError
from pipelines.files import read_json, write_bytes, write_json
from pipelines.runs import ROOT
from pipelines.tracking import PATIENCE, place, tracking_uri, without_password

QUIET = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}  # one for each small file
SCHEME = "models:/"
ARTIFACT = "registered"  # the folder of the model among its run's artifacts
FILES = "data/files"  # and what is ours in it, where MLflow puts it
FILE = "model.safetensors"
# What the card tells, of the cases held out in their original geometry.
FIGURES = ("test_dice", "test_hd95", "test_iou", "test_cases", "test_lesions")
IDENTITY = (
    *("network", "overlay", "parameters", "GMACs", "data", "dataset_fingerprint", "split", "recipe"),
    *("code", "code_version", "seed", "fold"),
)


@dataclass(frozen=True)
class Promotion:
    """A version of a registered model, whether it was made just now, and the alias it has."""

    name: str
    version: str
    alias: str
    made: bool


def _client() -> Any:
    """MLflow's client, where the run is tracked."""
    for key, value in {**PATIENCE, **QUIET}.items():
        os.environ.setdefault(key, value)
    return compare_mlflow.connect()


def _unreachable(error: Exception) -> DataError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(
        f"expected MLflow at {place()}, found that it does not answer as needed "
        f"({without_password(reason)}); see MLFLOW_TRACKING_URI, or try again later"
    )


def promote(run: str | Path, alias: str = "champion", experiment: str | None = None) -> Promotion:
    """Register the best checkpoint of a run under its bundle's name, and give the version an alias.

    A run that is registered already keeps its version, which gets the alias.

    Args:
        run: an id of MLflow's, a run's name, or the folder of a run.
        alias: what the version is called from now on, in place of the one that had it.
        experiment: where a run's name is looked for; all of them by default.

    Raises:
        DataError: no such run, or several; one that is not finished or not evaluated; no server.
    """
    client = _client()
    from mlflow.exceptions import MlflowException

    try:
        found = find_run(client, run, experiment)
        _check_ready(client, found)
        name = found.data.tags["bundle"]
        known = client.search_model_versions(f"name = '{name}' and run_id = '{found.info.run_id}'")
        version = known[0].version if known else _register(client, found, name)
        client.set_registered_model_alias(name, alias, str(version))
    except (MlflowException, OSError) as error:
        raise _unreachable(error) from error
    return Promotion(name, str(version), alias, made=not known)


def find_run(client: Any, run: str | Path, experiment: str | None = None) -> Any:
    """The run in MLflow that is meant by its id, its name, or its folder.

    Raises:
        DataError: there is none, or there are several of that name.
    """
    if (Path(run) / "run.json").is_file():
        known = read_json(Path(run) / "run.json").get("mlflow_run_id")
        if known is None:
            raise DataError(
                f"expected a run that MLflow has, found {run}, which it has not seen; type `featherseg track "
                f"{run}`"
            )
        return client.get_run(known)
    names = {one.experiment_id: one.name for one in client.search_experiments()}
    searched = [key for key, name in names.items() if experiment in (None, name)]
    wanted, found = str(run).replace("'", ""), []
    for kind in ("run_name", "run_id"):
        if searched and not found:
            found = client.search_runs(searched, f"attributes.{kind} = '{wanted}'")
    if not found:
        raise DataError(
            f"expected the name, id or folder of a run, found no run {run} in "
            f"{experiment or 'any experiment'} of {place()}; see `make mlflow` for those there are"
        )
    if len(found) > 1:
        seen = (f"{one.info.run_id} ({names[one.info.experiment_id]}, {one.info.status})" for one in found)
        raise DataError(
            f"expected one run called {run}, found {len(found)}; give the id of one: {', '.join(seen)}"
        )
    return found[0]


def _check_ready(client: Any, run: Any) -> None:
    """Refuse a run that has no model yet, or of whose model nothing is known."""
    tags, name = run.data.tags, run.info.run_name
    if "bundle" not in tags:
        raise DataError(
            f"expected a bundle's training, found run {name} without tag bundle; give another run"
        )
    if run.info.status != "FINISHED":
        raise DataError(
            f"expected a finished run, found {name} {run.info.status}; go on with it by `python -m "
            f"monai.bundle run training --config_file bundles/{tags['bundle']}/train.json --run_name {name} "
            "--resume true` and the options that it was started with"
        )
    if "test_dice" not in run.data.metrics:
        experiment = client.get_experiment(run.info.experiment_id).name
        option = "" if experiment == tags["bundle"] else f" --experiment {experiment}"
        configs = f"['bundles/{tags['bundle']}/train.json','bundles/common/evaluate.json']"
        raise DataError(
            f"expected an evaluated run, found {name} without test_dice; type `python -m monai.bundle run "
            f'evaluating --config_file "{configs}" --run_name {name}{option}`'
        )


def _register(client: Any, run: Any, name: str) -> str:
    """Write the model among the run's artifacts and make it a version; returns its number."""
    run_id = run.info.run_id
    with tempfile.TemporaryDirectory() as scratch:
        got = {
            path: Path(client.download_artifacts(run_id, path, scratch))
            for path in ("config.json", "split.json", "model.pt")
        }
        record = record_of(run, read_json(got["config.json"]))
        data = Path(scratch) / Path(FILES).name
        # In full precision, so that an evaluation of the version finds the figures of the run.
        record = weights.write(data / FILE, weights.state_of(got["model.pt"]), record, torch.float32)
        note = {key: record[key] for key in ("network", "model_settings", "fold")}
        note |= {"bundle": client.get_experiment(run.info.experiment_id).name, "mlflow_run_id": run_id}
        write_json(data / "run.json", note)
        write_bytes(data / "split.json", got["split.json"].read_bytes())
        _save_model(Path(scratch) / ARTIFACT, data, record)
        client.log_artifacts(run_id, str(Path(scratch) / ARTIFACT), ARTIFACT)
    if not any(one.name == name for one in client.search_registered_models(f"name = '{name}'")):
        client.create_registered_model(name)
    made = client.create_model_version(
        name,
        source=f"{run.info.artifact_uri}/{ARTIFACT}",
        run_id=run_id,
        tags=_card(run),
        description=_description(_card(run), record),
    )
    return str(made.version)


def record_of(run: Any, config: dict[str, Any]) -> dict[str, Any]:
    """A run's model as `weights.record_of` tells of it: its configuration and what MLflow knows."""
    origin = {**run.data.params, **run.data.tags}
    trained_on = {key: origin[key] for key in weights.ORIGIN if key in origin}
    return weights.from_config(config) | {"network": run.data.params["network"], "trained_on": trained_on}


def _save_model(folder: Path, data: Path, record: dict[str, Any]) -> None:
    """Write the model as MLflow has it: its `MLmodel`, signature and input example around our files."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    shape = record["input_shape"]
    example = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32).round(1)
    logits = _load_pyfunc(str(data)).predict(example)
    kind = np.dtype(np.float32)
    mlflow.pyfunc.save_model(
        str(folder),
        loader_module=__name__,
        data_path=str(data),
        signature=ModelSignature(
            inputs=Schema([TensorSpec(kind, (-1, *shape))]),
            outputs=Schema([TensorSpec(kind, (-1, *logits.shape[1:]))]),
        ),
        input_example=example,
        # Named, since MLflow would otherwise run the model to find out, and ask a package index.
        pip_requirements=[f"{package}=={installed(package)}" for package in ("featherseg", "torch", "monai")],
    )


def _card(run: Any) -> dict[str, str]:
    """A run's figures and identity, as tags of its version."""
    metrics, known = run.data.metrics, {**run.data.params, **run.data.tags}
    figures = {key: f"{value:.4g}" for key, value in sorted(metrics.items()) if key.startswith(FIGURES)}
    return {"run_name": run.info.run_name, **figures} | {key: known[key] for key in IDENTITY if key in known}


def _description(card: dict[str, str], record: dict[str, Any]) -> str:
    """The card in a few lines of Markdown."""
    figures, identity = (
        ", ".join(
            f"{key.removeprefix('test_')} {card[key]}" for key in card if key.startswith("test_") == figures
        )
        for figures in (True, False)
    )
    return (
        f"Network: `{json.dumps(record['network_def'], sort_keys=True)}`\n\nHeld-out cases in their original "
        f"geometry: {figures}.\n\nThe run: {identity}.\n\nResearch software: not a medical device, and not "
        "for diagnosis."
    )


def local(checkpoint: str) -> str:
    """The file of a checkpoint: itself, or the registered model it names, fetched.

    Args:
        checkpoint: a file, `models:/NAME@ALIAS` or `models:/NAME/VERSION`; a model is kept in
            `runs/NAME/registry/VERSION` and fetched once.

    Raises:
        DataError: no such model, version or alias, with those there are; or no server.
    """
    from_registry = str(checkpoint).startswith(SCHEME)
    return str(_fetched(str(checkpoint)) / FILE) if from_registry else str(checkpoint)


def _fetched(uri: str) -> Path:
    client = _client()
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        version = _version(client, uri)
        folder = ROOT / version.name / "registry" / str(version.version)
        source = {"tracking": tracking_uri(), "run_id": version.run_id, "made": version.creation_timestamp}
        mark = folder / "version.json"
        # Other servers count their versions from one too, and so does a model deleted and made again.
        if not mark.is_file() or read_json(mark) != source:
            place = client.get_model_version_download_uri(version.name, str(version.version))
            with tempfile.TemporaryDirectory() as scratch:
                got = mlflow.artifacts.download_artifacts(
                    artifact_uri=f"{place}/{FILES}", dst_path=scratch, tracking_uri=tracking_uri()
                )
                mark.unlink(missing_ok=True)
                for path in sorted(Path(got).iterdir()):
                    write_bytes(folder / path.name, path.read_bytes())
            write_json(mark, source)
    except (MlflowException, OSError) as error:
        raise _unreachable(error) from error
    if not (folder / FILE).is_file():
        raise DataError(
            f"expected a model that `featherseg promote` registered, found {uri} without {FILE}; give another"
        )
    print(f"{uri}: version {version.version}, kept in {folder}")
    return folder


def _version(client: Any, uri: str) -> Any:
    """The version that a URI names."""
    text = uri.removeprefix(SCHEME)
    name, mark, which = text.partition("@" if "@" in text else "/")
    models = client.search_registered_models(f"name = '{name}'") if which else []
    if not models:
        names = ", ".join(sorted(one.name for one in client.search_registered_models())) or "none"
        raise DataError(
            f"expected models:/NAME@ALIAS or models:/NAME/VERSION, found {uri}; registered models: {names}; "
            "register one by `featherseg promote RUN`"
        )
    aliases = {alias: str(number) for alias, number in sorted(models[0].aliases.items())}
    versions = {str(one.version): one for one in client.search_model_versions(f"name = '{name}'")}
    number = aliases.get(which) if mark == "@" else which
    if number not in versions:
        raise DataError(
            f"expected a version or an alias of {name}, found {which}; versions: "
            f"{', '.join(sorted(versions, key=int)) or 'none'}; aliases: {', '.join(aliases) or 'none'}"
        )
    return versions[number]


class Model:
    """What MLflow loads: prepared images in, logits out.

    Args:
        network: on the CPU.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network.eval()

    def predict(self, images: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Logits (N, K, H, W), float32, of images (N, C, H, W), prepared as in training; no `params`."""
        with torch.inference_mode():
            return self.network(torch.as_tensor(np.asarray(images, np.float32))).float().numpy()


def _load_pyfunc(data_path: str) -> Model:
    """MLflow's way to load a model of this module, from the folder of its files."""
    path = Path(data_path) / FILE
    network = weights.build(weights.record_of(path)["network_def"])
    checkpoints.load_state(network, weights.state_of(path), path)
    return Model(network)

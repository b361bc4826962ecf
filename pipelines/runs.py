"""Run folders: what a training writes, under which name, and which run a later command means.

Frameworks are imported where they are used, since a comparison of runs needs none of them.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import platform
import secrets
import subprocess
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from pipelines import folds
from pipelines.errors import DataError
from pipelines.files import read_json, remove_leftovers, write_json, writing_error
from pipelines.sources import HOME

ROOT = Path("runs")
SHIPPED = Path("models") / "model.safetensors"  # below a bundle's folder
RUNNING, FINISHED, FAILED = "running", "finished", "failed"
# What may change when a run goes on: where things are, and what computes them.
MAY_CHANGE = {
    *("resume", "run_name", "output_dir", "dataset_dir", "cache_dir", "bundle_root", "split_file"),
    *("frames_dir", "device", "amp", "num_workers", "slices_on", "checkpoint_activations"),
    "keep_freed_memory",
}
# What is found from the training cases, and so kept as it was found: `config.json` holds the values.
FITTED = {"whitening"}
# What runs of one recipe may differ in: these, what is drawn at random, and what things are called.
NOT_RECIPE = MAY_CHANGE - {"amp"} | FITTED | {"seed", "fold", "experiment", "network_name", "imports"}


def flag(value: Any) -> bool:
    """A yes or no from the command line, where `--resume true` arrives as text."""
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "yes", "1", "false", "no", "0"):
        return str(value).lower() in ("true", "yes", "1")
    raise DataError(f"expected true or false, found {value!r}")


def folder(bundle: str, run_name: str | None = None, resume: Any = False) -> str:
    """The folder of a training: `runs/BUNDLE/RUN_NAME`.

    Without a name, a new run gets a unique one, and `resume` means the newest run that did not finish.
    """
    import ignite.distributed as idist

    if run_name is None:
        if flag(resume):
            open_runs = [run for run in _runs(bundle) if run["status"] != FINISHED]
            if not open_runs:
                raise DataError(
                    f"expected an unfinished run in {ROOT / bundle} to resume, found none; "
                    "give --run_name or --output_dir, or leave --resume out"
                )
            return open_runs[-1]["folder"]
        run_name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    # All processes of a distributed run use the name that the first one drew.
    path = str(ROOT / bundle / str(run_name))
    return idist.broadcast(path, src=0, safe_mode=True) if idist.get_world_size() > 1 else path


def _runs(bundle: str) -> list[dict[str, Any]]:
    """The runs of a bundle under `runs/`, oldest first, each as its `run.json` and its folder."""
    found = [{**read_json(note), "folder": str(note.parent)} for note in (ROOT / bundle).glob("*/run.json")]
    return sorted(found, key=lambda run: run.get("ended") or run["started"])


def finished(bundle: str, run_name: str | None = None) -> str:
    """The folder of the run whose model a command uses: the one named, else the newest finished one.

    Raises:
        DataError: there is none, or it holds no model yet.
    """
    if run_name is not None:
        path = ROOT / bundle / str(run_name)
    else:
        done = [run for run in _runs(bundle) if run["status"] == FINISHED]
        if not done:
            raise DataError(
                f"expected a finished run of {bundle} in {ROOT / bundle}, found none; train one with `python "
                f"-m monai.bundle run training --config_file bundles/{bundle}/train.json` or give "
                "--checkpoint FILE"
            )
        path = Path(done[-1]["folder"])
    if not (path / "model.pt").is_file():
        raise DataError(f"expected the weights {path / 'model.pt'}, found none; give another --run_name")
    return str(path)


def model(bundle: str, run_name: str | None, bundle_root: str) -> str:
    """The weights that inference takes: of the run named, else of the newest finished one, else the shipped.

    Raises:
        DataError: there are none.
    """
    shipped = Path(bundle_root) / SHIPPED
    if run_name is None and shipped.is_file() and not any(run["status"] == FINISHED for run in _runs(bundle)):
        return str(shipped)
    return str(Path(finished(bundle, run_name)) / "model.pt")


def recorded(output_dir: str, key: str) -> Any:
    """What `run.json` of a run says about `key`."""
    return read_json(Path(output_dir) / "run.json")[key]


def require(output_dir: str, **expected: Any) -> None:
    """Refuse to go on with other values than a run was trained with, such as another fold.

    Raises:
        DataError: names the value; cases of another fold are cases that the network was trained on.
    """
    for key, value in expected.items():
        if value != recorded(output_dir, key):
            raise DataError(
                f"expected {key} {recorded(output_dir, key)}, with which {output_dir} was trained, found "
                f"{value}; leave --{key} out, or give --run_name of another run"
            )


def code_version() -> str:
    """The commit of the working copy, marked where it was changed since; the release where there is none.

    A packaged bundle knows the one that it was made of, wherever it lies now.
    """
    if HOME:
        return import_module(HOME.rstrip(".")).__version__
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return version("featherseg")


def configuration() -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration that is being run: with every override in it, and the values of its top level.

    An expression in a bundle cannot refer to the configuration as a whole, so the parser that is
    evaluating it is looked for among the callers.

    Returns:
        The configuration as it can be run again, and its scalars with expressions evaluated.
    """
    import torch
    from monai.bundle import ConfigParser

    callers = (frame.frame.f_locals.get("self") for frame in inspect.stack(context=0))
    parser = next((caller for caller in callers if isinstance(caller, ConfigParser)), None)
    if parser is None:
        return {}, {}
    config = {key: value for key, value in parser.get().items() if key != "_meta_"}
    values = {}
    for key, value in config.items():
        if isinstance(value, str) and value.startswith(("$", "@")):
            value = parser.get_parsed_content(key)
        value = str(value) if isinstance(value, torch.device) else value
        if value is None or isinstance(value, (bool, int, float, str)) or _short_list(value):
            values[key] = value
    return config, values


def recipe(config: dict[str, Any]) -> str:
    """A short name for how a network is trained: 12 hexadecimal digits of the configuration.

    Runs of one recipe differ in their seed, their fold, where they ran and what they are called, no more.

    Args:
        config: the first of what `configuration` returns.
    """
    kept = {key: value for key, value in config.items() if key not in NOT_RECIPE}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:12]


def network_label(config: dict[str, Any]) -> str:
    """What a network is called in tables: the user's `network_name`, else its class and arguments.

    Channels and dimensions follow from the task, and are left out.

    Args:
        config: the first of what `configuration` returns.
    """
    if config.get("network_name"):
        return str(config["network_name"])
    definition = config.get("network_def", {})
    if not isinstance(definition, dict):
        return "network"
    own = {
        key: value
        for key, value in definition.items()
        if not key.startswith("_") and key not in ("in_channels", "out_channels", "spatial_dims")
    }
    name = str(definition.get("_target_", "network")).rpartition(".")[2]
    return " ".join([name, *(f"{key}={value}" for key, value in own.items())])


def _short_list(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) < 10
        and all(isinstance(one, (int, float)) for one in value)
    )


class Run:
    """One training and its folder.

    Args:
        output_dir: everything that the run writes goes here.
        bundle: the id of the task, such as "lits".
        resume: go on with what the folder holds.
    """

    def __init__(self, output_dir: str, bundle: str, resume: Any = False) -> None:
        self.folder = Path(output_dir)
        self.bundle = bundle
        self.resume = flag(resume)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def note(self) -> dict[str, Any]:
        """What is known of the run, kept in `run.json`."""
        return read_json(self.folder / "run.json")

    def update(self, **facts: Any) -> None:
        """Add facts to `run.json`; only the first process writes."""
        import ignite.distributed as idist

        if idist.get_rank() == 0:
            write_json(self.folder / "run.json", {**self.note, **facts})

    def begin(self, split: list[list[str]], fold: int, model_settings: dict[str, Any], network: Any) -> None:
        """Make the folder, and write the split and the configuration beside what follows.

        Raises:
            DataError: the folder holds another run and `resume` is off, or the other way round; the run that
                is to go on is over, or began with other settings or data.
        """
        import ignite.distributed as idist

        config, values = configuration()
        config |= {key: model_settings[key] for key in FITTED & model_settings.keys()}
        there = (self.folder / "run.json").is_file()
        # Every process looks before the first one writes.
        if idist.get_world_size() > 1:
            idist.barrier()
        if there and not self.resume:
            raise DataError(
                f"expected a new folder for the run, found one in {self.folder}; "
                "go on with it by --resume true, or give another --run_name"
            )
        if self.resume and not there:
            raise DataError(
                f"expected a run to resume in {self.folder}, found none; leave --resume out to start one"
            )
        before = self.note if there else {"started": time.time(), "key": secrets.token_hex(8)}
        facts = {
            "bundle": self.bundle,
            "fold": fold,
            "network": type(network).__name__,
            "model_settings": model_settings,
            "values": values,
        }
        if there:
            self._check_same(before, facts, split)
        if idist.get_rank() == 0:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise writing_error(error, self.folder / "run.json") from error
            remove_leftovers(self.folder)
            process = {
                "host": platform.node(),
                "pid": os.getpid(),
                "pid_started": psutil.Process().create_time(),
            }
            facts |= {"status": RUNNING, "code_version": code_version(), **process}
            # Last comes run.json, which makes the folder a run.
            folds.write_split(self.folder / "split.json", split)
            write_json(self.folder / "config.json", config)
            write_json(self.folder / "run.json", {**before, **facts})
            print(f"run {self.bundle}/{self.name}: {self.folder}{' (resumed)' if there else ''}")
        if idist.get_world_size() > 1:
            idist.barrier()

    def _check_same(self, before: dict[str, Any], now: dict[str, Any], split: list[list[str]]) -> None:
        """Refuse to go on with a run that is over, or with other settings or data than it began with."""
        if before["status"] == FINISHED:
            raise DataError(
                f"expected a run that is not over, found {self.folder} finished; give another --run_name"
            )
        pairs = {key: (before[key], now[key]) for key in ("network", "fold", "model_settings")}
        keys = before["values"].keys() | now["values"].keys()
        pairs |= {key: (before["values"].get(key), now["values"].get(key)) for key in keys - MAY_CHANGE}
        for key, (then, given) in sorted(pairs.items()):
            if then != given:
                raise DataError(
                    f"expected {key}={then}, with which {self.folder} began, found {given}; resume with the "
                    "options that it was started with"
                )
        if split != folds.read_split(self.folder / "split.json"):
            raise DataError(
                f"expected the split of {self.folder / 'split.json'}, found that the dataset or the "
                "split changed since; resume with the same data, or start a new run"
            )

    def end(self, status: str) -> None:
        """Note how the run ended."""
        self.update(status=status, ended=time.time())


def dead_runs(bundle: str) -> list[Run]:
    """Runs under `runs/` that claim to be running though their process is gone, killed without a word."""
    dead = []
    for run in _runs(bundle):
        here = run["host"] == platform.node()
        if run["status"] == RUNNING and here and not _alive(run["pid"], run["pid_started"]):
            dead.append(Run(run["folder"], bundle))
    return dead


def _alive(pid: int, started: float) -> bool:
    try:
        return abs(psutil.Process(pid).create_time() - started) < 1
    except psutil.Error:
        return False

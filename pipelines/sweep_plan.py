"""What a sweep is made of: a file with a grid, and the training and evaluation of each of its runs."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc import locate
from typing import Any

import yaml
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser
from monai.bundle.config_item import ConfigComponent

from pipelines.errors import DataError
from pipelines.runs import NOT_RECIPE, ROOT

BUNDLE = "bundle"  # the overlay that is the bundle's train.json with nothing over it
EVALUATE = "bundles/common/evaluate.json"
KEYS = {"bundle", "experiment", "networks", "overlays", "seeds", "folds", "training", "options"}
# What a sweep says of each of its runs itself.
OWN = {
    *("seed", "fold", "experiment", "network_name", "overlay"),
    *("run_name", "resume", "output_dir", "checkpoint"),
}


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        name: of the run, unique in its experiment; it ends in a digest of everything that makes the run, so
            that a changed file or option makes another run.
        experiment: in MLflow, and the folder under `runs/`.
        files: configuration files of the evaluation.
        training_files: overlays of the training alone, such as its precision.
        options: ids and values of the command line.
        seed: of the initialisation.
        fold: held out.
    """

    name: str
    experiment: str
    files: tuple[str, ...]
    training_files: tuple[str, ...]
    options: tuple[tuple[str, Any], ...]
    seed: int
    fold: int

    @property
    def folder(self) -> Path:
        return ROOT / self.experiment / self.name

    def training(self, resume: bool = False) -> list[str]:
        """The words of the command that trains it."""
        words = self._command("training", [*self.files, *self.training_files])
        words += ["--fold", str(self.fold), "--seed", str(self.seed)]
        return words + (["--resume", "true"] if resume else [])

    def evaluating(self) -> list[str]:
        """The words of the command that evaluates it."""
        return self._command("evaluating", [*self.files, EVALUATE])

    def in_words(self) -> str:
        """Both as one line for a shell or a scheduler, on whatever machine."""
        return " && ".join(shlex.join(["python", *step[1:]]) for step in (self.training(), self.evaluating()))

    def _command(self, step: str, files: list[str]) -> list[str]:
        config = json.dumps(files) if len(files) > 1 else files[0]
        words = [sys.executable, "-m", "monai.bundle", "run", step, "--config_file", config]
        words += ["--experiment", self.experiment, "--run_name", self.name]
        for key, value in self.options:
            words += [f"--{key}", value if isinstance(value, str) else str(value)]
        return words


def read(file: str | Path, more: Mapping[str, Any] | None = None) -> list[Job]:
    """The runs of a sweep file, a seed of every network and overlay before the next seed.

    A sweep file is YAML:

        bundle: dce_us                      # the folder under bundles/
        experiment: dce_us-li-table-2       # in MLflow; by default BUNDLE-FILE
        networks:                           # by the name in tables; arguments over the bundle's network_def
          U-Net: {_target_: networks.PlainUNet}
          "C = 16": {group_size: 16}
        overlays: [bundle, calipers_removed]  # of the bundle's experiments/; `bundle` is none
        seeds: [0, 1, 2]
        folds: [0]
        training: [bundles/common/bfloat16.json]  # overlays of the training, not of the evaluation
        options: {max_epochs: 20, image_size: [128, 128]}  # as on the command line

    Everything but `bundle` may be left out.

    Args:
        file: a sweep file.
        more: options beside those of the file, such as where the dataset lies.

    Raises:
        DataError: no such file, not YAML, an unknown key, bundle, overlay or file, or an empty list.
    """
    plan = _content(Path(file))
    folder = Path("bundles") / plan["bundle"]
    if not (folder / "train.json").is_file():
        raise DataError(
            f"expected a bundle at {folder}, as {file} says, found none; start from the repository's root"
        )
    training = tuple(map(str, _list(plan, "training", [], file)))
    for path in training:
        if not Path(path).is_file():
            raise DataError(f"expected the overlay {path}, as {file} says, found no such file")
    networks = plan.get("networks") or {"": {}}
    overlays = _list(plan, "overlays", [BUNDLE], file)
    seeds, folds = _list(plan, "seeds", [0], file), _list(plan, "folds", [0], file)
    experiment = str(plan.get("experiment") or f"{plan['bundle']}-{Path(file).stem}")
    options = {**(plan.get("options") or {}), **(more or {})}
    taken = sorted(OWN & set(options))
    if taken:
        raise DataError(f"expected options that a sweep of {file} does not set itself, found {taken[0]}")
    recipes = [
        (_files(folder, overlay, file), str(network), networks[network] or {})
        for overlay, network in itertools.product(overlays, networks)
    ]
    made = [(files, *_made(files, training, network, options, name)) for files, name, network in recipes]
    jobs = [
        Job(f"{stem}seed{seed}-fold{fold}-{digest}", experiment, files, training, pairs, seed, fold)
        for seed, fold in itertools.product(seeds, folds)
        for files, stem, digest, pairs in made
    ]
    if len({job.name for job in jobs}) < len(jobs):
        raise DataError(f"expected networks that differ in {file}, found two of the same name and arguments")
    return jobs


def options(words: Sequence[str]) -> dict[str, Any]:
    """Options of a bundle's command line, `--key value` each, as ids and values, read as MONAI reads them.

    Raises:
        DataError: a word that is none, or a key without a value.
    """
    pairs = [word.split("=", 1) if word.startswith("--") else [word] for word in words]
    parts = list(itertools.chain(*pairs))
    keys, values = parts[::2], parts[1::2]
    if len(keys) != len(values) or not all(key.startswith("--") and len(key) > 2 for key in keys):
        raise DataError(f"expected options as `--key value`, found {shlex.join(words)}")
    return {key.removeprefix("--"): DefaultParseValue(value) for key, value in zip(keys, values, strict=True)}


def _content(file: Path) -> dict[str, Any]:
    try:
        plan = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"expected a sweep file at {file}, found none that can be read") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"expected YAML in {file}, found: {' '.join(str(error).split())}") from error
    if not isinstance(plan, dict) or not isinstance(plan.get("bundle"), str):
        raise DataError(f"expected `bundle: NAME` in {file}, found none; see `featherseg sweep --help`")
    strange = sorted(map(str, plan.keys() - KEYS))
    if strange:
        raise DataError(f"expected the keys {', '.join(sorted(KEYS))} in {file}, found {', '.join(strange)}")
    for key in ("networks", "options"):
        if not isinstance(plan.get(key) or {}, dict):
            raise DataError(f"expected `{key}` in {file} to be names and values, found {plan[key]!r}")
    for name, arguments in (plan.get("networks") or {}).items():
        if not isinstance(arguments or {}, dict):
            raise DataError(f"expected arguments of the network {name!r} in {file}, found {arguments!r}")
    return plan


def _list(plan: Mapping[str, Any], key: str, otherwise: list[Any], file: str | Path) -> list[Any]:
    values = plan.get(key, otherwise)
    if not isinstance(values, list) or (key != "training" and not values):
        raise DataError(f"expected `{key}` in {file} to be a list, such as {otherwise}, found {values!r}")
    if len(set(map(str, values))) < len(values):
        raise DataError(f"expected each of `{key}` in {file} once, found {values}")
    if key in ("seeds", "folds") and not all(type(value) is int for value in values):
        raise DataError(f"expected whole numbers as `{key}` in {file}, found {values}")
    return values


def _files(folder: Path, overlay: str, file: str | Path) -> tuple[str, ...]:
    known = [BUNDLE, *sorted(path.stem for path in (folder / "experiments").glob("*.json"))]
    if overlay not in known:
        raise DataError(f"expected overlays out of {', '.join(known)} in {file}, found {overlay!r}")
    files = [folder / "train.json"]
    files += [folder / "experiments" / f"{overlay}.json"] if overlay != BUNDLE else []
    return tuple(path.as_posix() for path in files)


def _made(
    files: tuple[str, ...],
    training_files: tuple[str, ...],
    network: Mapping[str, Any],
    options: Mapping[str, Any],
    network_name: str,
) -> tuple[str, str, tuple[tuple[str, Any], ...]]:
    """The beginning of the names of a network's runs, their digest, and the options of their commands."""
    pairs = dict(options)
    if network_name:
        pairs["network_name"] = network_name
    pairs |= {f"network_def#{key}": value for key, value in network.items()}
    overlay = Path(files[1]).stem if len(files) > 1 else ""
    parts = [re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in (network_name, overlay)]
    stem = "".join(f"{part}-" for part in parts if part)
    return stem, _digest([*files, *training_files], pairs), tuple(pairs.items())


def _digest(files: list[str], options: dict[str, Any]) -> str:
    """Six digits of what the run's files and options make, macros resolved."""
    parser = ConfigParser()
    parser.read_config(files)
    strange = [key for key in options if re.split("#|::", key)[0] not in parser.config]
    try:
        parser.update(options)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        strange.append(str(error))
    if strange:
        raise DataError(f"expected options that {files[0]} has, found one that it lacks: {strange[0]}")
    parser.resolve_macro_and_relative_ids()
    config = {key: value for key, value in parser.get().items() if key not in {*NOT_RECIPE, "_meta_"}}
    _check_network(config["network_def"])
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:6]


def _check_network(definition: Any) -> None:
    """Refuse a class that is not there, and arguments that it does not take, before hours of other runs."""
    if not isinstance(definition, dict):
        return
    target = str(definition.get("_target_"))
    # MONAI's own names need no path; looking them up takes it a while.
    found = locate(
        target if "." in target else str(ConfigComponent(definition, "network_def").resolve_module_name())
    )
    if not callable(found):
        raise DataError(f"expected a network that can be imported, found {target}; see `featherseg networks`")
    try:
        inspect.signature(found).bind(**{k: v for k, v in definition.items() if not k.startswith("_")})
    except TypeError as error:
        raise DataError(f"expected arguments that {target} takes, found: {error}") from error

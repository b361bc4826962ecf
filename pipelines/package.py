"""A bundle with its weights as the model zoo has them: a folder, and a zip of it, that need nothing else."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from pipelines import package_configs, package_metadata, package_weights, runs
from pipelines.errors import DataError
from pipelines.files import PARTIAL, read_json, write_bytes, writing_error
from pipelines.package_card import card
from pipelines.package_modules import ROOT, Trace
from pipelines.package_torchscript import torchscript_file
from pipelines.package_weights import BUNDLES, Weights
from pipelines.package_zip import zipped

STEPS = ("weights", "configurations", "modules", "TorchScript", "files")


@dataclass(frozen=True)
class Packaged:
    """What was made: the bundle's folder, its zip, and which weights are in it."""

    folder: Path
    archive: Path
    weights: str


def package(
    bundle: str,
    checkpoint: str | None = None,
    experiment: str | None = None,
    torchscript: bool = False,
    out: str | Path = "dist",
) -> Packaged:
    """Write `OUT/BUNDLE/` and `OUT/BUNDLE.zip`; what is there of an earlier packaging is replaced.

    The same weights and sources give the same zip, byte for byte.

    Args:
        bundle: the folder's name in bundles/.
        checkpoint: the weights, as inference takes them: a file, or `models:/NAME@ALIAS`.
        experiment: take the best of its runs in MLflow instead. By default the newest finished run is taken,
            else the weights that ship with the bundle.
        torchscript: write models/model.ts too.
        out: the folder for both.

    Raises:
        DataError: no such bundle, no weights, or weights of another bundle or network.
    """
    folder = BUNDLES / bundle
    if not (folder / "inference.json").is_file():
        known = ", ".join(sorted(file.parent.name for file in BUNDLES.glob("*/inference.json")))
        there = known or "of which there is none here; type the command in the project's folder"
        raise DataError(f"expected one of the bundles in bundles/, {there}, found {bundle!r}")
    if checkpoint and experiment:
        raise DataError("expected --checkpoint or --experiment, found both; leave one out")
    target = Path(out) / bundle
    if target.exists() and not (target / "configs" / "metadata.json").is_file():
        raise DataError(
            f"expected a packaged bundle to replace in {target}, found something else; move it, or give "
            "another --out"
        )
    with tempfile.TemporaryDirectory() as scratch, tqdm(total=len(STEPS), disable=None, leave=False) as bar:
        train = package_configs.flat(folder / "train.json")
        if experiment:
            found = package_weights.from_experiment(bundle, experiment, train, Path(scratch))
        else:
            found = package_weights.from_file(bundle, checkpoint or runs.model(bundle, None, str(folder)))
        files = _files(bundle, found, train, torchscript, bar)
        bar.set_description(STEPS[-1])
        archive = target.with_name(f"{bundle}.zip")
        content = zipped({f"{bundle}/{path}": content for path, content in files.items()})
        _write(files, target)
        write_bytes(archive, content)
    return Packaged(target, archive, found.name)


def _files(
    bundle: str, found: Weights, train: dict[str, Any], torchscript: bool, bar: tqdm
) -> dict[str, bytes]:
    """All files of the packaged bundle: path in its folder -> content."""
    folder, own = BUNDLES / bundle, f"featherseg_{re.sub(r'[^0-9a-zA-Z]', '_', bundle)}"

    def begin(step: str) -> None:
        bar.set_description(step)
        bar.update()

    bar.set_description(STEPS[0])
    inference = package_configs.flat(folder / "inference.json")
    model = package_configs.model_of(found, train, inference)
    network = package_weights.network_of(found, model.network_def)
    begin(STEPS[1])
    configs, used = package_configs.packaged(own, found, model, train, inference)
    begin(STEPS[2])
    trace = Trace({*used, f"pipelines.datasets.{train['bundle']}"})
    told = read_json(folder / "metadata.json")
    requirements = trace.requirements(told["required_packages_version"])
    told = package_metadata.metadata(told, found, model, train, network, requirements)
    configs["metadata.json"] = told
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    about = f"The parts of FeatherSeg that the bundle {bundle} needs."
    texts = {
        **{f"configs/{name}": json.dumps(config, indent=4) + "\n" for name, config in configs.items()},
        **trace.texts(own, about, runs.code_version()),
        "docs/README.md": card(bundle, own, told, found, train["unit"], text),
        "requirements.txt": package_metadata.requirements_file(told),
    }
    files = {path: text.encode() for path, text in texts.items()}
    files["configs/logging.conf"] = (folder / "logging.conf").read_bytes()
    files["LICENSE"] = (ROOT / "LICENSE").read_bytes()
    files["models/model.pt"] = package_weights.model_file(network)
    begin(STEPS[3])
    if torchscript:
        kept = {"inference.json": configs["inference.json"]}
        files["models/model.ts"] = torchscript_file(network, told, kept)
    bar.update()
    return files


def _write(files: dict[str, bytes], folder: Path) -> None:
    """Write a folder beside its place, and put it there once it is whole."""
    mark = f"{os.getpid()}@{platform.node()}@"
    beside, before = (folder.with_name(f"{PARTIAL}{mark}{kind}@{folder.name}") for kind in ("new", "old"))
    _remove_leftovers(folder)
    try:
        for path, content in sorted(files.items()):
            (beside / path).parent.mkdir(parents=True, exist_ok=True)
            (beside / path).write_bytes(content)
        if folder.exists():
            os.replace(folder, before)
        os.replace(beside, folder)
    except OSError as error:
        raise writing_error(error, folder) from error
    finally:
        for one in (beside, before):
            shutil.rmtree(one, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed packagings of the same bundle left on this machine."""
    for leftover in folder.parent.glob(f"{PARTIAL}*@{folder.name}"):
        pid, node, *_ = leftover.name.removeprefix(PARTIAL).split("@")
        if node == platform.node() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True)

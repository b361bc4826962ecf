"""A bundle's configurations as they travel: each one whole, with the settings of its weights written out."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from pipelines import weights
from pipelines.errors import DataError
from pipelines.package_code import BUNDLE_ROOT, CODE, NEEDED, CodeInBundle, strings
from pipelines.package_weights import BUNDLES, NOT_RECIPE, Weights
from pipelines.runs import FITTED

COMMON = BUNDLES / "common"
# What follows the checkpoint in the project is the packaged one's own here.
FOLLOWING = re.compile(r"@(?:run_)?trained_with\b|\bcheckpoints\.trained_with\(")
# An evaluation compares data and split with those of its run; here the weights may have no run.
WITH_A_RUN = ("$runs.require(", "$recording.same_data(")
RECORDER = "$recording.recorder(@output_dir, @weights_file)"
OWN_IMPORT = "$import pipelines.packaged as packaged"
CHECKPOINT = {
    "checkpoint": "$packaged.checkpoint(@bundle_root, @experiment, @run_name)",
    "weights_file": "@checkpoint",
}


@dataclass(frozen=True)
class Model:
    """A network and how its images are prepared, in plain values.

    Args:
        network_def: `_target_` and its arguments.
        settings: the model settings, those that were fitted in training included.
        input_shape: (C, H, W).
        differing: of the settings those that are not the bundle's own.
    """

    network_def: dict[str, Any]
    settings: dict[str, Any]
    input_shape: list[int]
    differing: dict[str, Any]


def flat(file: str | Path) -> dict[str, Any]:
    """A configuration with all that it takes from others in it.

    Raises:
        DataError: a file that it takes something from is not there.
    """
    parser = ConfigParser()
    try:
        parser.read_config(ConfigParser.load_config_file(file))  # as it is: overlays have ids as keys
        parser.resolve_macro_and_relative_ids()
    except FileNotFoundError as error:
        raise DataError(
            f"expected {error.filename}, of which {file} takes parts, found no such file; type the command "
            "in the project's folder"
        ) from error
    return {key: value for key, value in parser.get().items() if key != "_meta_"}


def model_of(found: Weights, train: dict[str, Any], inference: dict[str, Any]) -> Model:
    """What weights belong to: by their record, and where they have none by the bundle.

    Args:
        train, inference: the bundle's, flat.

    Raises:
        DataError: the record cannot be written in plain values, or something was fitted in training and the
            weights have no record of it.
    """
    parser = ConfigParser(inference)
    own = {key: parser.get_parsed_content(f"defaults::{key}") for key in inference["defaults"]}
    own.pop("network")
    settings = {**own, **found.record.get("model_settings", {})}
    absent = sorted(key for key in FITTED & settings.keys() if settings[key] is None)
    if absent:
        raise DataError(
            f"expected weights with a record of {absent[0]}, which is found in training, found {found.file} "
            "without; give model.pt in the folder of its run"
        )
    network_def = found.record.get("network_def") or weights.from_config(
        {key: value for key, value in train.items() if key != "model_settings"}
    )["network_def"]  # fmt: skip
    try:
        settings, network_def = json.loads(json.dumps([settings, network_def], allow_nan=False))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"expected a network and settings in plain values, found {network_def} and {settings} ({error}); "
            "such a model cannot be packaged"
        ) from error
    shape = ConfigParser({**train, **_plain_settings(settings, train)}).get_parsed_content("input_shape")
    differing = {key: settings[key] for key in own if key not in FITTED and settings[key] != own[key]}
    return Model(network_def, settings, [int(side) for side in shape], differing)


def _plain_settings(settings: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key in config and key not in FITTED}


def _is_plain(value: Any) -> bool:
    """Whether an option is a value, not an expression, a reference or a part of the experiment."""
    if isinstance(value, list):
        return all(isinstance(one, (int, float)) for one in value)
    if isinstance(value, str):
        return not value.startswith(("$", "@", "%"))
    return value is None or isinstance(value, (bool, int, float))


def _options(found: Weights, train: dict[str, Any]) -> dict[str, Any]:
    """The options that the weights were trained with, where the bundle has plain values, too."""
    given = {**found.config, **{key: found.record[key] for key in ("seed", "fold") if key in found.record}}
    return {
        key: value
        for key, value in given.items()
        if key in train and key not in NOT_RECIPE and _is_plain(value) and _is_plain(train[key])
    }


def packaged(
    package: str,
    found: Weights,
    model: Model,
    train: dict[str, Any],
    inference: dict[str, Any],
) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """All configurations of a packaged bundle.

    Args:
        package: the name of the bundle's own package.
        found: the weights.
        model: what they belong to.
        train, inference: the bundle's, flat.

    Returns:
        File name -> content, and the full names of all of ours that they use.
    """
    network_def = {"network_def": model.network_def}
    train = {**train, **_options(found, train), **_plain_settings(model.settings, train), **network_def}
    inference = {key: value for key, value in inference.items() if key not in ("defaults", "trained_with")}
    inference |= {**CHECKPOINT, **_written_out(model, inference), **network_def}
    left = [text for text in strings(inference) if FOLLOWING.search(text)]
    if left:
        raise ValueError(
            f"expected settings of the model as ids of their own in inference.json, found {left}"
        )
    evaluate, multi_gpu = flat(COMMON / "evaluate.json"), flat(COMMON / "multi_gpu.json")
    imports = {"imports": [OWN_IMPORT]}
    code = CodeInBundle(package, train, inference, evaluate, imports)
    turned = {
        # Over train.json, whose `code` they share.
        "evaluate.json": code.turned(_evaluate(evaluate, found, model)),
        "multi_gpu_train.json": code.turned(multi_gpu),
        "train.json": code.turned(train),
    }
    turned["train.json"] = _whole(turned["train.json"], code)
    turned["inference.json"] = _whole(code.turned(inference), code)
    return turned, code.targets


def _written_out(model: Model, config: dict[str, Any]) -> dict[str, Any]:
    """The settings of the weights; what was fitted follows those of another run, where one is named."""
    fitted = {key: model.settings[key] for key in sorted(FITTED & model.settings.keys())}
    expressions = {
        key: f"$packaged.fitted('{key}', @weights_file, @fitted['{key}'])" for key in fitted if key in config
    }
    return {
        **({"fitted": fitted} if expressions else {}),
        **_plain_settings(model.settings, config),
        **expressions,
    }


def _evaluate(overlay: dict[str, Any], found: Weights, model: Model) -> dict[str, Any]:
    """The evaluation over train.json: of the packaged weights, or of a run that is named."""
    trained_on = dict(found.record.get("trained_on", {}))
    if "fold" in found.record:
        trained_on["fold"] = found.record["fold"]
    kept = {
        key: value
        for key, value in overlay.items()
        if key not in ("evaluation_imports", "split_file")
        and not (isinstance(value, str) and FOLLOWING.search(value))
    }
    fitted = {key: value for key, value in _written_out(model, overlay).items() if key in {*FITTED, "fitted"}}
    kept |= {
        **CHECKPOINT,
        "unseen": False,
        "trained_on": trained_on,
        "origin": "$packaged.Origin(@weights_file, @bundle_root, @trained_on, @unseen)",
        "output_dir": "$@origin.folder(@experiment)",
        "fold": "$@origin.fold",
        "split": "$@origin.split(@cases, @num_folds, @split_file)",
        **fitted,
    }
    steps = [one for one in overlay["initialize"] if not one.startswith(WITH_A_RUN)]
    kept["initialize"] = [steps[0], "$@origin.require(@fold)", *steps[1:]]
    first = ("checkpoint", "weights_file", "unseen", "trained_on", "origin", "output_dir", "fold", "split")
    ordered = {key: kept[key] for key in (*first, *kept)}
    text = json.dumps(ordered).replace(
        json.dumps(RECORDER), json.dumps(f"{RECORDER} if @origin.run else None")
    )
    return json.loads(text)


def _whole(config: dict[str, Any], code: CodeInBundle) -> dict[str, Any]:
    """A configuration that stands alone, with the items by which it finds its code in front."""
    needed = [f"$import {module}" for module in NEEDED]
    first = {
        "imports": sorted({*needed, *config.get("imports", [])}),
        "bundle": config["bundle"],
        "bundle_root": BUNDLE_ROOT,
        CODE: code.code(),
    }
    return {**first, **{key: value for key, value in config.items() if key not in first}}

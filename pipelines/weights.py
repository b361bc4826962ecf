"""Weights and the record of what they belong to: network, preparation and data; and small files to ship.

A run's `model.pt` has its record in the `config.json` and `run.json` beside it. A safetensors file carries
its own, so that it says alone which network it is for; reading either needs no pickle.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from monai.bundle import ConfigComponent, ConfigParser
from monai.utils import optional_import

from pipelines import sources
from pipelines.errors import DataError
from pipelines.files import read_json, write_bytes
from pipelines.runs import Run
from pipelines.tracking import Tracker

SUFFIX = ".safetensors"
FORMAT = 1
# One entry for all of it: the order in which safetensors writes several differs from one time to the next.
ENTRY = "featherseg"
# The channels are those of the weights, whatever a bundle's own are.
CHANNELS = {"in_channels", "out_channels"}
# What a run says of itself, as far as it is known: its settings, its facts, or its tags.
ORIGIN = ("dataset_fingerprint", "data", "split", "recipe", "code", "code_version", "cases", "seed", "fold")


def from_config(config: dict[str, Any]) -> dict[str, Any]:
    """What the resolved configuration of a run says of its network and of how images are prepared.

    Args:
        config: the content of `config.json`, whose expressions are evaluated as MONAI evaluates a bundle.

    Returns:
        `bundle`, `network_def` (`_target_` and its arguments), `model_settings`, `input_shape`, `seed` and
        `fold`, as far as the configuration has them.
    """
    parser = ConfigParser(sources.localized(config))
    keys = ("bundle", "model_settings", "input_shape", "seed", "fold")
    record = {key: parser.get_parsed_content(key) for key in keys if key in config}
    if "network_def" in config:
        # One by one, since the network itself is not to be built here.
        names = parser.get("network_def")
        record["network_def"] = {
            name: parser.get_parsed_content(f"network_def::{name}") for name in names if name[0] != "_"
        } | {"_target_": names["_target_"]}
    return record


def record_of(checkpoint: str | Path) -> dict[str, Any]:
    """What a checkpoint's own record says: of the run beside it, or in the safetensors file.

    Returns:
        as `from_config`, with `network` (its class), and `trained_on`: data, split, code, seed and fold, as
        far as they are known; empty for weights without a record.

    Raises:
        DataError: a file that is not what its name says.
    """
    path = Path(checkpoint)
    if path.suffix == SUFFIX:
        return _read_safetensors(path)[1] if path.is_file() else {}
    if not (path.parent / "run.json").is_file():
        return {}
    note, config = read_json(path.parent / "run.json"), path.parent / "config.json"
    record = from_config(read_json(config)) if config.is_file() else {}
    known = {**note.get("values", {}), **record, **note.get("facts", {})}
    for kept in filter(None, Tracker(Run(str(path.parent), "")).records()):
        known |= kept["values"] if kept["kind"] == "tags" else {}
    known |= {key: note[key] for key in ("code_version", "fold") if key in note}
    record |= {key: note[key] for key in ("network", "model_settings") if key in note}
    return {**record, "trained_on": {key: known[key] for key in ORIGIN if key in known}}


def state_of(checkpoint: str | Path) -> dict[str, torch.Tensor]:
    """The weights in a file: safetensors, a plain `state_dict`, or a training's `last.pt`; on the CPU.

    Raises:
        DataError: no such file, or one that holds no weights.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise DataError(f"expected weights at {path}, found no such file; see --checkpoint")
    if path.suffix == SUFFIX:
        return _read_safetensors(path)[0]
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return state.get("network", state)
    except Exception as error:
        raise DataError(
            f"expected weights in {path}, found a file that PyTorch does not load as such; see --checkpoint"
        ) from error


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dictionary
    except (safetensors.SafetensorError, OSError) as error:
        raise DataError(
            f"expected whole weights in {path}, found no safetensors file ({error}); fetch it again, or see "
            "--checkpoint"
        ) from error
    if ENTRY not in metadata:
        return state, {}
    try:
        record = sources.localized(json.loads(metadata[ENTRY]))
        version, network_def = record["format"], dict(record["network_def"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(
            f"expected a record of the network in {path}, found it damaged; fetch it again"
        ) from error
    if version != FORMAT:
        raise DataError(f"expected weights of format {FORMAT} in {path}, found {version}; update FeatherSeg")
    check_class(network_def, path)
    return state, record


def check_class(network_def: Mapping[str, Any], where: str | Path) -> None:
    """A file from elsewhere may name a network, but nothing else that could be called.

    Raises:
        DataError: `_target_` is not the class of a network that can be imported.
    """
    name = ConfigComponent(dict(network_def)).resolve_module_name()
    module, _, last = str(name).rpartition(".")
    found, there = optional_import(module, name=last) if module else (None, False)
    if not (there and inspect.isclass(found) and issubclass(found, torch.nn.Module)):
        raise DataError(
            f"expected the class of a network for {where}, found {network_def.get('_target_')}; see "
            "`featherseg networks` for ours"
        )


def build(network_def: dict[str, Any], **given: Any) -> torch.nn.Module:
    """The network of a record, freshly initialized.

    Args:
        network_def: `_target_` and its arguments.
        given: arguments that replace recorded ones, but for the channels, which the weights decide.

    Raises:
        DataError: an argument that the network does not have.
    """
    given = {key: value for key, value in given.items() if key not in CHANNELS}
    try:
        return ConfigComponent({**network_def, **given}).instantiate()
    except (TypeError, RuntimeError) as error:
        if not given:
            raise
        reason = str(error.__cause__ or error).splitlines()[0]
        raise DataError(
            f"expected arguments that the recorded {network_def['_target_']} takes, found {', '.join(given)} "
            f"({reason}); leave --network_def out, or give --network_def#_target_ too"
        ) from error


def shrink(
    checkpoint: str | Path,
    out: str | Path,
    dtype: torch.dtype = torch.float16,
    licence: str = "Apache-2.0",
) -> dict[str, Any]:
    """Write a run's weights as a safetensors file that ships: small, and with a record of what they are.

    Weights and biases get `dtype`, unless its range is too small for them. Integer buffers stay, and so do
    the running statistics of norms: they are few, and a variance in half precision loses the digits, or for
    small ones all, of what every activation is divided by.

    Args:
        checkpoint: `model.pt` in the folder of its run.
        out: the file, `*.safetensors`; the same input gives the same bytes.
        dtype: of floating tensors.
        licence: of the weights, as SPDX names it.

    Returns:
        the record in the file.

    Raises:
        DataError: a checkpoint without a record, or one that cannot be told in plain values.
    """
    record = record_of(checkpoint)
    if "network_def" not in record:
        raise DataError(
            f"expected a run's checkpoint, with run.json and config.json beside it, found {checkpoint} "
            "alone; give one in the folder of its run"
        )
    return write(out, state_of(checkpoint), record, dtype, licence)


def write(
    out: str | Path,
    state: dict[str, torch.Tensor],
    record: dict[str, Any],
    dtype: torch.dtype,
    licence: str = "Apache-2.0",
) -> dict[str, Any]:
    """Write weights and their record as one safetensors file; see `shrink`."""
    if Path(out).suffix != SUFFIX:
        raise DataError(f"expected a file *{SUFFIX} to write weights to, found {out}; give another name")
    check_class(record["network_def"], out)
    record = {**record, "format": FORMAT, "licence": licence}
    try:
        entry = json.dumps(record, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"expected a network whose arguments are plain values, found {record['network_def']} ({error}); "
            "such a network cannot be shipped as a file"
        ) from error
    tensors = {key: _smaller(key, tensor, dtype) for key, tensor in state.items()}
    write_bytes(out, safetensors.torch.save(tensors, {ENTRY: entry}))
    return record


def _smaller(key: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point() and not key.endswith(("running_mean", "running_var")):
        cast = tensor.to(dtype)
        tensor = cast if torch.isfinite(cast).all() else tensor
    return tensor.clone(memory_format=torch.contiguous_format)  # entries that share memory are refused

"""A network as TorchScript that says nothing of the machine it was made on, and is the same each time."""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from typing import Any

import torch
from monai.data import save_net_with_metadata
from monai.networks import convert_to_torchscript

from pipelines.package_zip import zipped

# For tracebacks alone: each line's place in a file of this machine; and a hash of all the rest.
LEFT_OUT = (".debug_pkl", ".data/serialization_id")


def torchscript_file(
    network: torch.nn.Module, metadata: dict[str, Any], configs: dict[str, dict[str, Any]]
) -> bytes:
    """The content of `models/model.ts`, as MONAI's `ckpt_export` writes it.

    PyTorch numbers the classes of networks that a process turns into TorchScript, so two files are the same,
    byte for byte, where the same networks were turned before, such as none.

    Args:
        network: with its weights.
        metadata: of the bundle.
        configs: file name -> content, which are kept in the file.
    """
    written = io.BytesIO()
    save_net_with_metadata(
        convert_to_torchscript(network),
        written,
        include_config_vals=False,
        append_timestamp=False,
        meta_values=metadata,
        more_extra_files={name: json.dumps(config).encode() for name, config in sorted(configs.items())},
    )
    with zipfile.ZipFile(written) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if not name.endswith(LEFT_OUT)}
    for name, content in files.items():
        if "/code/" in name and name.endswith(".py"):
            files[name] = constants_sorted(content.decode()).encode()
    return zipped(files, compressed=False)


def constants_sorted(source: str) -> str:
    """TorchScript's source of a class with its constants in order; as it is written, they are in a set's."""
    groups = itertools.groupby(source.splitlines(keepends=True), key=lambda line: " : Final[" in line)
    return "".join(line for constants, lines in groups for line in (sorted(lines) if constants else lines))

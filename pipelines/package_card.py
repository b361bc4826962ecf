"""The model card of a packaged bundle: how it is used, what its weights are, and what the bundle's says."""

from __future__ import annotations

import re
from typing import Any

from pipelines.package_weights import Weights

SECTION = re.compile(r"\*\*([^*]+?)\.?\*\*")
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:)([^)]*)\)")
# Of the bundle with its own network, or with files that stay in the project.
LEFT_OUT = {"Network", "Experiments", "Calipers", "Results"}
# Of the weights that ship with the bundle.
OF_SHIPPED = {"Weights"}
CONFIGS = ("train.json", "inference.json")

USE = """\
# {name}

{description}

{intended_use}

## Use

```
python -m pip install -r {bundle}/requirements.txt
python -m monai.bundle run inferring --config_file {bundle}/configs/inference.json --dataset_dir IN --output_dir OUT
python -m monai.bundle run training --config_file {bundle}/configs/train.json --dataset_dir DATA
python -m monai.bundle run evaluating --config_file "['{bundle}/configs/train.json','{bundle}/configs/evaluate.json']" --dataset_dir DATA
torchrun --nproc_per_node=2 -m monai.bundle run training --config_file "['{bundle}/configs/train.json','{bundle}/configs/multi_gpu_train.json']" --dataset_dir DATA
```

`{bundle}` is this folder, wherever it lies; the commands run from any folder, and write to `runs/{bundle}` there. Its code is in `{package}`, a name of its own, so that it gets in the way of no other bundle. Inference and evaluation take the weights in `models/model.pt`, or with `--run_name NAME` those of a run that this bundle trained. Runs are tracked in MLflow, in `mlruns.db` of the working folder, or where `MLFLOW_TRACKING_URI` points.

`evaluating` scores the cases that were held out when the weights were trained, if DATA are the data of that training; other data, of which no case was trained on, are evaluated as a whole with `--unseen true`.

`python -m monai.bundle verify_metadata`, `verify_net_in_out` and `ckpt_export` take `{bundle}/configs/inference.json` and `{bundle}/configs/metadata.json`; `onnx_export` needs `onnx` and `onnxscript` beside what is in requirements.txt.

## Weights

"""  # noqa: E501 - lines of Markdown and of a shell

BUNDLE = """\

## The bundle

*From the bundle's card, which speaks of its own settings; where this package differs, what stands above holds. Commands that begin with `featherseg` or `make` are those of the project, FeatherSeg.*

"""  # noqa: E501


def card(bundle: str, package: str, metadata: dict[str, Any], found: Weights, unit: str, own: str) -> str:
    """The text of docs/README.md.

    Args:
        bundle: its name, and that of its folder.
        package: the name of its own package.
        metadata: of the package.
        found: the weights.
        unit: of distances.
        own: the bundle's card, or "" where it has none.
    """
    told = USE.format(bundle=bundle, package=package, **metadata) + _weights(metadata, found, unit)
    return told + (BUNDLE + travelling(own, found.shipped) if own else "")


def _weights(metadata: dict[str, Any], found: Weights, unit: str) -> str:
    """What the weights are, trained on, and worth, as tables."""
    facts = {"weights": found.name, **metadata["trained_on"]}
    lines = [
        "| | |",
        "|---|---|",
        *(f"| {key.replace('_', ' ')} | {value} |" for key, value in facts.items()),
    ]
    figures = metadata["eval_metrics"]
    if figures:
        title = f"figure (distances in {unit})"
        lines += [
            "",
            f"| {title} | |",
            "|---|---|",
            *(f"| {key} | {value} |" for key, value in figures.items()),
        ]
        lines += ["", "Of held-out cases, as they were evaluated before the bundle was packaged."]
    else:
        lines += ["", "No figures: these weights had not been evaluated when the bundle was packaged."]
    return "\n".join(lines) + "\n"


def travelling(text: str, shipped: bool) -> str:
    """The sections of a bundle's card that hold for the package, their links turned to where things are."""
    kept, dropped = [], LEFT_OUT if shipped else LEFT_OUT | OF_SHIPPED
    section = ""
    for paragraph in text.strip().split("\n\n"):
        if paragraph.startswith("# "):
            continue
        lead = SECTION.match(paragraph)
        section = lead[1] if lead else section
        if section not in dropped:
            kept.append(LINK.sub(_link, paragraph))
    return "\n\n".join(kept) + "\n"


def _link(found: re.Match[str]) -> str:
    return f"[{found[2]}](../configs/{found[3]})" if found[3] in CONFIGS else found[2]

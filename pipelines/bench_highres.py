"""Memory and time of one training step on a whole mammogram, plain and with activation checkpointing.

python -m pipelines.bench_highres                                    # all, an hour on two cores
python -m pipelines.bench_highres --only "separable, residual" --size 512

A step is what the inbreast bundle does with an image: forward pass, Dice and cross-entropy, backward pass and
Adam. Memory is what the process grew by, weights, gradients and Adam's moments included: on a processor its
resident memory at the highest, less that before the network was made; on a GPU what torch had allocated at
the highest. What fits where is told by the whole process, on a GPU with what its context takes. The C
library's allocator is as the system has it; with --keep-freed it keeps what is freed, as in a training of the
bundles (`keep_freed_memory`), which is faster on a processor, and needs more memory for it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet, DynUNet
from rich.console import Console
from rich.table import Table
from torch import nn
from tqdm import tqdm

from networks import HighResUNet, checkpoint_activations, count_gmacs, count_parameters
from pipelines import machine
from pipelines.allocator import reuse_freed_memory
from pipelines.files import write_json
from pipelines.precision import Bfloat16

WIDTHS = tuple(16 * 2**level for level in range(7))  # of HighResUNet
GIB = 2**30
CARDS = (8, 12, 24)  # GiB
CONTEXT = 0.5  # GiB, about what CUDA takes of a GPU beside what torch reserves

# MONAI's BasicUNet always has five levels: here the five finest widths. Its last width is the finest again.
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "HighResUNet, dense": partial(HighResUNet, separable=False, residual=False),
    "HighResUNet, separable": partial(HighResUNet, residual=False),
    "HighResUNet, separable, residual": HighResUNet,
    "MONAI BasicUNet, 5 levels, 16 to 256": partial(BasicUNet, 2, 1, 1, features=(*WIDTHS[:5], 16)),
    "MONAI DynUNet, 7 levels, 16 to 1024": partial(
        DynUNet, 2, 1, 1, [3] * 7, [1, *[2] * 6], [2] * 6, filters=WIDTHS
    ),
}


def precisions() -> list[str]:
    """What this machine computes in: those of the processor and, where there is one, of the GPU."""
    gpu = ["GPU float32", "GPU float16"] if torch.cuda.is_available() else []
    return ["float32", "bfloat16", *gpu]


def measure(title: str, precision: str, checkpointed: bool, size: int, steps: int) -> dict[str, float]:
    """Train a few steps, the first of them not timed, in a process that did nothing else before.

    Args:
        title: of `NETWORKS`.
        precision: of `precisions`; all but float32 are mixed, with weights in float32.
        checkpointed: compute the features of a block a second time, not keep them.
        size: of the image's sides in pixels; there is one image.
        steps: timed ones.

    Returns:
        `memory` and `whole` in GiB, `seconds` of a step, the median.
    """
    device = torch.device("cuda" if precision.startswith("GPU") else "cpu")
    torch.manual_seed(0)
    machine.forget_peak()
    base = machine.peak()
    network = NETWORKS[title]().to(device, memory_format=torch.channels_last).train()
    if checkpointed:
        checkpoint_activations(network)
    model = Bfloat16(network) if precision == "bfloat16" else network
    scaler = torch.amp.GradScaler(enabled=precision == "GPU float16")
    mixed = torch.autocast("cuda") if precision == "GPU float16" else nullcontext()
    optimizer, loss_function = torch.optim.Adam(network.parameters(), lr=1e-3), DiceCELoss(sigmoid=True)
    image = torch.rand(1, 1, size, size, device=device)
    label = (image > 0.99).float()

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        with mixed:
            loss = loss_function(model(image), label)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    seconds = [step() for _ in range(1 + steps)][1:]
    if device.type == "cuda":
        memory, whole = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved() + CONTEXT * GIB
    else:
        whole = machine.peak()
        memory = whole - base
    return {"memory": memory / GIB, "whole": whole / GIB, "seconds": statistics.median(seconds)}


def measure_apart(limit: float, threads: int, keep_freed: bool, **setting: Any) -> dict[str, Any]:
    """Measure in a fresh process.

    Args:
        limit: GiB of memory that it may ask for on the processor, so that it fails alone.
        threads: of the processor.
        keep_freed: let the C library's allocator keep what is freed.
        setting: the arguments of `measure`.

    Returns:
        What `measure` gives, or `{"error": why there is nothing}`.
    """
    command = [sys.executable, "-W", "ignore", "-m", "pipelines.bench_highres", "--threads", str(threads)]
    command += ["--limit", str(limit), *["--keep-freed"] * keep_freed, "--measure", json.dumps(setting)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    # The kernel kills a process that takes the last of the memory; C++ aborts where it is refused some.
    lack = ("not enough memory", "out of memory", "bad_alloc", "MemoryError", "can't allocate memory")
    if done.returncode == -9 or any(text in done.stderr for text in lack):
        return {"error": "not enough memory"}
    return {"error": (done.stderr.strip().splitlines() or ["ended without a word"])[-1][:200]}


def run(
    titles: Sequence[str],
    kinds: Sequence[str],
    size: int,
    steps: int,
    limit: float,
    keep_freed: bool,
    path: Path,
) -> dict[str, Any]:
    """Measure networks one after the other, with a progress bar.

    Args:
        titles: of `NETWORKS`.
        kinds: of `precisions`.
        size, steps: as for `measure`.
        limit, keep_freed: as for `measure_apart`.
        path: the JSON file that is written after each measurement.

    Returns:
        `settings` of the machine, and `networks`: one record a network with `steps`, precision -> `plain` and
        `checkpointed` -> what `measure_apart` gives.
    """
    threads = torch.get_num_threads()
    found: dict[str, Any] = {
        "settings": {
            **machine.describe(),
            "image": f"1x{size}x{size}, batch 1",
            "steps": f"1 to warm up, then the median of {steps}",
            "precision": "bfloat16 and float16 mixed, weights in float32",
            "optimizer": "Adam",
            "memory format": "channels last",
            "allocator": "keeping freed memory" if keep_freed else "system default",
            "memory limit": f"{limit:.1f} GiB",
        },
        "networks": [],
    }
    with tqdm(total=2 * len(titles) * len(kinds), unit="measurement") as bar:
        for title in titles:
            with torch.device("meta"):
                network = NETWORKS[title]()
            record = {"title": title, "parameters": count_parameters(network), "steps": {}}
            record["gmacs"] = count_gmacs(network, (1, size, size))
            found["networks"].append(record)
            for kind in kinds:
                record["steps"][kind] = {}
                for name in ("plain", "checkpointed"):
                    bar.set_description(f"{title}, {kind}, {name}")
                    setting = {"title": title, "precision": kind, "size": size, "steps": steps}
                    setting["checkpointed"] = name == "checkpointed"
                    record["steps"][kind][name] = measure_apart(limit, threads, keep_freed, **setting)
                    bar.update()
                    write_json(path, found)
    return found


def tables(found: Mapping[str, Any]) -> list[Table]:
    """A table for each precision: memory, time and what fits, plain and checkpointed, and the ratios."""
    made = []
    for kind in dict.fromkeys(kind for record in found["networks"] for kind in record["steps"]):
        table = Table(title=f"{kind}: one training step, {found['settings']['image']}", title_justify="left")
        for heading in ("network", "parameters", "GMAC", "GiB", "s", "fits in GiB"):
            table.add_column(heading, justify="left" if heading == "network" else "right")
        for heading in ("checkpointed: GiB", "s", "fits in GiB", "memory saved", "time lost"):
            table.add_column(heading, justify="right")
        for record in found["networks"]:
            plain, saving = (
                record["steps"].get(kind, {}).get(name, {}) for name in ("plain", "checkpointed")
            )
            facts = [record["title"], f"{record['parameters']:,}", f"{record['gmacs']:,.1f}"]
            table.add_row(*facts, *_cells(plain), *_cells(saving), *_ratios(plain, saving))
        made.append(table)
    return made


def _cells(step: Mapping[str, Any]) -> list[str]:
    if "memory" not in step:
        return [step.get("error", ""), "", ""]
    cards = " ".join(str(card) for card in CARDS if step["whole"] < card)
    return [f"{step['memory']:.2f}", f"{step['seconds']:.2f}", cards or "none"]


def _ratios(plain: Mapping[str, Any], saving: Mapping[str, Any]) -> list[str]:
    if "memory" not in plain or "memory" not in saving:
        return ["", ""]
    saved = 1 - saving["memory"] / plain["memory"]
    return [f"{saved:.0%}", f"{saving['seconds'] / plain['seconds'] - 1:+.0%}"]


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    free = psutil.virtual_memory().available / GIB
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="networks whose title holds one of these")
    parser.add_argument("--precision", nargs="+", choices=precisions(), default=precisions())
    parser.add_argument("--size", type=int, default=1536, help="of the image's sides in pixels")
    parser.add_argument("--steps", type=int, default=2, help="timed ones, after one to warm up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the processor")
    parser.add_argument("--limit", type=float, default=free, metavar="GIB", help="memory; what is free now")
    parser.add_argument("--keep-freed", action="store_true", help="as a training on a processor does")
    parser.add_argument("--out", type=Path, default=Path("bench"), metavar="DIR", help="where figures go")
    parser.add_argument("--measure", metavar="JSON", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.measure:
        setting = json.loads(arguments.measure)
        if arguments.keep_freed:
            reuse_freed_memory()
        if not setting["precision"].startswith("GPU"):
            bytes_allowed = int(arguments.limit * GIB)
            resource.setrlimit(resource.RLIMIT_DATA, (bytes_allowed, bytes_allowed))
        print(json.dumps(measure(**setting)))
        return
    titles = [title for title in NETWORKS if any(text in title for text in arguments.only or [""])]
    if not titles:
        known = "; ".join(NETWORKS)
        parser.error(f"expected a part of one of these titles, got {' '.join(arguments.only)}: {known}")
    path = arguments.out / "highres.json"
    options = (arguments.precision, arguments.size, arguments.steps, arguments.limit, arguments.keep_freed)
    found = run(titles, *options, path)
    console = Console(width=200)
    console.print(", ".join(f"{key}: {value}" for key, value in found["settings"].items()))
    for table in tables(found):
        console.print(table)
    console.print(f"figures: {path}")


if __name__ == "__main__":
    main()

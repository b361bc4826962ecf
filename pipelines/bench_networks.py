"""Latency of every network at its paper's image size in several runtimes, beside networks of MONAI.

python -m pipelines.bench_networks                                      # all, two hours on two cores
python -m pipelines.bench_networks --only "PlainUNet" "C = 16" --batch 1
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import AttentionUnet, BasicUNet, DynUNet, UNet
from rich.console import Console
from rich.table import Table
from torch import nn
from tqdm import tqdm

from networks import NETWORKS, count_gmacs, count_parameters
from pipelines import latency, machine, pareto
from pipelines.files import write_json

LIKE_LI = (64, 128, 256, 512, 512)
"""Widths of Li et al.'s U-Net, which MONAI's networks get too."""


DRAWN = "optimized, keeping memory"
"""The runtime of the Pareto plot: PyTorch at its best."""

COMPARED = {"PlainUNet": 30, "LighterUNet, C = 16": 40, "HighResUNet": 8}
"""Networks that plain eager and optimized are compared for in turns, and how many pairs of runs."""


@dataclass(frozen=True)
class Candidate:
    """A network to measure: its name in tables, how to build it, its paper's image; is it ours?"""

    title: str
    build: Callable[[], nn.Module]
    image_size: tuple[int, int, int]
    ours: bool = True


def candidates() -> list[Candidate]:
    """The published networks of the registry, then MONAI's."""
    ours = [
        Candidate(published.title, partial(NETWORKS[name], **published.arguments), published.image_size)
        for name in NETWORKS.names
        for published in NETWORKS[name].published
    ]
    rgb = (3, 256, 256)
    steps = {"strides": (2, 2, 2, 2)}
    monai = {
        "MONAI BasicUNet, default": lambda: BasicUNet(2, 3, 1),
        "MONAI BasicUNet, Li's widths": lambda: BasicUNet(2, 3, 1, features=(*LIKE_LI, 64)),
        "MONAI UNet, Li's widths": lambda: UNet(2, 3, 1, channels=LIKE_LI, **steps),
        "MONAI DynUNet, default widths": lambda: DynUNet(2, 3, 1, [3] * 5, [1, 2, 2, 2, 2], [2] * 4),
        "MONAI AttentionUnet, Li's widths": lambda: AttentionUnet(2, 3, 1, channels=LIKE_LI, **steps),
    }
    return ours + [Candidate(title, build, rgb, ours=False) for title, build in monai.items()]


def build(title: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """A candidate with seeded weights, and the size of its images."""
    (candidate,) = [c for c in candidates() if c.title == title]
    torch.manual_seed(0)
    return candidate.build(), candidate.image_size


def measure_apart(title: str, batch: int, seconds: float) -> dict[str, Any]:
    """Measure one network in a fresh process, so that no other's memory or threads are in its way.

    Returns:
        Runtime -> timing, as of `latency.measure`; if the process ended too early, the next runtime says so.
    """
    done = _apart("--seconds", str(seconds), "--measure", title, str(batch))
    found = dict(json.loads(line) for line in done.stdout.splitlines())
    if done.returncode:
        missing = next((name for name in latency.RUNTIMES if name not in found), "GPU")
        # The kernel kills a process that takes the last of the memory.
        last = (done.stderr.strip().splitlines() or ["ended without a word"])[-1]
        found[missing] = {"error": "not enough memory" if done.returncode == -9 else last}
    return found


def compare_apart(title: str, pairs: int) -> dict[str, Any]:
    """Plain eager against optimized in a fresh process; what `latency.compare` gives."""
    done = _apart("--compare", title, str(pairs))
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def _apart(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "pipelines.bench_networks"]
    command += ["--threads", str(torch.get_num_threads()), "--patience", str(latency.PATIENCE), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def describe(candidate: Candidate) -> dict[str, Any]:
    """What a network is and costs, whatever the machine."""
    with torch.device("meta"):
        network = candidate.build()
    return {
        "title": candidate.title,
        "ours": candidate.ours,
        "image_size": list(candidate.image_size),
        "parameters": count_parameters(network),
        "gmacs": count_gmacs(network, candidate.image_size),
    }


def run(chosen: Sequence[Candidate], batches: Sequence[int], seconds: float, path: Path) -> dict[str, Any]:
    """Measure networks one after the other, with a progress bar.

    Args:
        chosen: the networks.
        batches: numbers of images at a time.
        seconds: for each figure at least.
        path: the JSON file that is written after each network.

    Returns:
        `settings` of the machine, and `networks`: one record a network with `latency`, batch -> runtime ->
        timing, and for those in `COMPARED` `optimized`, what optimizing gains.
    """
    settings = {
        **machine.describe(),
        "onnxruntime": version("onnxruntime"),
        "openvino": version("openvino"),
        "dtype": "float32, on a GPU bfloat16",
        "memory format": "contiguous, but channels last where it says so or optimized",
        "allocator": _allocator(),
        "matmul_gmacs_per_second": latency.matmul_rates(),
        "seconds": seconds,
        "patience": latency.PATIENCE,
    }
    records = [describe(candidate) | {"latency": {}} for candidate in chosen]
    found = {"settings": settings, "networks": records}
    # What everyone reads first, in case that the rest is not waited for.
    for record in records:
        if record["title"] in COMPARED:
            record["optimized"] = compare_apart(record["title"], COMPARED[record["title"]])
    with tqdm(total=len(chosen) * len(batches), unit="measurement") as bar:
        for batch in batches:
            for record in records:
                bar.set_description(f"{record['title']}, batch {batch}")
                record["latency"][str(batch)] = measure_apart(record["title"], batch, seconds)
                bar.update()
                write_json(path, found)
    return found


def _allocator() -> str:
    """The C library's, or what stands in its place, and its settings."""
    names = [name for name in os.environ if name == "LD_PRELOAD" or name.startswith(("MALLOC_", "GLIBC_TUN"))]
    given = ", ".join(f"{name}={os.environ[name]}" for name in sorted(names))
    return f"{' '.join(platform.libc_ver())}, {given or 'default settings'}, but where memory is kept"


def tables(found: Mapping[str, Any]) -> list[Table]:
    """A table for each batch size: milliseconds, GMAC/s and their share of the matrix product's rate."""
    rates = found["settings"]["matmul_gmacs_per_second"]
    best = {
        gpu: max((r for n, r in rates.items() if n.startswith("GPU") == gpu), default=0) for gpu in (0, 1)
    }
    made = []
    for batch in found["networks"][0]["latency"]:
        runtimes = list(dict.fromkeys(r for n in found["networks"] for r in n["latency"].get(batch, {})))
        table = Table(
            title=f"batch {batch}: milliseconds, least / median (GMAC/s, share of the matrix product's rate)",
            title_justify="left",
        )
        table.add_column("network")
        table.add_column("image")
        for runtime in runtimes:
            table.add_column(runtime, justify="right")
        for record in found["networks"]:
            work = record["gmacs"] * int(batch)
            timings = record["latency"].get(batch, {})
            cells = [_cell(timings.get(name), work, best[name.startswith("GPU")]) for name in runtimes]
            table.add_row(record["title"], "x".join(map(str, record["image_size"])), *cells)
        made.append(table)
    table = Table(title="plain eager against optimized, one image, in turns: median ms", title_justify="left")
    for heading in ("network", "allocator", "eager", "optimized", "ratio (quartiles)"):
        table.add_column(heading)
    for record in found["networks"]:
        for setting, times in record.get("optimized", {}).items():
            lower, upper = times["quartiles"]
            ratio = f"{times['ratio']:.2f} ({lower:.2f} to {upper:.2f}, {times['pairs']} pairs)"
            table.add_row(
                record["title"], setting, f"{times['eager']:,.1f}", f"{times['optimized']:,.1f}", ratio
            )
    return [*made, table] if table.rows else made


def _cell(timing: Mapping[str, Any] | None, gmacs: float, best: float) -> str:
    if timing is None:
        return ""
    if "error" in timing:
        return timing["error"]
    rate = 1e3 * gmacs / timing["least"]
    return f"{timing['least']:,.1f} / {timing['median']:,.1f}\n({rate:,.0f}, {rate / best:.0%})"


def points(found: Mapping[str, Any], runtime: str) -> dict[str, list[pareto.Point]]:
    """Parameters and latency of one image by image size, most networks first, where there is a figure."""
    grouped: dict[str, list[pareto.Point]] = {}
    for record in found["networks"]:
        timing = record["latency"].get("1", {}).get(runtime, {})
        if "median" in timing:
            size = "x".join(map(str, record["image_size"]))
            point = pareto.Point(record["title"], record["parameters"], timing["median"], record["ours"])
            grouped.setdefault(size, []).append(point)
    return dict(sorted(grouped.items(), key=lambda panel: -len(panel[1])))


def draw(found: Mapping[str, Any], folder: Path) -> None:
    """The Pareto plot, `networks.png` and `networks.svg`, a panel for each size of images."""
    grouped = points(found, DRAWN)
    if not grouped:
        return
    settings = found["settings"]
    title = f"PyTorch, {DRAWN}; float32, {settings['threads']} threads, {settings['cpu']}"
    for kind in ("png", "svg"):
        path = folder / f"networks.{kind}"
        pareto.draw(grouped, path, "parameters", "milliseconds an image", title=title)


def main() -> None:
    """Measure, print, draw and keep the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="networks whose title holds one of these")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8], metavar="N", help="images at a time")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure, at least five runs")
    parser.add_argument(
        "--patience", type=float, default=latency.PATIENCE, help="seconds after which fewer runs have to do"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the processor")
    parser.add_argument("--out", type=Path, default=Path("bench"), metavar="DIR", help="where figures go")
    for hidden in (("--measure", "BATCH"), ("--compare", "PAIRS")):
        parser.add_argument(hidden[0], nargs=2, metavar=("TITLE", hidden[1]), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    latency.PATIENCE = arguments.patience
    if arguments.measure:
        title, batch = arguments.measure
        for timed in latency.measure(*build(title), int(batch), arguments.seconds):
            print(json.dumps(timed), flush=True)
        return
    if arguments.compare:
        title, pairs = arguments.compare
        print(json.dumps(latency.compare(*build(title), int(pairs))))
        return
    chosen = [c for c in candidates() if any(t in c.title for t in arguments.only or [""])]
    if not chosen:
        titles = "; ".join(c.title for c in candidates())
        parser.error(f"expected a part of one of these titles, got {' '.join(arguments.only)}: {titles}")
    found = run(chosen, arguments.batch, arguments.seconds, arguments.out / "networks.json")
    console = Console(width=200)
    console.print(", ".join(f"{key}: {value}" for key, value in found["settings"].items()))
    for table in tables(found):
        console.print(table)
    draw(found, arguments.out)
    console.print(f"figures: {arguments.out}/networks.json; pictures: {arguments.out}/networks.png, .svg")


if __name__ == "__main__":
    main()

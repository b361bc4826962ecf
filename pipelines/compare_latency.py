"""Latency of the networks of a comparison, all run in turns in one process, and kept for the next time.

That process is another one than that of the comparison: it imports the frameworks while runs are being read.
"""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from pipelines import compare_mlflow, sources
from pipelines.allocator import reuse_freed_memory, uncollected
from pipelines.files import read_json, write_json

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pipelines.compare import Reading

SECONDS = 0.5  # that each network is measured for
LEAST_RUNS = 3

Run = Callable[[], Any]


@dataclass(frozen=True)
class Latencies:
    """Median milliseconds of one image.

    Attributes:
        of: label -> milliseconds; a network that could not be built or run has none.
        setting: what they were measured on, as a sentence.
        notes: a line on each network without a latency.
    """

    of: dict[str, float]
    setting: str
    notes: list[str]


@contextlib.contextmanager
def process(needed: bool) -> Iterator[Executor]:
    """A process to measure and to draw in, which makes ready at once as far as that takes long.

    Args:
        needed: whether it will have something to measure, as far as that is known.
    """
    pool = ProcessPoolExecutor(1, get_context("spawn"))
    try:
        pool.submit(_ready, needed)
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # it takes a while to go


def measure(reading: Reading, file: str | Path, pool: Executor) -> Latencies:
    """Measure the network of each group that `file` does not have yet.

    Networks have the definition of the run's configuration and fresh weights, which take as long as trained
    ones. Each answers one random image, float32, in eval mode, by `optimize_for_inference` where it takes the
    network. What is in `file` was measured on the same processor with as many threads, the same torch,
    and the same code of ours.

    Args:
        reading: of the experiment.
        file: JSON, made where it is not there.
        pool: of `process`.
    """
    setting = pool.submit(_setting).result()
    known: dict[str, float] = read_json(file) if Path(file).is_file() else {}
    runs = [group.runs[0].run for group in reading.groups]
    configs = compare_mlflow.contents(reading.client, runs, "config.json", read_json)
    keys, reasons, wanted = {}, {}, {}
    for group, run in zip(reading.groups, runs, strict=True):
        definition = configs.get(run.info.run_id, {}).get("network_def")
        if definition is None or group.param("input_shape") is None:
            reasons[group.label] = "its run has no config.json with network_def, or no input_shape"
            continue
        shape = json.loads(group.param("input_shape"))
        key = json.dumps({"network_def": definition, "input_shape": shape, **setting}, sort_keys=True)
        keys[group.label] = key
        if key not in known:
            wanted[key] = definition, shape
    found = pool.submit(_measured, wanted).result() if wanted else {}
    known |= {key: one for key, one in found.items() if isinstance(one, float)}
    if wanted:
        write_json(file, known)
    for label, key in keys.items():
        if key not in known:
            reasons[label] = str(found[key])
    of = {label: known[key] for label, key in keys.items() if key in known}
    notes = [f"no latency of {label}: {reason}" for label, reason in reasons.items()]
    threads = "1 thread" if setting["threads"] == 1 else f"{setting['threads']} threads"
    words = f"{threads} of {setting['cpu']}, torch {setting['torch']}"
    words = f"median of one image, float32, optimized for inference, {words}; kept in {Path(file).name}, "
    return Latencies(of, f"{words}remove it to measure again", notes)


def _setting() -> dict[str, Any]:
    """What latencies hang on."""
    from pipelines import machine

    about = machine.describe()
    # A plain text, since the type of torch's own would make whoever gets it import torch.
    told = {"cpu": about["cpu"], "threads": about["threads"], "torch": str(about["torch"])}
    return {**told, "networks": sources.digest("networks")}


def _ready(measuring: bool) -> None:
    """Import what networks are built with, if they will be, and what pictures are drawn with."""
    with uncollected():
        if measuring:
            from pipelines import weights  # noqa: F401
        _setting()
        from pipelines import compare_pictures  # noqa: F401


def _measured(wanted: Mapping[str, tuple[Mapping[str, Any], Sequence[int]]]) -> dict[str, float | str]:
    reuse_freed_memory()
    return in_turns({key: lambda asked=asked: prepared(*asked) for key, asked in wanted.items()})


def prepared(definition: Mapping[str, Any], shape: Sequence[int]) -> Run:
    """A network as a bundle defines it, ready to answer one random image.

    Args:
        definition: `_target_` and plain arguments.
        shape: (C, H, W).

    Raises:
        DataError: not the class of a network; others may have written what a server has, so nothing else in
            it is called, and no expression evaluated.
    """
    import torch

    from pipelines import weights

    weights.check_class(definition, "a network of the comparison")
    network, image = (
        weights.build(dict(definition)).eval(),
        torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)),
    )
    image = image.to(memory_format=torch.channels_last)
    fast = _optimized(network, image)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return fast(image)

    return run


def _optimized(network: nn.Module, image: torch.Tensor) -> nn.Module:
    """The faster equivalent where there is one, else the network itself, channels last."""
    import torch

    from networks import optimize_for_inference

    try:
        fast = optimize_for_inference(network)
        with torch.inference_mode():
            fast(image)
        return fast
    except Exception:  # a network of any library, written in any way
        return network.to(memory_format=torch.channels_last)


def in_turns(builders: Mapping[str, Callable[[], Run]], seconds: float = SECONDS) -> dict[str, float | str]:
    """Run all by turns, so that a slow moment of the machine meets each of them.

    Args:
        builders: name -> makes a call that answers; it is made and warmed up before any is measured.
        seconds: how long each is measured for at least, in three runs at least.

    Returns:
        Name -> median milliseconds, or in a line why there is no figure.
    """
    found: dict[str, float | str] = {}
    runs: dict[str, Run] = {}
    for name, build in builders.items():
        try:
            runs[name] = build()
            runs[name]()
        except Exception as error:  # of any library: a class that is not there, memory, a size too small
            runs.pop(name, None)
            found[name] = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    times: dict[str, list[float]] = {name: [] for name in runs}
    with tqdm(total=len(runs), desc="latency", unit="network", disable=None, leave=False) as bar:
        waiting = list(runs)
        while waiting:
            for name in waiting:
                start = perf_counter()
                runs[name]()
                times[name].append(perf_counter() - start)
            done = [
                name for name in waiting if len(times[name]) >= LEAST_RUNS and sum(times[name]) >= seconds
            ]
            waiting = [name for name in waiting if name not in done]
            bar.update(len(done))
    return found | {name: 1e3 * statistics.median(one) for name, one in times.items()}

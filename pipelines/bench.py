"""Measurements of reading, training and preparing, each beside what it is compared with, in one run.

python -m pipelines.bench            # all, some minutes
python -m pipelines.bench --only slices
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, PersistentDataset
from monai.transforms import Compose, LoadImaged
from rich.console import Console
from rich.table import Table

from networks import ReducedUNet
from pipelines import datasets, machine
from pipelines.allocator import reuse_freed_memory
from pipelines.cases import READERS
from pipelines.files import write_json
from pipelines.slices import SliceDataset, SliceSampler, step_back

CONFIG = "bundles/lits/train.json"
LITS_SLICES = 58_638
BATCH = 4  # slices
READY = 3  # batches
SECONDS = 3.0  # that each rate is measured for


def settings() -> dict[str, Any]:
    """What the figures hang on."""
    return {
        **machine.describe(),
        "dtype": "float32",
        "memory format": "channels last",
        "allocator": "glibc, keeping freed memory" if reuse_freed_memory() else "system default",
    }


def rate(step: Callable[[], Any], seconds: float = SECONDS) -> float:
    """Calls a second, after a warm-up."""
    for _ in range(3):
        step()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        step()
        count += 1
    return count / (time.perf_counter() - start)


def bundle(**options: Any) -> ConfigParser:
    """The LiTS experiment with some values changed, not run."""
    parser = ConfigParser()
    parser.read_config(CONFIG)
    parser.update(options)
    return parser


def large_volume(path: Path, slices: int, size: int = 512) -> dict[str, str]:
    """A volume of LiTS's size from the phantom, its slices repeated to as many as asked for."""
    datasets.get("lits").phantom(path, cases=1, seed=0, size=size)
    case = datasets.get("lits").index(path)[0]
    for key in ("image", "label"):
        image = nib.load(case[key])
        array = np.asarray(image.dataobj)
        axis = int(np.argmin(array.shape))
        order = np.resize(
            np.concatenate([np.arange(array.shape[axis]), np.arange(array.shape[axis])[::-1]]), slices
        )
        whole = path / f"{key}.nii.gz"
        nib.save(nib.Nifti1Image(np.take(array, order, axis=axis), image.affine), whole)
        case[key] = str(whole)
    return case


def slice_reads(folder: Path) -> Iterator[tuple[str, float, str]]:
    """Random slices a second, one process."""
    case = large_volume(folder / "data", slices=100)
    parser = bundle()
    data = SliceDataset(
        [case], parser.get_parsed_content("preprocessing"), cache_dir=folder / "cache", workers=0
    )
    random = np.random.default_rng(0)

    ours = rate(lambda: data[int(random.integers(len(data)))])
    yield "SliceDataset, 256x256, image and label", ours, "a second"

    volumes = [nib.load(case[key]).dataobj for key in ("image", "label")]
    compressed = rate(lambda: [volume[..., int(random.integers(100))] for volume in volumes])
    yield "the slice from the compressed volume, 512x512", compressed, "a second"

    files = []
    for index in range(len(data)):
        item = {}
        for key, array in data[index].items():
            item[key] = str(folder / f"{key}-{index}.nii.gz")
            nib.save(nib.Nifti1Image(array[0].numpy().astype(np.uint8), np.eye(4)), item[key])
        files.append(item)
    load = Compose([LoadImaged(["image", "label"], reader=READERS, ensure_channel_first=True)])
    persistent = PersistentDataset(files, load, cache_dir=folder / "persistent")
    for index in range(len(persistent)):
        persistent[index]
    theirs = rate(lambda: persistent[int(random.integers(len(persistent)))])
    yield "MONAI PersistentDataset, a file a slice, 256x256", theirs, "a second"
    yield "SliceDataset against the compressed volume", ours / compressed, "times"
    yield "SliceDataset against PersistentDataset", ours / theirs, "times"


def training_steps(folder: Path) -> Iterator[tuple[str, float, str]]:
    """Training steps a second with real loading against the same steps on one batch in memory."""
    case = large_volume(folder / "data", slices=200)
    parser = bundle()
    data = SliceDataset(
        [case],
        parser.get_parsed_content("preprocessing"),
        parser.get_parsed_content("train::preprocessing"),
        folder / "cache",
    )
    torch.manual_seed(0)
    network = ReducedUNet().to(memory_format=torch.channels_last)  # as the bundle trains it
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    loss_function = parser.get_parsed_content("loss")

    def step(batch: dict[str, torch.Tensor]) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_function(network(batch["image"]), batch["label"]).backward()
        optimizer.step()

    def seconds(batches: Iterator[dict[str, torch.Tensor]], count: int) -> float:
        # The first steps use up what a worker had ready while the others were measured.
        for _ in range(READY):
            step(next(batches))
        start = time.perf_counter()
        for _ in range(count):
            step(next(batches))
        return time.perf_counter() - start

    def endless(workers: int) -> Iterator[dict[str, torch.Tensor]]:
        loader = DataLoader(
            data,
            batch_size=BATCH,
            sampler=SliceSampler(data),
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=step_back,
        )
        while True:
            yield from loader

    in_memory = next(endless(0))
    sources = {
        "one batch in memory": iter(lambda: in_memory, None),
        "real loading and augmentation, no workers": endless(0),
        "real loading and augmentation, 1 worker": endless(1),
    }
    for batches in sources.values():  # workers start before training has taken its memory, as in a run
        next(batches)
    spent = dict.fromkeys(sources, 0.0)
    rounds, count = 3, 15
    for _ in range(rounds):  # in turns, so that a slower minute of the machine is everybody's
        for name, batches in sources.items():
            spent[name] += seconds(batches, count)
    rates = {name: rounds * count / total for name, total in spent.items()}
    for name, value in rates.items():
        yield f"ReducedUNet, batch {BATCH}, 256x256: {name}", value, "a second"
    alone = rates["one batch in memory"]
    for name in list(sources)[1:]:
        yield f"share kept: {name}", rates[name] / alone, "times"


def preparing(folder: Path) -> Iterator[tuple[str, float, str]]:
    """Seconds that a 512x512x100 volume takes on its way into the cache, by part."""
    case = large_volume(folder / "data", slices=100)
    parser = bundle()
    names = ("reading and checking", "orienting", "windowing", "resizing", "equalizing", "rounding")
    steps = [parser.get_parsed_content("loading"), *([one] for one in parser.get_parsed_content("preparing"))]
    torch.set_num_threads(1)  # as in each of the workers that share the cores
    chain = parser.get_parsed_content("preprocessing")
    SliceDataset([case], chain, cache_dir=folder / "warm-up", workers=0)
    start = time.perf_counter()
    SliceDataset([case], chain, cache_dir=folder / "cache", workers=0)
    whole = time.perf_counter() - start
    yield "one volume, 512x512x100", whole, "s"
    total, item = 0.0, dict(case)
    for name, transforms in zip(names, steps, strict=True):
        start = time.perf_counter()
        item = Compose(transforms)(item)
        spent = time.perf_counter() - start
        total += spent
        yield f"share of {name}", spent / whole, "of it"
    yield "share of packing and writing", max(0.0, whole - total) / whole, "of it"
    hours = whole / 100 * LITS_SLICES / 2 / 3600
    yield f"LiTS's {LITS_SLICES} slices on two cores, by that", hours * 60, "min"
    torch.set_num_threads(os.cpu_count() or 1)


def memory(folder: Path) -> Iterator[tuple[str, float, str]]:
    """Peak memory of a training, its workers included, with 4 and with 40 volumes of one size."""
    random = np.random.default_rng(0)
    peaks = {}
    for count in (4, 40):
        data = folder / f"data-{count}"
        data.mkdir()
        for number in range(count + 2):
            image = random.integers(-200, 300, (256, 256, 40)).astype(np.int16)
            label = np.zeros(image.shape, np.uint8)
            label[100:120, 100:120, 10:20] = 2
            for name, array in (("volume", image), ("segmentation", label)):
                nib.save(nib.Nifti1Image(array, np.eye(4)), data / f"{name}-{number}.nii")
        split = folder / f"split-{count}.json"
        write_json(split, {"folds": [["0", "1"], [str(number) for number in range(2, count + 2)]]})
        command = [sys.executable, "-m", "pipelines.bench", "--peak-of", str(data), str(split), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        peaks[count] = float(done.stdout.strip().splitlines()[-1])
        yield f"peak memory, {count} training volumes of 256x256x40", peaks[count], "MiB"
    yield "40 volumes against 4", peaks[40] / peaks[4], "times"


def peak_of(data: str, split: str, folder: str) -> None:
    """Run a short training, and print the peak memory of it and its workers in MiB."""
    from monai.bundle import run

    options = {"train#trainer#epoch_length": 6, "max_epochs": 1, "batch_size": 4, "num_workers": 1}
    os.chdir(Path(__file__).resolve().parents[1])
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlruns.db"
    name = Path(data).name
    run(
        run_id="training",
        config_file=CONFIG,
        dataset_dir=data,
        split_file=split,
        cache_dir=f"{folder}/cache-{name}",
        output_dir=f"{folder}/run-{name}",
        **options,
    )
    peaks = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(sum(peaks) / 1024)


PARTS = {"slices": slice_reads, "steps": training_steps, "preparing": preparing, "memory": memory}


def main() -> None:
    """Measure, print, and keep the figures in `bench/lits.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, help="measure one part")
    parser.add_argument("--peak-of", nargs=3, metavar=("DATA", "SPLIT", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        peak_of(*arguments.peak_of)
        return
    console = Console(width=100)
    found: dict[str, Any] = {"settings": settings()}
    console.print(", ".join(f"{key}: {value}" for key, value in found["settings"].items()))
    for name, part in PARTS.items():
        if arguments.only not in (None, name):
            continue
        table = Table(title=part.__doc__.splitlines()[0], title_justify="left", box=None)
        table.add_column("", min_width=62)
        table.add_column("", justify="right")
        table.add_column("", no_wrap=True)
        with tempfile.TemporaryDirectory() as folder, console.status(f"measuring {name}"):
            found[name] = {}
            for what, value, unit in part(Path(folder)):
                found[name][what] = [value, unit]
                table.add_row(what, f"{value:,.3f}" if value < 100 else f"{value:,.0f}", unit)
        console.print(table)
        write_json("bench/lits.json", found)


if __name__ == "__main__":
    main()

"""Measurements of reading, training and preparing, each beside what it is compared with, in one run.

python -m pipelines.bench            # all, a quarter of an hour on two cores
python -m pipelines.bench --only "steps dce_us"
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import PersistentDataset
from monai.transforms import Compose, LoadImaged
from rich.console import Console
from rich.table import Table

from pipelines import machine
from pipelines.allocator import reuse_freed_memory
from pipelines.bench_reading import SETTINGS as READ
from pipelines.bench_reading import reading
from pipelines.bench_setup import Rows, experiment, large_volume, rate
from pipelines.bench_steps import SETTINGS, reading_and_training
from pipelines.cases import READERS
from pipelines.files import write_json
from pipelines.slices import SliceDataset

CONFIG = "bundles/lits/train.json"
LITS_SLICES = 58_638


def settings() -> dict[str, Any]:
    """What the figures hang on."""
    return {
        **machine.describe(),
        "dtype": "float32" + (", on the GPU mixed with float16" if torch.cuda.is_available() else ""),
        "memory format": "channels last",
        "allocator": "glibc, keeping freed memory" if reuse_freed_memory() else "system default",
    }


def slice_reads(folder: Path) -> Rows:
    """Random slices a second, one process."""
    case = large_volume(folder / "data", slices=100)
    parser = experiment("lits")
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


def preparing(folder: Path) -> Rows:
    """Seconds that a 512x512x100 volume takes on its way into the cache, by part."""
    case = large_volume(folder / "data", slices=100)
    parser = experiment("lits")
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


def memory(folder: Path) -> Rows:
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


PARTS = {
    "slices": slice_reads,
    **{f"steps {name}": partial(reading_and_training, name) for name in SETTINGS},
    **{f"reading {name}": partial(reading, name) for name in READ},
    "preparing": preparing,
    "memory": memory,
}


def main() -> None:
    """Measure, print, and keep the figures in `bench/pipeline.json`."""
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
        about = getattr(part, "func", part).__doc__.splitlines()[0]
        table = Table(title=f"{name}: {about}", title_justify="left", box=None)
        table.add_column("", min_width=62)
        table.add_column("", justify="right")
        table.add_column("", no_wrap=True)
        with tempfile.TemporaryDirectory() as folder, console.status(f"measuring {name}"):
            found[name] = {}
            for what, value, unit in part(Path(folder)):
                found[name][what] = [value, unit]
                table.add_row(what, f"{value:,.3f}" if value < 100 else f"{value:,.0f}", unit)
        console.print(table)
        write_json("bench/pipeline.json", found)


if __name__ == "__main__":
    main()

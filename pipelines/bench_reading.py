"""Reading of large images: from files to ready samples, the first time and from the cache, and its memory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import psutil
import pydicom
import torch
from monai.bundle import ConfigParser

from pipelines import datasets, machine
from pipelines.allocator import reuse_freed_memory
from pipelines.bench_setup import Rows, experiment, rate
from pipelines.cache import VolumeCache
from pipelines.files import write_json

MIB = 2**20
READS = 50  # samples that the process reads whose memory is measured


class Setting(NamedTuple):
    """How the reading of a bundle's data is measured.

    Attributes:
        cases: writes data of the real thing's size into a folder, and gives its datalist.
        unit: what a case is.
        total: how many of them the real dataset has.
        size: of a case's image, in words.
        kind: how its image is stored, where that makes a difference to the time that reading takes.
    """

    cases: Callable[[Path], list[dict[str, Any]]]
    unit: str
    total: int
    size: Callable[[dict[str, Any]], str]
    kind: Callable[[dict[str, Any]], str] | None = None


def mammograms(folder: Path, size: int = 3328) -> list[dict[str, Any]]:
    """Six patients, so that there is each of the phantom's transfer syntaxes, with and without findings."""
    datasets.get("inbreast").phantom(folder, cases=6, size=size, progress=False)
    return datasets.get("inbreast").index(folder)


def brains(folder: Path, size: int = 240, slices: int = 155) -> list[dict[str, Any]]:
    """Two examinations as the Decathlon has them, the phantom's slices repeated to as many as asked for."""
    datasets.get("brain_tumour").phantom(folder, cases=2, size=size, progress=False)
    cases = datasets.get("brain_tumour").index(folder)
    for case in cases:
        for key in ("image", "label"):
            image = nib.load(case[key])
            array = np.asarray(image.dataobj)
            there = np.arange(array.shape[2])
            order = np.resize(np.concatenate([there, there[::-1]]), slices)
            whole = Path(case[key])
            nib.save(nib.Nifti1Image(array[:, :, order], image.affine, image.header), whole)
    return cases


def _pixels(case: dict[str, Any]) -> str:
    header = pydicom.dcmread(case["image"], stop_before_pixels=True)
    return f"{header.Columns}x{header.Rows}"


def _transfer_syntax(case: dict[str, Any]) -> str:
    return pydicom.dcmread(case["image"], stop_before_pixels=True).file_meta.TransferSyntaxUID.name


def _voxels(case: dict[str, Any]) -> str:
    return "x".join(map(str, nib.load(case["image"]).shape))


SETTINGS = {
    "inbreast": Setting(mammograms, "image", 410, _pixels, _transfer_syntax),
    "brain_tumour": Setting(brains, "case", 484, _voxels),
}


def reading(name: str, folder: Path, **options: Any) -> Rows:
    """Seconds from files to samples ready for training, first and from the cache; peak memory.

    Args:
        name: of the bundle, one of `SETTINGS`.
        folder: an empty one, for data and cache.
        options: values that replace the bundle's, by id.
    """
    setting = SETTINGS[name]
    cases = setting.cases(folder / "data")
    options = {**options, "device": "cpu", "num_workers": 0, "train#dataset#data": cases}
    options |= {"train#dataset#workers": 0, "cache_dir": str(folder / "cache")}
    parser = experiment(name, **options)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in each of the workers that share the cores
    reuse_freed_memory()
    yield from _first_time(setting, parser, cases, folder)

    data = parser.get_parsed_content("train#dataset")
    shape = "x".join(map(str, parser.get_parsed_content("input_shape")))
    random = np.random.default_rng(0)
    ready = rate(lambda: data[int(random.integers(len(data)))])
    yield f"from the cache: a sample of {shape} and its label, augmented", 1000 / ready, "ms"
    data.transform = None
    plain = rate(lambda: data[int(random.integers(len(data)))])
    yield "from the cache: the same before normalization and augmentation", 1000 / plain, "ms"
    torch.set_num_threads(threads)

    write_json(folder / "job.json", {"name": name, "options": options})
    for what in ("preparing", "reading"):
        found = _in_a_process(what, folder)
        yield f"memory of a process {what}, before the first {setting.unit}", found["before"], "MiB"
        yield f"memory of a process {what}, peak", found["peak"], "MiB"


def _first_time(setting: Setting, parser: ConfigParser, cases: list[dict[str, Any]], folder: Path) -> Rows:
    chain = parser.get_parsed_content("preprocessing")
    VolumeCache(cases[:1], chain, folder / "warm-up", workers=0)
    start = time.perf_counter()
    VolumeCache(cases, chain, folder / "cache", workers=0)
    each = (time.perf_counter() - start) / len(cases)
    unit = f"s a {setting.unit}"
    sizes = " and ".join(sorted({setting.size(case) for case in cases}))
    yield f"the first time: from {sizes} into the cache, mean of {len(cases)}", each, unit
    steps: dict[str, float] = defaultdict(float)
    kinds: dict[str, list[float]] = defaultdict(list)
    for case in cases:
        item = dict(case)
        for number, transform in enumerate(chain.flatten().transforms):
            start = time.perf_counter()
            item = transform(item)
            spent = time.perf_counter() - start
            steps[f"{type(transform).__name__} {', '.join(getattr(transform, 'keys', ()))}"] += spent
            if number == 0 and setting.kind:
                kinds[setting.kind(case)].append(spent)
    for step, seconds in steps.items():
        yield f"of it {step}", seconds / len(cases), unit
    yield "of it packing and writing", max(0.0, each - sum(steps.values()) / len(cases)), unit
    for kind, seconds in sorted(kinds.items()):
        yield f"reading {kind}, mean of {len(seconds)}", float(np.mean(seconds)), unit
    yield f"all {setting.total} of the dataset on two cores, by that", each * setting.total / 2 / 60, "min"


def _in_a_process(what: str, folder: Path) -> dict[str, float]:
    """Prepare or read in a process that did nothing else; its memory before and at the highest, in MiB."""
    command = [sys.executable, "-m", "pipelines.bench_reading", what, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def memory_of(what: str, folder: Path) -> dict[str, float]:
    """Resident memory of this process before, and at the highest while it prepares all cases or reads.

    Args:
        what: "preparing", into a cache of its own, or "reading", `READS` samples of what is in the cache.
        folder: of `reading`.
    """
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    parser = experiment(job["name"], **job["options"])
    chain = parser.get_parsed_content("preprocessing")
    torch.set_num_threads(1)
    reuse_freed_memory()
    if what == "reading":
        data = parser.get_parsed_content("train#dataset")
    before = psutil.Process().memory_info().rss
    machine.forget_peak()
    if what == "reading":
        random = np.random.default_rng(0)
        for _ in range(READS):
            data[int(random.integers(len(data)))]
    else:
        VolumeCache(job["options"]["train#dataset#data"], chain, folder / "another", workers=0)
    return {"before": before / MIB, "peak": machine.peak() / MIB}


if __name__ == "__main__":
    print(json.dumps(memory_of(sys.argv[1], Path(sys.argv[2]))))

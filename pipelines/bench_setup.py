"""What the measurements share: experiments that are not run, data of real size, rates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.bundle import ConfigParser

from pipelines import datasets

SECONDS = 3.0  # that each rate is measured for

Rows = Iterator[tuple[str, float, str]]  # what was measured, the figure, its unit


def rate(step: Callable[[], Any]) -> float:
    """Calls a second, over `SECONDS` of them, after a warm-up."""
    for _ in range(3):
        step()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        step()
        count += 1
    return count / (time.perf_counter() - start)


def experiment(name: str, overlays: Sequence[str] = (), **options: Any) -> ConfigParser:
    """A bundle's experiment, not run.

    Args:
        name: of the bundle.
        overlays: configuration files that change it.
        options: values that replace the experiment's, by id.
    """
    parser = ConfigParser()
    parser.read_config([f"bundles/{name}/train.json", *overlays])
    parser.resolve_macro_and_relative_ids()  # so that an id may lead into what another bundle lends
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

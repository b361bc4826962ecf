"""Examinations of the phantom of `brain_tumour` as files, in the layouts and codings of the real thing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from pipelines.datasets import brain_tumour_codings as codings
from pipelines.datasets.brain_tumour_examination import Examination
from pipelines.datasets.brain_tumour_layout import SEQUENCES, TASK
from pipelines.datasets.decathlon import LISTING
from pipelines.files import write_json

# How raw cases are called, by the coding of their masks: the case, and the endings of its files.
NAMES = {
    "msd": ("TCGA-00-{:04d}", ("_flair", "_t1", "_t1gd", "_t2", "_seg")),
    "brats": ("BraTS20_Training_{:03d}", ("_flair", "_t1", "_t1ce", "_t2", "_seg")),
    "brats2023": ("BraTS-GLI-{:05d}-000", ("-t2f", "-t1n", "-t1c", "-t2w", "-seg")),
}
FROM_MACOS = b"\0\5\26\7\0\2\0\0Mac OS X        "  # how the files begin that it leaves in an archive


class Written(NamedTuple):
    """A case on disk: one file with all sequences, the channel last, or one file each, and the mask."""

    name: str
    images: tuple[Path, ...]
    label: Path

    def file(self, channel: int) -> Path:
        """The file that holds a sequence."""
        return self.images[channel if len(self.images) > 1 else 0]


def write_raw(folder: Path, number: int, drawn: Examination, coding: str) -> Written:
    """Write a case as a folder of four sequences and the mask, in a coding."""
    case, endings = NAMES[coding]
    name = case.format(number)
    *images, label = (folder / name / f"{name}{ending}.nii.gz" for ending in endings)
    for path, grid, image in zip(images, drawn.grids, drawn.images, strict=True):
        _save(image, grid.affine, path)
    _save(encoded(drawn.labels, coding), drawn.affine, label)
    return Written(name, tuple(images), label)


def write_decathlon(folder: Path, number: int, drawn: Examination, test: bool = False) -> Written:
    """Write a case of the Decathlon, without its mask where it is a test, and what macOS leaves beside it."""
    name = f"BRATS_{number:03d}"
    image = folder / TASK / ("imagesTs" if test else "imagesTr") / f"{name}.nii.gz"
    label = folder / TASK / "labelsTr" / f"{name}.nii.gz"
    _save(np.stack(drawn.images, axis=-1).astype(np.float32), drawn.affine, image)
    if not test:
        _save(drawn.labels, drawn.affine, label)
    for path in (image,) if test else (image, label):
        path.with_name(f"._{path.name}").write_bytes(FROM_MACOS)
    return Written(name, (image,), label)


def write_listing(
    folder: Path, training: Sequence[str], tests: Sequence[str], channels: Sequence[str] = SEQUENCES
) -> None:
    """Write the Decathlon's dataset.json, in which a test is a plain string."""
    pairs = [
        {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in training
    ]
    content = {
        "name": "BRATS",
        "description": "a phantom: drawn, not measured",
        "tensorImageSize": "4D",
        "modality": {str(number): sequence for number, sequence in enumerate(channels)},
        "labels": {"0": "background", **{str(label): name for label, name in codings.NAMES.items()}},
        "numTraining": len(training),
        "numTest": len(tests),
        "training": pairs,
        "test": [f"./imagesTs/{name}.nii.gz" for name in tests],
    }
    write_json(folder / TASK / LISTING, content)


def encoded(labels: np.ndarray, coding: str) -> np.ndarray:
    """Labels of msd in another coding."""
    table = np.zeros(4, np.uint8)
    for label, msd in codings.labels(coding).items():
        table[msd] = label
    return table[labels]


def _save(array: np.ndarray, affine: np.ndarray, path: Path) -> None:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)

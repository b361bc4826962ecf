"""A phantom in the layouts of `brain_tumour`, with the traps of the real thing, on request with faults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from tqdm import tqdm

from pipelines.datasets import brain_tumour_codings as codings
from pipelines.datasets.brain_tumour_anatomy import Tumour, brain, scan
from pipelines.datasets.brain_tumour_layout import SEQUENCES, TASK
from pipelines.datasets.decathlon import LISTING
from pipelines.datasets.phantoms import check_options, write_phantom
from pipelines.errors import DataError
from pipelines.files import write_json

GENERATOR = 1  # counts up with every change of what is drawn

LAYOUTS = ("decathlon", "raw")
WIDTH, HEIGHT, SLICES = 240.0, 155.0, 28  # mm that the Decathlon's images show, here in thick slices
TESTS = 2  # images without a label in the Decathlon's layout

# The sixth of every twelve tumours does not enhance and has no edema, as some of low grade.
TUMOURS = (
    *(Tumour(), Tumour(lesions=2), Tumour(enhancing=False)),
    *(Tumour(), Tumour(), Tumour(enhancing=False, edema=False)),
    *(Tumour(lesions=2), Tumour(), Tumour()),
    *(Tumour(enhancing=False), Tumour(), Tumour()),
)

# How raw cases are called, by the coding of their masks: case, and the endings of sequences and mask.
NAMES = {
    "msd": ("TCGA-00-{:04d}", "_", ("flair", "t1", "t1gd", "t2", "seg")),
    "brats": ("BraTS20_Training_{:03d}", "_", ("flair", "t1", "t1ce", "t2", "seg")),
    "brats2023": ("BraTS-GLI-{:05d}-000", "-", ("t2f", "t1n", "t1c", "t2w", "seg")),
}


class Grid(NamedTuple):
    """Where the voxels of an image lie: the shape, and the affine to mm of the scanner (RAS)."""

    shape: tuple[int, int, int]
    affine: np.ndarray


class Drawn(NamedTuple):
    """An examination: each sequence on its grid (X, Y, Z), int16, and the labels, in msd, on that of T1gd."""

    grids: tuple[Grid, Grid, Grid, Grid]
    images: tuple[np.ndarray, ...]
    labels: np.ndarray

    @property
    def affine(self) -> np.ndarray:
        return self.grids[SEQUENCES.index("T1gd")].affine


def phantom(
    root: str | Path,
    cases: int = 12,
    seed: int = 0,
    size: int = 64,
    faults: bool = False,
    progress: bool | None = None,
    layout: str = "decathlon",
    coding: str = "msd",
) -> bool:
    """Write a dataset of skull-stripped brains with tumours in four MR sequences.

    A case depends on the seed, the size and its own number only; the same arguments give the same bytes.

    Args:
        root: the folder to make.
        cases: how many cases with a mask, from number 1 on; the Decathlon's layout has two without one too.
        seed: not negative.
        size: voxels across the 240 mm of an image; there are 28 slices whatever the size.
        faults: add a broken case for each error and most warnings that `brain_tumour.check` knows, listed in
            PHANTOM.json under "faults", and a `split.json` with a patient in two folds and an absent one.
        progress: show a bar; None shows it on a terminal only.
        layout: "decathlon", or "raw" for a folder of four files a case. Of raw cases every second, beginning
            with the first, has its sequences on grids of their own, as hospitals make them.
        coding: of the masks' labels, see `brain_tumour_codings`; the Decathlon's layout has only "msd".

    Returns:
        True where the phantom was written, False where the same one was there.

    Raises:
        DataError: for an option out of range, or where `root` holds anything but an earlier phantom.
    """
    check_options(cases, seed, size, least=32, largest=240)
    codings.labels(coding)
    if layout not in LAYOUTS or (layout == "decathlon" and coding != "msd"):
        raise DataError(
            f"expected the layout decathlon with the coding msd, or raw with any, found {layout!r} with"
            f" {coding!r}"
        )

    def make(folder: Path) -> dict:
        quiet = None if progress is None else not progress
        numbers = tqdm(range(1, cases + 1), desc="phantom", unit="case", disable=quiet)
        if layout == "raw":
            for number in numbers:
                write_raw(folder, raw_name(number, coding), examination(number, seed, size, layout), coding)
        else:
            for number in numbers:
                save_decathlon(folder, f"BRATS_{number:03d}", examination(number, seed, size))
            tests = [f"BRATS_{number:03d}" for number in range(cases + 1, cases + TESTS + 1)]
            for name in tests:
                save_decathlon(folder, name, examination(int(name[-3:]), seed, size), part="Ts")
            write_listing(folder, [f"BRATS_{number:03d}" for number in range(1, cases + 1)], tests)
        return {}

    parameters = {
        "dataset": "brain_tumour",
        "generator": GENERATOR,
        "cases": cases,
        "seed": seed,
        "size": size,
    }
    return write_phantom(root, {**parameters, "layout": layout, "coding": coding, "faults": faults}, make)


def examination(number: int, seed: int, size: int, layout: str = "decathlon") -> Drawn:
    """Draw a case; of the raw ones every second has its sequences on grids of their own."""
    tumour = TUMOURS[(number - 1) % len(TUMOURS)]
    rng = np.random.default_rng([seed, number])
    if layout == "decathlon":
        grids, position = (_decathlon_grid(size),) * 4, (WIDTH / 2, WIDTH / 2, HEIGHT / 2)
    elif number % 2:
        grids, position = _own_grids(rng, size), rng.uniform(-15, 15, 3)
    else:
        grids, position = (_decathlon_grid(size, -1),) * 4, (-WIDTH / 2, WIDTH / 2, HEIGHT / 2)
    drawn: dict[int, tuple] = {}
    images, labels = [], None
    for channel, grid in enumerate(grids):
        # The anatomy is drawn once for each grid, always from the same state of the generator.
        if id(grid) not in drawn:
            points, edge = _points(grid, position)
            drawn[id(grid)] = (
                *brain(np.random.default_rng([seed, number, 9]), points, edge, tumour),
                points,
                edge,
            )
        clean, inside, mask, points, edge = drawn[id(grid)]
        own = np.random.default_rng([seed, number, channel])
        images.append(scan(own, clean[channel], inside, points, edge))
        if SEQUENCES[channel] == "T1gd":
            labels = mask
    return Drawn(grids, tuple(images), labels)


def raw_name(number: int, coding: str) -> str:
    """What a raw case is called."""
    return NAMES[coding][0].format(number)


def write_raw(folder: Path, name: str, drawn: Drawn, coding: str) -> None:
    """Write a raw case: a folder of four sequences and the mask, in a coding."""
    _, separator, endings = NAMES[coding]
    paths = [folder / name / f"{name}{separator}{ending}.nii.gz" for ending in endings]
    for path, grid, image in zip(paths, drawn.grids, drawn.images, strict=False):
        save(image, grid.affine, path)
    save(encoded(drawn.labels, coding), drawn.affine, paths[-1])


def save_decathlon(folder: Path, name: str, drawn: Drawn, part: str = "Tr") -> None:
    """Write a case of the Decathlon, with what macOS leaves beside it in an archive."""
    image, label = (
        folder / TASK / f"images{part}" / f"{name}.nii.gz",
        folder / TASK / "labelsTr" / f"{name}.nii.gz",
    )
    save(np.stack(drawn.images, axis=-1).astype(np.float32), drawn.affine, image)
    image.with_name(f"._{image.name}").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    if part == "Tr":
        save(drawn.labels, drawn.affine, label)
        label.with_name(f"._{label.name}").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")


def write_listing(folder: Path, training: Sequence[str], tests: Sequence[str]) -> None:
    """Write the Decathlon's dataset.json, in which a test is a plain string."""
    pairs = [
        {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in training
    ]
    content = {
        "name": "BRATS",
        "description": "a phantom: drawn, not measured",
        "tensorImageSize": "4D",
        "modality": {str(number): sequence for number, sequence in enumerate(SEQUENCES)},
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


def save(array: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write an array as NIfTI, in mm."""
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def _decathlon_grid(size: int, sign: int = 1) -> Grid:
    """The Decathlon's grid, whose axes grow to the right and the front from 0; with -1 that of BraTS."""
    pixel = WIDTH / size
    affine = np.diag((sign * pixel, sign * pixel, HEIGHT / SLICES, 1))
    affine[1, 3] = 0 if sign > 0 else WIDTH
    return Grid((size, size, SLICES), affine)


def _own_grids(rng: np.random.Generator, size: int) -> tuple[Grid, Grid, Grid, Grid]:
    """Grids as one examination in a hospital has them: two tilts, three matrices, thick slices."""
    steep, flat = (_tilt(rng.uniform(low, high)) for low, high in ((12, 20), (-6, 6)))
    turned = (
        ((0.8125, 1), steep),
        ((1, 0.875), flat),
        ((1, 0.875), flat),
        ((0.875, 1), steep),
    )
    made: dict[tuple, Grid] = {}
    grids = []
    for shape, tilt in turned:
        key = (shape, id(tilt))
        if key not in made:
            made[key] = _tilted((round(size * shape[0]), round(size * shape[1]), 26), tilt, 230 / size)
        grids.append(made[key])
    return tuple(grids)


def _tilt(degrees: float) -> np.ndarray:
    """A rotation about the axis from left to right."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array(((1, 0, 0), (0, c, -s), (0, s, c)))


def _tilted(shape: tuple[int, int, int], tilt: np.ndarray, pixel: float) -> Grid:
    """A grid centred on the scanner's, whose axes grow to the left, the front and the head (LAS)."""
    matrix = tilt @ np.diag((-pixel, pixel, 5.5))
    middle = (np.array(shape) - 1) / 2
    return Grid(shape, nib.affines.from_matvec(matrix, -matrix @ middle))


def _points(grid: Grid, position: Sequence[float]) -> tuple[tuple[np.ndarray, ...], float]:
    """Where each voxel lies in a patient at `position`, in mm, and the width of a soft border."""
    indices = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    world = nib.affines.apply_affine(grid.affine, np.stack(indices, axis=-1)) - np.asarray(position)
    x, y, z = nib.affines.voxel_sizes(grid.affine)
    points = tuple(np.ascontiguousarray(world[..., axis], np.float32) for axis in range(3))
    return points, float((x + y) / 2 + 0.1 * z)

"""A phantom in the layout of LiTS, with the traps of the real thing, and on request with broken files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from tqdm import tqdm

from pipelines.datasets.lits_anatomy import LOOKS, abdomen
from pipelines.datasets.lits_faults import write_faults
from pipelines.datasets.phantoms import check_options, write_phantom
from pipelines.errors import DataError

GENERATOR = 1  # counts up with every change of what is drawn


# The looks of cases in turn, by the name of the choice.
TURNS = {"portal": ("portal",), "varied": ("portal", "portal", "portal", "arterial", "fatty")}


class Traits(NamedTuple):
    """What a case is whatever the seed, so that every phantom of a dozen cases holds every trap."""

    orientation: str
    thickness: float  # of a slice, in mm
    suffix: str = ".nii.gz"
    lesions: bool = True
    padded: bool = False  # -2048 outside the scanner's circle, as some vendors write
    identity: bool = False  # an affine that tells nothing, as the cases from 3D-IRCADb have


# The nibabel codes name the directions in which the array's axes grow; ALS has its first two swapped.
TRAITS = (
    Traits("LPS", 5.0),
    Traits("RAS", 2.5),
    Traits("LAS", 4.0, ".nii"),
    Traits("LPS", 5.0, padded=True),
    Traits("RPS", 3.0, lesions=False),
    Traits("LPS", 1.0, ".nii"),
    Traits("LPI", 5.0),
    Traits("LPS", 4.0, identity=True),
    Traits("ALS", 5.0),
    Traits("RAS", 2.0, ".nii"),
    Traits("LPS", 5.0),
    Traits("LAS", 3.0, ".nii"),
)


def phantom(
    root: str | Path,
    cases: int = 12,
    seed: int = 0,
    size: int = 128,
    faults: bool = False,
    progress: bool | None = None,
    looks: str = "portal",
) -> bool:
    """Write a LiTS-like dataset: CT-like volumes with labels 0, 1 liver, 2 tumour.

    A case depends on the seed, the size and its own number only; the same arguments give the same bytes.

    Args:
        root: the folder to make.
        cases: how many cases, `volume-0` onwards. The fifth of every twelve has no lesion.
        seed: not negative.
        size: voxels across the body; the spacing shrinks as it grows. Some cases have an eighth more or less.
        faults: add a broken case for each error and most warnings that `lits.check` knows, listed in
            PHANTOM.json under "faults", and a `split.json` with a patient in two folds and an absent one.
        progress: show a bar; None shows it on a terminal only.
        looks: "portal", all cases in the portal venous phase; or "varied": of every five, the fourth in the
            arterial phase, with bright lesions, and the fifth with a fatty liver (`look_of`).

    Returns:
        True where the phantom was written, False where the same one was there.

    Raises:
        DataError: for an option out of range, or where `root` holds anything but an earlier phantom.
    """
    check_options(cases, seed, size, least=48, largest=512)
    if looks not in TURNS:
        raise DataError(f"expected --looks {' or '.join(TURNS)}, found {looks!r}")

    def make(folder: Path) -> dict:
        quiet = None if progress is None else not progress
        for number in tqdm(range(cases), desc="phantom", unit="case", disable=quiet):
            image, label = _case(number, seed, size, looks)
            _save(image, folder / _path("volume", number))
            _save(label, folder / _path("segmentation", number))
        if not faults:
            return {}
        broken = write_faults(
            folder, cases, lambda number: _case(number, seed, size, looks), _path("volume", 0)
        )
        return {"faults": broken}

    parameters = {"dataset": "lits", "generator": GENERATOR, "cases": cases, "seed": seed, "size": size}
    if looks != "portal":
        parameters["looks"] = looks
    return write_phantom(root, {**parameters, "faults": faults}, make)


def look_of(number: int, looks: str) -> str:
    """The key of `LOOKS` that a case of a phantom has."""
    turns = TURNS[looks]
    return turns[number % len(turns)]


def has_lesions(number: int) -> bool:
    """Whether a case of any phantom has lesions."""
    return TRAITS[number % len(TRAITS)].lesions


def _path(kind: str, number: int) -> str:
    """Where a file lies: the first cases in one sub-folder, the others in another, as the download has it."""
    batch = 1 if number < 5 else 2
    return f"Training Batch {batch}/{kind}-{number}{TRAITS[number % len(TRAITS)].suffix}"


def _case(number: int, seed: int, size: int, looks: str) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    traits = TRAITS[number % len(TRAITS)]
    rng = np.random.default_rng([seed, number])
    wide = round(size * (1, 0.875, 1.125, 1)[number % 4])
    deep = round(size * (1, 0.875, 1, 0.9375)[number % 4])
    spacing = rng.uniform(0.62, 0.86) * 512 / wide
    # A thin-sliced stack gets more slices, but covers less of the body.
    slices = int(rng.integers(30, 41) if traits.thickness < 3 else rng.integers(24, 37))
    voxel, look = (spacing, spacing, traits.thickness), LOOKS[look_of(number, looks)]
    hu, labels = abdomen(rng, (wide, deep, slices), voxel, traits.lesions, look)
    hu = np.rint(hu).astype(np.int16)
    if traits.padded:
        x, y = (np.linspace(-1, 1, n)[:, None] * n / max(wide, deep) for n in (wide, deep))
        hu[np.hypot(x, y.T) > 1] = -2048
    corner = (*rng.uniform(-250, -150, 2), rng.uniform(-900, 300))
    affine = nib.affines.from_matvec(np.diag((spacing, spacing, traits.thickness)), corner)
    target = nib.orientations.axcodes2ornt(traits.orientation)
    turn = nib.orientations.ornt_transform(nib.orientations.io_orientation(affine), target)
    images = (nib.Nifti1Image(array, affine).as_reoriented(turn) for array in (hu, labels))
    if traits.identity:
        images = (nib.Nifti1Image(image.dataobj, np.eye(4)) for image in images)
    return tuple(images)


def _save(image: nib.Nifti1Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)

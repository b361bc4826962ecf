"""A phantom in the layouts of `brain_tumour`, with the traps of the real thing, on request with faults."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from pipelines.datasets import brain_tumour_codings as codings
from pipelines.datasets import brain_tumour_examination as examinations
from pipelines.datasets.brain_tumour_faults import write_faults
from pipelines.datasets.brain_tumour_layout import SEQUENCES, TASK, patient_of
from pipelines.datasets.brain_tumour_writers import Written, write_decathlon, write_listing, write_raw
from pipelines.datasets.decathlon import LISTING
from pipelines.datasets.phantoms import check_options, write_phantom
from pipelines.errors import DataError

GENERATOR = 3  # counts up with every change of what is drawn

LAYOUTS = ("decathlon", "raw")
TESTS = 2  # images without a mask in the Decathlon's layout


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

    A case depends on the seed, the size, the layout and its own number only; the same arguments give the same
    bytes.

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
            "expected the layout decathlon with the coding msd, or raw with any, found "
            f"--layout {layout} --coding {coding}"
        )

    def save(number: int, folder: Path) -> Written:
        if layout == "decathlon":
            return write_decathlon(folder, number, examinations.decathlon(number, seed, size))
        draw = examinations.hospital if number % 2 else examinations.brats
        return write_raw(folder, number, draw(number, seed, size), coding)

    def save_alike(number: int, folder: Path) -> Written:
        """A case of the usual kind on one grid, of which a broken one is made."""
        kind = examinations.GLIOBLASTOMA
        if layout == "decathlon":
            return write_decathlon(folder, number, examinations.decathlon(number, seed, size, kind))
        return write_raw(folder, number, examinations.brats(number, seed, size, kind), coding)

    def make(folder: Path) -> dict:
        quiet = None if progress is None else not progress
        numbers = tqdm(range(1, cases + 1), desc="phantom", unit="case", disable=quiet)
        sound = [save(number, folder) for number in numbers]
        tests = range(cases + 1, cases + TESTS + 1) if layout == "decathlon" else ()
        for number in tests:
            write_decathlon(folder, number, examinations.decathlon(number, seed, size), test=True)
        broken = []
        if faults:
            first = cases + len(tests) + 1
            patients = [_patient(case, layout) for case in sound]
            broken = write_faults(
                folder, first, lambda number: save_alike(number, folder), sound[0], patients
            )
        if layout == "decathlon":
            listed = [case.name for case in sound] + list(dict.fromkeys(fault["case"] for fault in broken))
            channels = SEQUENCES if not faults else SEQUENCES[::-1]
            write_listing(folder, listed, [f"BRATS_{number:03d}" for number in tests], channels)
            if faults:
                found = {"severity": "error", "kind": "order", "case": "", "file": f"{TASK}/{LISTING}"}
                broken.append(found)
        return {"faults": broken} if faults else {}

    parameters = {"dataset": "brain_tumour", "generator": GENERATOR, "cases": cases, "seed": seed}
    parameters |= {"size": size, "layout": layout, "coding": coding, "faults": faults}
    return write_phantom(root, parameters, make)


def _patient(case: Written, layout: str) -> str:
    return case.name.removeprefix("BRATS_") if layout == "decathlon" else patient_of(case.name)

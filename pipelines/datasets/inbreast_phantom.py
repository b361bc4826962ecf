"""A phantom of INbreast: mammograms as DICOM, contours as XML and the table, with the traps of all three."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from pipelines.datasets import inbreast_anatomy as anatomy
from pipelines.datasets.inbreast_faults import write_faults
from pipelines.datasets.inbreast_layout import CONTOURS, IMAGES, RELEASE, TABLE
from pipelines.datasets.inbreast_writers import burn_in, write_contours, write_mammogram, write_table
from pipelines.datasets.phantoms import check_options, write_phantom

GENERATOR = 1  # counts up with every change of what is drawn
PIXEL = 0.07  # mm, at the detectors' own size
DETECTORS = ((3328, 2560), (4084, 3328))  # height and width in pixels
BRIGHT = 0.86  # of full scale, where a value of 1 comes to lie; only the marker is brighter


class View(NamedTuple):
    """An image of a breast and what is outlined in it; no findings mean no XML at all."""

    side: str
    view: str  # as file names have it, so ML for MLO
    findings: tuple[str, ...] = ()


class Traits(NamedTuple):
    """What a patient is whatever the seed, so that every phantom of six patients holds every trap."""

    bits: int
    photometric: str
    form: str
    windows: int  # how many
    detector: int
    views: tuple[View, ...]
    row: tuple[str, str, str]  # date, ACR and BI-RADS in the table


# A finding is what it is and, but for a mass, the name that its contours have.
TRAITS = (
    Traits(
        *(12, "MONOCHROME2", "plain", 1, 0),
        (
            View("R", "CC", ("mass", "calcifications Calcification", "region Cluster")),
            View("L", "CC"),
            View("R", "ML", ("mass", "calcifications Calcification")),
            View("L", "ML", ("marks Point 1", "mass")),
        ),
        ("201001", "2", "4a"),
    ),
    Traits(
        *(14, "MONOCHROME1", "jpeg", 2, 0),
        (
            View("L", "CC", ("mass", "spiculated Spiculated Region")),
            View("L", "ML", ("cut mass", "calcifications Calcifications")),
        ),
        ("200805", "     ", "5"),
    ),
    Traits(
        *(14, "MONOCHROME2", "jpeg2000", 3, 1),
        (
            View("R", "CC", ("marks Unnamed", "region Distortion")),
            View("R", "ML", ("spiculated Espiculated Region", "marks Point 3")),
            View("L", "CC"),
        ),
        ("201001/02", "3", "4c"),
    ),
    Traits(
        *(12, "MONOCHROME1", "implicit", 0, 0),
        (
            View("L", "CC", ("calcifications Calcification", "marks", "region Assymetry")),
            View("R", "CC", ("mass", "spiculated Spiculated region")),
        ),
        ("200911", "1 ", "6"),
    ),
    Traits(
        *(14, "MONOCHROME2", "rle", 1, 0),
        (
            View("R", "ML", ("mass", "mass", "inside Calcification")),
            View("L", "ML", ("region Asymmetry", "mass")),
        ),
        ("201003", "4", "4b"),
    ),
    Traits(
        *(12, "MONOCHROME2", "jpeg", 2, 1),
        (
            View("R", "CC"),
            View("R", "ML", ("cut mass",)),
            View("L", "CC", ("mass", "region Unnamed")),
            View("L", "ML", ("mass", "calcifications Calcification")),
        ),
        ("200902", "2", "2"),
    ),
)


class Files(NamedTuple):
    """The files of one image, and its row of the table."""

    image: Path
    contours: Path | None
    row: tuple[str, ...]


def phantom(
    root: str | Path,
    cases: int = 6,
    seed: int = 0,
    size: int = 512,
    faults: bool = False,
    progress: bool | None = None,
) -> bool:
    """Write `INbreast Release 1.0` with `AllDICOMs`, `AllXML` and `INbreast.csv`.

    A patient depends on the seed, the size and its own number only; the same arguments give the same bytes.

    Args:
        root: the folder to make.
        cases: how many patients, of two to four images. Every six have all formats, names and traps.
        seed: not negative.
        size: an image's height in pixels, 3328 in most of INbreast; the larger of both detectors, in every
            third patient, is 4084/3328 as high. The pixels grow as the size falls.
        faults: add patients for the faults of `inbreast_faults`, listed in PHANTOM.json under "faults" with
            the finding to expect, and a `split.json` with a patient in two folds and an absent one.
        progress: show a bar; None shows it on a terminal only.

    Returns:
        True where the phantom was written, False where the same one was there, complete.

    Raises:
        DataError: for an option out of range, or where `root` holds anything but an earlier phantom.
    """
    check_options(cases, seed, size, least=64, largest=3328)

    def make(folder: Path) -> dict:
        quiet = None if progress is None else not progress
        place = folder / RELEASE
        for part in (IMAGES, CONTOURS):
            (place / part).mkdir(parents=True)
        rows = []
        for number in tqdm(range(1, cases + 1), desc="phantom", unit="case", disable=quiet):
            rows += [files.row for files in save(place, number, seed, size)]
        listed = {}
        if faults:
            listed["faults"] = write_faults(folder, cases + 1, rows, lambda n: save(place, n, seed, size))
        write_table(place / TABLE, sorted(rows, key=lambda row: row[3], reverse=True))
        return listed

    parameters = {"dataset": "inbreast", "generator": GENERATOR, "cases": cases, "seed": seed, "size": size}
    return write_phantom(root, {**parameters, "faults": faults}, make)


def save(place: Path, number: int, seed: int, size: int) -> list[Files]:
    """Write the images of a patient, from 1, into the folders of a release."""
    traits = TRAITS[(number - 1) % len(TRAITS)]
    patient = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).hexdigest()
    files = []
    for count, view in enumerate(traits.views):
        # In no order, so that sorted ids do not tell who belongs together.
        name = f"22{(8 * number + count) * 7919 % 10**6:06d}"
        levels, rois, pixel = draw(number, count, seed, size)
        path = place / IMAGES / f"{name}_{patient}_MG_{view.side}_{view.view}_ANON.dcm"
        plane = "MLO" if view.view == "ML" else view.view
        write_mammogram(
            *(path, levels, view.side, plane, pixel, traits.bits, traits.photometric, traits.form),
            _windows(traits),
        )
        contours = place / CONTOURS / f"{name}.xml" if view.findings else None
        if contours:
            write_contours(contours, rois)
        date, density, birads = traits.row
        row = (view.side, plane, date, name, density, birads if view.findings else "1")
        files.append(Files(path, contours, row))
    return files


def draw(
    number: int, count: int, seed: int = 0, size: int = 512
) -> tuple[np.ndarray, list[tuple[str | None, np.ndarray]], float]:
    """One image of a patient.

    Args:
        number: of the patient, from 1.
        count: of the image, from 0.
        seed: not negative.
        size: as for `phantom`.

    Returns:
        The levels, uint16 (H, W), brighter where tissue is denser; the contours, each with its name (None for
        one without) and its points, (N, 2), x and y in pixels; the distance of pixel centres in mm.
    """
    traits = TRAITS[(number - 1) % len(TRAITS)]
    view = traits.views[count]
    rng = np.random.default_rng([seed, number, count])
    shape = tuple(round(side * size / DETECTORS[0][0]) for side in DETECTORS[traits.detector])
    pixel = PIXEL * DETECTORS[0][0] / size
    found = anatomy.breast(rng, shape, pixel, oblique=view.view != "CC")
    rois = _findings(rng, found, view.findings)
    highest = 2**traits.bits - 1
    grain = rng.standard_normal(shape, np.float32) * np.float32(0.006)
    values = np.maximum(found.image + grain * np.sqrt(found.image), 0)
    levels = np.clip(np.rint(values * (BRIGHT * highest)), 0, highest - 1).astype(np.uint16)
    rois = [(name, points / pixel) for name, points in rois]
    if view.side == "R":
        levels = np.ascontiguousarray(levels[:, ::-1])
        rois = [(name, points * (-1, 1) + (shape[1] - 1, 0)) for name, points in rois]
    burn_in(levels, view.side, view.view, highest)
    return levels, rois, pixel


def _findings(
    rng: np.random.Generator, found: anatomy.Breast, findings: tuple[str, ...]
) -> list[tuple[str | None, np.ndarray]]:
    """Paint the findings of an image; returns the contours in mm."""
    rois: list[tuple[str | None, np.ndarray]] = []
    taken: list[tuple[float, float]] = []
    for finding in findings:
        kind, _, text = finding.partition(" ")
        name = text or None
        radius = rng.uniform(8, 14)
        if finding == "cut mass":
            kind = "mass"
            centre = anatomy.at_wall(rng, found, radius)
        elif kind == "inside":
            centre = taken[-1]
        elif name == "Cluster":
            rois.append((name, anatomy.oval(taken[-1], 24, 20).contour))
            continue
        else:
            centre = anatomy.place(rng, found, radius + 4, taken)
        taken.append(centre)
        if kind in ("mass", "spiculated"):
            spicules = 14 if kind == "spiculated" else 0
            rois.append(("Mass", anatomy.mass(rng, found, centre, radius, spicules).contour))
            if spicules:
                rois.append((name, anatomy.oval(centre, 4.4 * radius, 4 * radius).contour))
        elif kind == "region":
            rois.append((name, anatomy.oval(centre, 2.4 * radius, 2 * radius).contour))
        else:
            spots = anatomy.calcifications(
                rng, found, centre, 4 if kind == "inside" else 8, 5 + len(rois) % 4
            )
            if kind == "marks":
                centres = [np.array([spot.centre]) for spot in spots]
                rois += [(name, one) for one in centres[2:]] + [(name, np.concatenate(centres[:2]))]
            else:
                rois += [(name, spot.contour) for spot in spots]
    return rois


def _windows(traits: Traits) -> list[tuple[float, float, str]]:
    """Such as "NORMAL", centred on what is stored of tissue."""
    highest = 2**traits.bits - 1
    centre = 0.45 * highest if traits.photometric == "MONOCHROME2" else 0.55 * highest
    kinds = (("NORMAL", 0.7), ("HARDER", 0.5), ("SOFTER", 0.9))[: traits.windows]
    return [(round(centre), round(highest * share), name) for name, share in kinds]

"""How well calipers are found: figures on a phantom, where they are known, and a picture of any images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table
from scipy import ndimage
from tqdm import tqdm

from pipelines import datasets
from pipelines.datasets import dce_us_phantom
from pipelines.datasets.ultrasound_screen import BLUE, WHITE, YELLOW
from pipelines.errors import DataError
from pipelines.files import written_whole
from pipelines.picture_reader import read_picture
from transforms import RemoveCalipers, find_calipers

COLOURS = {BLUE: "blue", YELLOW: "yellow", WHITE: "white"}
ALL = "all"
SHOWN = 12  # images in a picture
MARK = 255, 0, 255  # a colour that scanners do not draw in
NEAR = np.ones((3, 3), bool)  # one pixel of tolerance


class Score(NamedTuple):
    """Precision and recall over the pixels of some images together; nan where there are none to count."""

    images: int
    precision: float  # the share of the pixels found that have a stroke within one pixel
    recall: float  # the share of the strokes' pixels that have one found within one pixel
    missed: int  # images where nothing was found


class Figures(NamedTuple):
    """How well calipers are found on the phantom."""

    scores: dict[str, Score]  # of all images, and by the colour of the calipers
    plain: int  # images drawn without calipers
    false_alarms: int  # those of them where something was found


class Study(NamedTuple):
    """How many images of a dataset have calipers, and which ones the picture shows."""

    images: int
    found: int
    shown: list[str]  # files, in the order of their numbers in the picture


def measure(patients: int = 12, seed: int = 1, size: int = 256) -> Figures:
    """Look for calipers in the phantom of `dce_us`, in both views of each patient, with calipers and without.

    Args:
        patients: how many; a dozen has every colour.
        seed, size: of the phantom. Its seed 0 is what the search was developed with, so it is not a test.

    Raises:
        DataError: for an option out of range.
    """
    if patients < 1 or seed < 0 or not 96 <= size <= 1024:
        raise DataError(
            f"expected at least 1 patient, a seed of 0 or more and a size of 96 to 1024, found {patients}"
            f" patients, seed {seed} and size {size}"
        )
    counts: dict[str, list[np.ndarray]] = {ALL: []}
    false_alarms = 0
    for number in tqdm(range(1, patients + 1), desc="calipers", unit="patient", disable=None):
        traits = dce_us_phantom.TRAITS[(number - 1) % len(dce_us_phantom.TRAITS)]
        for view in (1, 2):
            rgb, _, drawn = dce_us_phantom.image(number, view, seed, size)
            count = _count(_strokes(rgb), drawn)
            for name in (ALL, COLOURS[traits.calipers]):
                counts.setdefault(name, []).append(count)
            plain, _, _ = dce_us_phantom.image(number, view, seed, size, calipers=False)
            false_alarms += bool(_strokes(plain).any())
    scores = {name: _score(np.array(rows)) for name, rows in counts.items()}
    return Figures(scores, 2 * patients, false_alarms)


def table(figures: Figures) -> Table:
    """The figures of `measure` for a terminal."""
    made = Table(
        title="calipers found in the dce_us phantom",
        caption="precision and recall of the pixels, one pixel of tolerance; "
        f"in {figures.false_alarms} of {figures.plain} images without calipers something was found",
        title_justify="left",
        caption_justify="left",
    )
    made.add_column("calipers")
    for heading in ("images", "precision", "recall", "nothing found in"):
        made.add_column(heading, justify="right")
    for name, score in figures.scores.items():
        precision, recall = f"{score.precision:.3f}", f"{score.recall:.3f}"
        made.add_row(name, str(score.images), precision, recall, str(score.missed))
    return made


def study(root: str | Path, path: str | Path) -> Study:
    """Look for calipers in every image of a dataset, and draw those with the most pixels of them.

    Args:
        root: the dataset's folder, as for `datasets.dce_us.index`; masks are not needed.
        path: the PNG to write; none is written where no image has calipers.

    Raises:
        DataError: where there is no data, an image cannot be read, or the picture cannot be written.
    """
    files = [case["image"] for case in datasets.get("dce_us").index(root, labelled=False)]
    bar = tqdm(files, desc="calipers", unit="image", disable=None)
    pixels = np.array([np.count_nonzero(_strokes(np.asarray(read_picture(file)))) for file in bar])
    most = np.argsort(-pixels, kind="stable")[:SHOWN]
    shown = [files[index] for index in most if pixels[index]]
    if shown:
        picture(shown, path)
    return Study(len(files), int(np.count_nonzero(pixels)), shown)


def picture(files: Sequence[str | Path], path: str | Path) -> None:
    """Draw images as they are, with the strokes found in them, and after the removal, side by side.

    Images are numbered from 1 in the order of `files`; their names stay out, since they may be patients'.

    Args:
        files: what `read_picture` reads.
        path: the PNG to write.

    Raises:
        DataError: there is no image, one cannot be read, or the picture cannot be written.
    """
    if not files:
        raise DataError("expected images to draw, found none")
    across = min(len(files), 2)
    down = -(-len(files) // across)
    figure = Figure(figsize=(9.6 * across, 2.9 * down), layout="constrained")
    grid = figure.subplots(down, 3 * across, squeeze=False).reshape(-1, 3)
    for axes in grid.ravel():
        axes.set_axis_off()
    for number, (row, file) in enumerate(zip(grid, files, strict=False), start=1):
        rgb = np.asarray(read_picture(file))
        marked = rgb.copy()
        marked[_strokes(rgb)] = MARK
        removed = RemoveCalipers()(rgb.transpose(2, 0, 1)).transpose(1, 2, 0)
        views = ((f"{number}", rgb), ("found", marked), ("removed", removed))
        for axes, (heading, view) in zip(row, views, strict=True):
            axes.imshow(view, interpolation="nearest")
            axes.set_title(heading, fontsize=9)
    FigureCanvasAgg(figure)
    with written_whole(path) as beside:
        figure.savefig(beside, dpi=150, format="png")


def _strokes(rgb: np.ndarray) -> np.ndarray:
    return find_calipers(rgb.transpose(2, 0, 1))


def _count(found: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Of one image: pixels found, those of them near a stroke, pixels drawn, those of them near one found."""
    right = found & ndimage.binary_dilation(drawn, NEAR)
    met = drawn & ndimage.binary_dilation(found, NEAR)
    return np.array([np.count_nonzero(mask) for mask in (found, right, drawn, met)])


def _score(counts: np.ndarray) -> Score:
    found, right, drawn, met = (int(total) for total in counts.sum(axis=0))
    precision, recall = (right / found if found else np.nan), (met / drawn if drawn else np.nan)
    return Score(len(counts), precision, recall, int(np.count_nonzero(counts[:, 0] == 0)))

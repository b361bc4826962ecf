"""Groups of near-identical images, for a dataset that repeats images and names no patients.

Two images are taken for the same where their looks correlate. A look is a small thumbnail without its broad
shading and without the mean of each row and column, so that gain, layers of tissue and the scanner's margins,
which many images share, count for little. It is compared at shifts of a pixel, since copies are cropped
differently. Images that are alike by way of a third one belong to one group as well.

Size and threshold were chosen on 605 images of BUSI for which a list of groups was at hand, so that what
follows is no test on new images. Of the 177 pairs that the list puts into one group, 175 are found (recall
0.989; the other 2 show the lesion in another frame), and of the 188 pairs found, 175 are in the list
(precision 0.931; the other 13 were looked at, and each shows one lesion twice). Unlike images correlate by up
to 0.39, and any threshold from 0.42 to 0.45 gives the same groups. Mirrored copies are not looked for.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from pipelines.datasets.masks import READ_ERRORS
from pipelines.errors import DataError

SIDE = 32  # pixels of the square thumbnail, whatever the image's aspect
SHADING = 2  # thumbnail pixels; standard deviation of the blur that is subtracted
SHIFT = 1  # thumbnail pixels, along both axes
THRESHOLD = 0.44
BLOCK = 1024  # images compared at a time with all others


def describe(picture: Image.Image) -> np.ndarray:
    """The look of an image, float32, shape (32, 32)."""
    grey = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    thumbnail = np.asarray(grey, np.float32)
    detail = thumbnail - ndimage.gaussian_filter(thumbnail, SHADING)
    detail -= detail.mean(1, keepdims=True)
    return detail - detail.mean(0)


def describe_files(files: Sequence[str | Path]) -> np.ndarray:
    """The looks of image files, float32, shape (number of files, 32, 32), with a progress bar on terminals.

    Raises:
        DataError: names a file that cannot be read.
    """
    # Threads, since Pillow lets go of the interpreter while it decodes.
    with ThreadPoolExecutor() as pool:
        bar = tqdm(pool.map(_describe_file, files), "repeats", len(files), unit="image", disable=None)
        return np.stack(list(bar)) if files else np.empty((0, SIDE, SIDE), np.float32)


def _describe_file(file: str | Path) -> np.ndarray:
    try:
        with Image.open(file) as picture:
            return describe(picture)
    except READ_ERRORS as error:
        raise DataError(
            f"{file}: expected a whole image file, found one that cannot be read"
            f" ({type(error).__name__}: {error}); download or export it again"
        ) from error


def group(looks: np.ndarray) -> np.ndarray:
    """Number the groups of images that look alike, directly or by way of others.

    Args:
        looks: from `describe_files`, shape (N, 32, 32).

    Returns:
        The group of each image, int, shape (N,).
    """
    inner = SIDE - 2 * SHIFT
    still = _unit(looks[:, SHIFT : SHIFT + inner, SHIFT : SHIFT + inner])
    found = []
    for row, column in product(range(2 * SHIFT + 1), repeat=2):
        moved = _unit(looks[:, row : row + inner, column : column + inner])
        for start in range(0, len(looks), BLOCK):
            first, second = np.nonzero(still[start : start + BLOCK] @ moved.T >= THRESHOLD)
            found.append((first + start, second))
    first, second = (np.concatenate(part) for part in zip(*found, strict=True))
    alike = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(looks), len(looks)))
    return connected_components(alike, directed=False)[1]


def _unit(windows: np.ndarray) -> np.ndarray:
    """Windows as vectors of mean 0 and length 1, so that a product is a correlation; 0 for a blank one."""
    vectors = windows.reshape(len(windows), -1)
    vectors = vectors - vectors.mean(1, keepdims=True)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def read_groups(listing: str | Path) -> dict[str, str]:
    """The group of each image from a CSV file with the columns `image` and `group`; others are ignored.

    Raises:
        DataError: where a column is missing, a field is empty, or an image is in two groups.
    """
    groups: dict[str, str] = {}
    try:
        with Path(listing).open(newline="", encoding="utf-8-sig") as lines:
            for row in csv.DictReader(lines):
                image, name = Path(row["image"].replace("\\", "/")).as_posix(), row["group"].strip()
                if not name or groups.setdefault(image, name) != name:
                    raise ValueError(f"{groups.get(image, '')!r} and {name!r} for {image}")
    except (OSError, ValueError, KeyError, AttributeError, csv.Error) as error:
        raise DataError(
            f"expected the columns image and group, and each image in one group, in {listing}, found"
            f" {type(error).__name__}: {error}; mend the file, or remove it to group images by their looks"
        ) from None
    return groups

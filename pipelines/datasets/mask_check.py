"""What can be wrong with the masks of an image; where the lesion is, each dataset judges by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.datasets import masks
from pipelines.datasets.checking import Report, unreadable
from pipelines.errors import DataError


def examine(labels: Sequence[Path], size: tuple[int, int] | None, report: Report) -> np.ndarray | None:
    """Read the masks of one image and report which cannot be read or do not fit.

    Args:
        labels: the masks' files, one or more.
        size: the image's (height, width); None takes that of the first mask.
        report: takes the findings.

    Returns:
        The union of the masks, bool, shape (height, width), or None where one of them is at fault.
    """
    found = []
    for path in labels:
        try:
            verify(path)
            with Image.open(path) as picture:
                mask, blurred = masks.decode(picture), masks.has_greys(picture)
        except DataError as error:
            report("error", "labels", path, str(error).removeprefix(f"{path}: "))
            continue
        except masks.READ_ERRORS as error:
            report("error", "unreadable", path, unreadable(error))
            continue
        if blurred:
            report("note", "grey", path, "greys between background and lesion, as of a JPEG: cut at half")
        size = size or mask.shape
        if mask.shape == size:
            found.append(mask)
        else:
            expected, shown = masks.size_text(size), masks.size_text(mask.shape)
            message = f"expected its image's {expected} pixels, found {shown}; a mask is never resized"
            report("error", "size", path, message)
    if len(found) < len(labels):
        return None
    if len(found) > 1:
        report("note", "several", labels[0], f"{len(found)} masks, of which the lesion is the union")
    return np.logical_or.reduce(found)


def verify(path: Path) -> None:
    """Compare the checksums of a picture's file, where its format has them.

    Raises:
        masks.READ_ERRORS: where they differ, or the file is no picture.
    """
    with Image.open(path) as picture:
        picture.verify()

"""One case through a chain of transforms, with a clear error where its files are at fault."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai.data import Dataset
from monai.transforms import Compose, LoadImaged
from monai.utils import ensure_tuple

from pipelines.errors import DataError, causes
from transforms import ImageError

READERS = [
    "ITKReader",
    "NibabelReader",
]  # of volumes; the last one that knows the name's ending reads the file


def _unreadable(case: dict[str, Any], transform: Callable) -> tuple[str, str] | None:
    """The first file of a case that the chain's own loaders do not load, and why."""
    for load in Compose(transform).flatten().transforms:
        if not isinstance(load, LoadImaged):
            continue
        sources = (case[key] for key in load.keys if key in case)
        for file in (file for source in sources for file in _suspects(source, load)):
            if not Path(file).exists():
                return str(file), "no such file"
            try:
                load._loader(file)  # one file, where the transform itself takes all of its keys
            except Exception as error:
                reason = list(causes(error))[-1]
                return str(file), f"{type(reason).__name__}: {reason}".splitlines()[0]
    return None


def _suspects(source: Any, load: LoadImaged) -> list[str | Path]:
    """The files to try one by one; none of several that load together, as contours do with their image."""
    files = [file for file in ensure_tuple(source) if isinstance(file, (str, Path))]
    if len(files) > 1:
        with contextlib.suppress(Exception):
            load._loader(source)
            return []
    return files


def load_case(case: dict[str, Any], transform: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Apply `transform` to a case of a MONAI datalist.

    Raises:
        DataError: a file of the case is missing, cut short or not what the chain expects: each one that
            a `LoadImaged` of the chain takes is tried on its own. What the transforms raise for other
            reasons is a bug and passes through.
    """
    try:
        return transform(case)
    except Exception as error:
        for cause in causes(error):
            if isinstance(cause, (ImageError, DataError)):
                raise DataError(str(cause)) from error
        culprit = _unreadable(case, transform)
        if culprit is None:
            raise
        file, reason = culprit
        raise DataError(
            f"{file}: expected a whole image file, found one that cannot be read ({reason}); "
            "download or export it again"
        ) from error


class CaseDataset(Dataset):
    """MONAI's `Dataset`, whose errors about a case's files are one line (see `load_case`)."""

    def _transform(self, index: int) -> dict[str, Any]:
        return load_case(dict(self.data[index]), self.transform or (lambda case: case))

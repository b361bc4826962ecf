"""The boxes of the two panels of a frame, as a person writes them to `panels.json`."""

from __future__ import annotations

from pathlib import Path

from pipelines.errors import DataError
from pipelines.files import read_json
from transforms.panels import PanelError, given_panels


def read_panels(path: str | Path) -> dict[str, list[int]]:
    """Read `{"contrast": [top, left, height, width], "bmode": [top, left, height, width]}`, in pixels.

    Returns:
        The same, checked, as `SplitDualPaneld` takes it from a case.

    Raises:
        DataError: the file is missing or no JSON, or its boxes have another form, unlike sizes, or overlap.
    """
    try:
        panels = given_panels(read_json(path))
    except PanelError as error:
        raise DataError(f"{path}: {error}") from error
    return {"contrast": list(panels.contrast), "bmode": list(panels.bmode)}

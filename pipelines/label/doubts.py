"""How unsure each version of a model is of studies: kept by version, and which study that makes the next."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from pipelines.files import read_json, write_json

MOST = 100
MOST_SETTING = "FEATHERSEG_LABEL_DOUBTS"  # another number, in the server's environment


def most() -> int:
    """How many studies each version of a model looks at; 0 where none."""
    return int(os.environ.get(MOST_SETTING, MOST))


class Doubts:
    """What the versions of one bundle's model found.

    Args:
        folder: with a `VERSION.json` of each; it need not be there yet.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def of(self, version: int | None) -> dict[str, dict[str, Any]]:
        """Study -> `doubt` and `candidates`, their number; or `error`, why it could not be looked at."""
        file = self.folder / f"{version}.json"
        return read_json(file) if file.is_file() else {}

    def add(self, version: int | None, study: str, found: dict[str, Any]) -> None:
        """Keep what a version found in a study."""
        write_json(self.folder / f"{version}.json", {**self.of(version), study: found})


def due(unlabelled: Iterable[str], found: Mapping[str, Any], most: int) -> list[str]:
    """The studies to look at yet.

    Args:
        unlabelled: studies without a label.
        found: as `Doubts.of` gives it.
        most: how many of those without a label to look at in all. Which of more is drawn by a hash of their
            names, so that every version looks at the same ones.
    """
    own = set(unlabelled)
    new = sorted(own - found.keys(), key=lambda one: hashlib.sha256(one.encode()).digest())
    return new[: max(0, most - len(own & found.keys()))]


def most_doubtful(
    unlabelled: Collection[str],
    found: Mapping[str, Mapping[str, Any]],
    taken: Collection[str],
    draw: random.Random,
) -> str | None:
    """The study to annotate next: of the highest doubt; among equals one at random.

    Args:
        unlabelled: studies without a label.
        found: as `Doubts.of` gives it.
        taken: studies that somebody else was just given; only where there are no others.
        draw: among equals.

    Returns:
        None where none of them was looked at.
    """
    seen = [one for one in sorted(unlabelled) if "doubt" in found.get(one, {})]
    free = [one for one in seen if one not in taken] or seen
    highest = max((found[one]["doubt"] for one in free), default=None)
    return draw.choice([one for one in free if found[one]["doubt"] == highest]) if free else None

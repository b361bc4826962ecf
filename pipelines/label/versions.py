"""Which model of a bundle is served: every one that ever was is kept, and the one before can be had back.

A folder holds a folder for each version, `N/model.pt` and `N/about.json`, and `served.json`, which names the
versions that were served one after the other and tells what became of every training. It is replaced whole,
after all that it names is there: at any moment there is one model to serve.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipelines.errors import DataError
from pipelines.files import read_json, remove_leftovers, write_json, written_whole

WEIGHTS = "model.pt"
FIRST, PROMOTED, REFUSED, BACK = "first", "promoted", "refused", "rolled back"


class Superseded(Exception):
    """Another model is served by now than the one that a candidate was compared with."""


class Versions:
    """The versions of one bundle's model.

    Args:
        folder: of all of them; it need not be there yet.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Alone among all processes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            remove_leftovers(self.folder)
            yield

    def _state(self) -> dict[str, Any]:
        file = self.folder / "served.json"
        return read_json(file) if file.is_file() else {"line": [], "history": []}

    @property
    def number(self) -> int | None:
        """The version that is served; None before the first."""
        line = self._state()["line"]
        return line[-1] if line else None

    @property
    def weights(self) -> Path:
        """The weights that are served.

        Raises:
            DataError: there are none, or their file is gone.
        """
        file = self.folder / str(self.number) / WEIGHTS
        if not file.is_file():
            raise DataError(
                f"expected the served weights {file}, found none; start `featherseg label` with --checkpoint"
            )
        return file

    @property
    def history(self) -> list[dict[str, Any]]:
        """What happened, oldest first: `event`, `version`, `time` and what was told about it."""
        return self._state()["history"]

    def about(self, number: int) -> dict[str, Any]:
        """What a version was made of."""
        return read_json(self.folder / str(number) / "about.json")

    def publish(self, weights: str | Path, about: dict[str, Any], over: int | None = None) -> int:
        """Copy weights to a new version and serve it.

        Args:
            weights: a `state_dict`, as PyTorch saves it.
            about: what to keep with the version; `reason`, `run` and `figures` go to the history, too.
            over: the version that it was found better than; None for weights that somebody gave.

        Returns:
            the new version's number.

        Raises:
            Superseded: `over` is no longer served.
            DataError: the folder cannot be written to.
        """
        with self._changing():
            if over is not None and over != self.number:
                raise Superseded
            state = self._state()
            there = [int(one.name) for one in self.folder.iterdir() if one.name.isdigit()]
            number = 1 + max([*there, *state["line"]], default=0)
            folder = self.folder / str(number)
            with written_whole(folder / WEIGHTS) as beside:
                shutil.copyfile(weights, beside)
            write_json(folder / "about.json", {"made": _now(), **about})
            event = FIRST if not state["line"] else PROMOTED
            shown = {key: about[key] for key in ("reason", "run", "figures") if key in about}
            self._write(state, [*state["line"], number], event, number, **shown)
        return number

    def refuse(self, about: dict[str, Any]) -> None:
        """Note that a candidate is not served, and why: `reason` in `about`, and what else it tells."""
        with self._changing():
            state = self._state()
            self._write(state, state["line"], REFUSED, self.number, **about)

    def roll_back(self) -> int:
        """Serve the version again that was served before; the later one is kept, but not served.

        Returns:
            its number.

        Raises:
            DataError: there is none.
        """
        with self._changing():
            state = self._state()
            if len(state["line"]) < 2:
                found = f"version {state['line'][0]} only" if state["line"] else "none"
                raise DataError(
                    f"expected a model in {self.folder} that was served before this one, found {found}"
                )
            *line, left = state["line"]
            self._write(state, line, BACK, line[-1], reason=f"version {left} is no longer served")
        return line[-1]

    def _write(
        self, state: dict[str, Any], line: list[int], event: str, version: int | None, **told: Any
    ) -> None:
        happened = {"event": event, "version": version, "time": _now(), **told}
        write_json(self.folder / "served.json", {"line": line, "history": [*state["history"], happened]})


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")

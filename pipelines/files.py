"""Files that are either whole or not there: written beside and renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from pipelines.errors import DataError

PARTIAL = ".partial-"  # then the writer's process and machine, so that others can tell a leftover


@contextlib.contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Give a name beside `path` to write to, and rename it to `path` once the block has ended well.

    The name keeps the suffixes of `path`, since many writers choose the format by them.

    Raises:
        DataError: where the folder cannot be written to or the disk is full; nothing is left behind.
    """
    path = Path(path)
    beside = path.with_name(f"{PARTIAL}{os.getpid()}@{platform.node()}@{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        os.replace(beside, path)
    except OSError as error:
        raise writing_error(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def writing_error(error: OSError, path: Path) -> DataError | OSError:
    """The one-line error for a full disk or a folder without write access; other errors as they are."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DataError(
            f"expected room to write {path}, found the disk full; free some or choose another folder"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
        return DataError(
            f"expected a folder that can be written to, found {path.parent} ({error.strerror}); "
            "change its permissions or choose another folder"
        )
    return error


def remove_leftovers(folder: str | Path) -> None:
    """Remove what killed processes of this machine were writing in `folder` or below.

    What a living process writes stays, and so does what another machine writes to a shared folder.
    """
    for leftover in list(Path(folder).rglob(f"{PARTIAL}*")):
        pid, node, *_ = *leftover.name[len(PARTIAL) :].split("@", 2), ""
        if node == platform.node() and pid.isdigit() and not psutil.pid_exists(int(pid)):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def write_bytes(path: str | Path, *parts: Any) -> None:
    """Write buffers one after the other, whole or not at all.

    Through a file of Python's, since NumPy and PyTorch say of a full disk only that it was not written to.
    """
    with written_whole(path) as beside, beside.open("wb") as file:
        for part in parts:
            file.write(part)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON, whole or not at all."""
    with written_whole(path) as beside:
        beside.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: where it is missing or no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"expected a JSON file at {path}, found none") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"expected JSON in {path}, found: {error}") from error

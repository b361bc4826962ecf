"""A phantom as a folder: what is the same for every dataset.

The folder is made beside its place and renamed when it is whole. A marker names the parameters and every
file, so that the same request again does nothing, another one replaces the phantom, and nothing else is lost.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from pipelines.datasets.checking import Finding, relative
from pipelines.errors import DataError
from pipelines.files import PARTIAL, read_json, write_json, writing_error

MARKER = "PHANTOM.json"


def check_options(cases: int, seed: int, size: int, least: int, largest: int) -> None:
    """Refuse a phantom that cannot be drawn.

    Raises:
        DataError: there is no case, the seed is negative, or the size is not one from `least` to `largest`.
    """
    if cases < 1 or seed < 0 or not least <= size <= largest:
        raise DataError(
            f"expected at least 1 case, a seed of 0 or more and a size of {least} to {largest}, found "
            f"--cases {cases} --seed {seed} --size {size}"
        )


def write_phantom(root: str | Path, parameters: dict, make: Callable[[Path], dict]) -> bool:
    """Make a phantom's folder, unless it is there already.

    Args:
        root: the folder to make; where it exists, it has to be empty or an earlier phantom.
        parameters: what the content depends on, as JSON; the generator's own version among it.
        make: writes the files under the folder that it is given and returns what the marker should say of
            them beyond the parameters.

    Returns:
        True where the phantom was written, False where the same one was there, complete.

    Raises:
        DataError: where `root` holds anything but a phantom, or cannot be written.
    """
    root = Path(root).resolve()
    if root.exists() and not root.is_dir():
        raise DataError(f"expected a folder for the phantom, found a file at {root}; choose another --out")
    if root.is_dir() and any(root.iterdir()):
        marker = _read_marker(root)
        found = _sizes(root)
        if marker["parameters"] == parameters and marker["files"] == found:
            return False
        strangers = sorted(set(found) - set(marker["files"]))
        if strangers:
            raise DataError(
                f"expected nothing but the earlier phantom in {root}, found {strangers[0]} as well"
                f" ({len(strangers)} such files); move them or choose another --out"
            )
    partial = root.parent / f"{PARTIAL}{os.getpid()}-{root.name}"
    try:
        partial.mkdir(parents=True)
        about = make(partial)
        marker = {"parameters": parameters, **about, "files": _sizes(partial)}
        write_json(partial / MARKER, marker)
        if root.exists():
            shutil.rmtree(root)
        partial.rename(root)
    except OSError as error:
        raise writing_error(error, root) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def strangers(root: Path, files: Iterable[Path]) -> list[Finding]:
    """Data that was put beside a phantom's, to be told before a network is trained on both.

    Args:
        root: a dataset's folder, a phantom's or not.
        files: the data found in it.

    Returns:
        An error, or nothing where all is of one kind.
    """
    try:
        listed = read_json(root / MARKER)["files"].keys()
    except (DataError, KeyError, TypeError, AttributeError):
        return []
    others = sorted({relative(file, root) for file in files} - listed)
    if not others or not any((root / name).exists() for name in listed):
        return []
    message = (
        f"expected data in a folder of its own, found {len(others)} files beside those of a phantom"
        f" ({MARKER}), such as {others[0]}"
    )
    return [Finding("error", "phantom", "", others[0], message)]


def _read_marker(root: Path) -> dict:
    try:
        marker = read_json(root / MARKER)
        marker["parameters"], marker["files"].items()
    except (DataError, KeyError, TypeError, AttributeError):
        raise DataError(
            f"expected an empty folder or an earlier phantom (with its {MARKER}), found other files in"
            f" {root}; choose another --out"
        ) from None
    return marker


def _sizes(root: Path) -> dict[str, int]:
    """Every file below `root` but the marker, with its size in bytes."""
    files = sorted(p for p in root.rglob("*") if not p.is_dir() and p != root / MARKER)
    return {p.relative_to(root).as_posix(): p.lstat().st_size for p in files}

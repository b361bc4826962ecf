"""The layout of the Medical Segmentation Decathlon (Antonelli et al., 2022), the same for all of its tasks.

`TaskNN_Name/` holds `dataset.json`, `imagesTr/PREFIX_N.nii.gz` with `labelsTr` of the same names, and
`imagesTs` without labels. The archives come from a Mac, so that `._PREFIX_N.nii.gz` files lie among them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from pipelines.datasets.checking import Finding, relative
from pipelines.errors import DataError

LISTING = "dataset.json"


def find(root: Path, task: str) -> Path | None:
    """The folder of a task, such as "Task03_Liver": `root` itself or the one of this name in it."""
    return next((folder for folder in (root, root / task) if (folder / "imagesTr").is_dir()), None)


def files(root: Path, folder: Path, prefix: str) -> tuple[list[tuple[str, str, Path]], list[Finding]]:
    """Every file of a task, from its dataset.json where it has one.

    Args:
        root: the folder that the user gave, to name files by.
        folder: of the task.
        prefix: of its files, such as "liver".

    Returns:
        Case (the file's name without endings), part ("image", "label" or "test") and path of each, and an
        error for each listed file that is not there.

    Raises:
        DataError: the listing is broken, or lists a name of another form.
    """
    named = re.compile(rf"({re.escape(prefix)}_\d+)\.nii(\.gz)?")
    listing = folder / LISTING
    if listing.is_file():
        listed = _read(listing)
    else:
        parts = {"imagesTr": "image", "labelsTr": "label", "imagesTs": "test"}
        listed = [
            (part, path) for name, part in parts.items() for path in sorted((folder / name).glob("*.nii*"))
        ]
    found, findings = [], []
    for part, path in listed:
        match = named.fullmatch(path.name)
        if not match:
            if listing.is_file():
                raise DataError(f"expected names such as {prefix}_12.nii.gz in {listing}, found {path.name}")
            continue  # such as the ._liver_12.nii.gz that macOS leaves in an archive
        if path.is_file():
            found.append((match[1], part, path))
        else:
            file = relative(path, root)
            message = f"expected {file}, which {listing.name} lists, found no such file"
            findings.append(Finding("error", "missing", match[1], file, message))
    return found, findings


def modalities(folder: Path) -> tuple[str, ...]:
    """What a task's dataset.json says of the channels, in their order, or nothing where it does not.

    Raises:
        DataError: the listing is broken.
    """
    listing = folder / LISTING
    try:
        named = json.loads(listing.read_text("utf-8"))["modality"]
        return tuple(str(named[key]) for key in sorted(named, key=int))
    except (FileNotFoundError, KeyError):
        return ()
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _broken(listing, '"modality" with a name for each channel', error) from None


def _read(listing: Path) -> list[tuple[str, Path]]:
    """Part and path of every file in a dataset.json; a test case is a string or, like the others, a dict."""
    try:
        content = json.loads(listing.read_text("utf-8"))
        named = [(part, entry[part]) for entry in content["training"] for part in ("image", "label")]
        tests = content.get("test", [])
        named += [("test", entry["image"] if isinstance(entry, dict) else entry) for entry in tests]
        return [(part, listing.parent / path) for part, path in named]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(listing, '"training" with images and labels', error) from None


def _broken(listing: Path, expected: str, error: Exception) -> DataError:
    return DataError(
        f"expected {expected} in {listing}, found {type(error).__name__}: {error};"
        " unpack the archive again, or remove this file to pair imagesTr with labelsTr by name"
    )

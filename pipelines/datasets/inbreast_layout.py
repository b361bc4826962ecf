"""The layout of INbreast on disk: which file is whose mammogram or contours, and what its table says.

As unzipped, `INbreast Release 1.0` holds `AllDICOMs/20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm`, named by the
image's id, a hash of the patient, the side and the view, `AllXML/20586908.xml` for most of them, and
`INbreast.csv` (Moreira et al., Academic Radiology, 2012). Files are joined by the id, since sorted lists of
410 images and 343 contours do not lie side by side.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pipelines.datasets import phantoms
from pipelines.datasets.checking import Finding, natural, relative
from pipelines.errors import DataError

RELEASE = "INbreast Release 1.0"
IMAGES, CONTOURS, TABLE = "AllDICOMs", "AllXML", "INbreast.csv"
COLUMNS = ("File Name", "Laterality", "View", "ACR", "Bi-Rads")
VIEWS = {"CC": "CC", "ML": "MLO", "MLO": "MLO"}  # file names say ML where the table says MLO

_NAME = re.compile(r"(\d+)_([0-9a-z]+)_MG_([LR])_([A-Z]+)_ANON", re.IGNORECASE)


class Case(NamedTuple):
    """One image with its contours; without an image, patient, side and view are "" as well."""

    name: str
    patient: str
    side: str  # "L" or "R"
    view: str  # "CC" or "MLO", or what else the name says
    image: Path | None
    contours: Path | None


class Row(NamedTuple):
    """What the table says of an image, without blanks around it."""

    side: str
    view: str
    density: str  # of the ACR, "1" to "4"
    birads: str  # "1" to "6", "4a" to "4c"


def discover(root: Path) -> tuple[list[Case], list[Finding]]:
    """Find the cases of a dataset.

    Returns:
        Every case with its files, sorted by id, and what is missing, there twice, called by no known name,
        or beside a phantom. An image without contours is a normal one.

    Raises:
        DataError: where there is no folder of mammograms, or none in it.
    """
    folder = release(root)
    findings: list[Finding] = []
    cases: dict[str, Case] = {}
    files = []
    for path in _files(folder / IMAGES, ".dcm"):
        files.append(path)
        match = _NAME.fullmatch(path.stem)
        if not match:
            message = (
                "expected a name such as 20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm, which tells the image's"
                f" id, patient, side and view, found {path.name}"
            )
            findings.append(Finding("error", "name", path.stem, relative(path, root), message))
            continue
        name, side, view = match[1], match[3].upper(), match[4].upper()
        if name in cases:
            findings.append(_twice(name, cases[name].image, path, root))
            continue
        cases[name] = Case(name, match[2].lower(), side, VIEWS.get(view, view), path, None)
    if not files:
        raise _no_data(root, f"no .dcm file in {relative(folder / IMAGES, root)}")
    if not (folder / CONTOURS).is_dir():
        message = f"expected the contours in {CONTOURS} beside {IMAGES}, found no such folder"
        findings.append(Finding("error", "missing", "", relative(folder / CONTOURS, root), message))
    for path in _files(folder / CONTOURS, ".xml"):
        files.append(path)
        case = cases.get(path.stem, Case(path.stem, "", "", "", None, None))
        if case.contours:
            findings.append(_twice(path.stem, case.contours, path, root))
            continue
        cases[path.stem] = case._replace(contours=path)
        if not case.image:
            message = f"expected a mammogram {path.stem}_..._ANON.dcm in {IMAGES} for it, found none"
            findings.append(Finding("error", "missing", path.stem, relative(path, root), message))
    found = sorted(cases.values(), key=lambda case: natural(case.name))
    return found, findings + phantoms.strangers(root, files)


def release(root: Path) -> Path:
    """The folder with `AllDICOMs`: `root` itself or the release's in it.

    Raises:
        DataError: where neither has it.
    """
    for folder in (root, root / RELEASE):
        if os.path.isdir(folder / IMAGES):
            return folder
    raise _no_data(root, "no such folder" if not root.is_dir() else f"no folder {IMAGES}")


def table_file(root: Path) -> Path | None:
    """The dataset's table, in the release's folder or beside it."""
    folder = release(root)
    return next((one / TABLE for one in (folder, folder.parent, root) if (one / TABLE).is_file()), None)


def read_table(path: Path) -> dict[str, Row]:
    """What the table says of each image, by the image's id.

    Raises:
        DataError: where the file cannot be read, a column is missing, or an image is there twice.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: expected a table, found one that cannot be read ({error.strerror})"
        ) from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=";")
    reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
    lacking = [name for name in COLUMNS if name not in reader.fieldnames]
    if lacking:
        raise DataError(
            f"{path}: expected the columns {', '.join(COLUMNS)} separated by semicolons, found no"
            f" {', '.join(lacking)}; take the table from the release as it is"
        )
    rows: dict[str, Row] = {}
    for line in reader:
        name, side, view, density, birads = ((line[column] or "").strip() for column in COLUMNS)
        if not name:
            continue  # the lines of semicolons that a spreadsheet leaves below its last row
        if name in rows:
            raise DataError(f"{path}: expected image {name} once, found it twice; remove one of the rows")
        view = view.upper()
        rows[name] = Row(side.upper(), VIEWS.get(view, view), density, birads.lower())
    return rows


def _files(folder: Path, ending: str) -> Iterable[Path]:
    """The files of a folder, without such as the ._a.dcm that macOS leaves in an archive."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() == ending and p.name[0] != ".")


def _twice(name: str, first: Path, second: Path, root: Path) -> Finding:
    message = f"expected {name} once, found {relative(first, root)} and {relative(second, root)}"
    return Finding("error", "twice", name, relative(first, root), message)


def _no_data(root: Path, found: str) -> DataError:
    return DataError(
        f"expected the folders {IMAGES} and {CONTOURS} of {RELEASE} in {root}, found {found}; the data comes"
        " from the authors of INbreast, and a phantom is made with: featherseg phantom inbreast --out"
        " data/inbreast"
    )

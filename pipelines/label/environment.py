"""The environment that MONAI Label runs in, apart from the project's own: how it is made, and where it is.

MONAI Label 0.8.5 names versions that other packages of the project cannot live with, and several GB that
nothing here uses; so it is installed without what it names, beside what it needs (see `label` in setup.cfg).
"""

from __future__ import annotations

import configparser
import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipelines.errors import DataError
from pipelines.label import shims

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".venv-label"
CONSTRAINTS = "constraints-label.txt"
# MONAI Label's client imports cgi, which Python 3.13 no longer has.
PYTHONS = ((3, 11), (3, 12))
SHIMS = "featherseg_label_shims"


def python(folder: Path = FOLDER) -> Path:
    """The environment's interpreter."""
    return folder / "bin" / "python"


def requirements(root: Path = ROOT) -> list[str]:
    """What FeatherSeg needs, with its extra `label`; of ITK only the parts that read files, 1 GB less."""
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg", encoding="utf-8")
    named = setup["options"]["install_requires"], setup["options.extras_require"]["label"]
    lines = [line for text in named for line in text.split()]
    return [line.replace("itk>", "itk-io>") if line.startswith("itk>") else line for line in lines]


def steps(root: Path = ROOT) -> list[tuple[str, list[str]]]:
    """What is installed, in this order: a title, and pip's arguments; the constraints say which versions."""
    return [
        ("PyTorch", ["torch"]),
        ("what FeatherSeg and MONAI Label need", requirements(root)),
        ("FeatherSeg", ["--no-deps", "-e", str(root)]),
        # It would replace torch, and pydicom-seg NumPy; both run with what is there.
        ("MONAI Label", ["--no-deps", "monailabel", "pydicom-seg"]),
    ]


def recipe(root: Path = ROOT) -> str:
    """A short name for all that the environment is made of: another recipe, another environment.

    Raises:
        DataError: the project is not a working copy, of which the environment takes what it installs.
    """
    files = [root / name for name in (CONSTRAINTS, "constraints.txt", "setup.cfg")]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise DataError(
            f"expected a working copy of FeatherSeg in {root}, found no {absent[0]}; run featherseg from one"
        )
    content = [file.read_bytes() for file in (*files[:2], Path(shims.__file__))]
    content.append(repr([requirements(root), [title for title, _ in steps(root)]]).encode())
    return hashlib.sha256(b"\0".join(content)).hexdigest()[:12]


def is_ready(folder: Path = FOLDER, root: Path = ROOT) -> bool:
    """Whether the environment is there, whole, and made by the recipe of this version."""
    stamp = folder / "recipe"
    return stamp.is_file() and stamp.read_text() == recipe(root) and python(folder).is_file()


def ensure(folder: Path = FOLDER, root: Path = ROOT) -> Path:
    """Make the environment where it is not there yet, and say how long it took and how large it is.

    An installation that was broken off goes on where it was. Two at a time wait for each other.

    Returns:
        its interpreter.

    Raises:
        DataError: a version of Python that MONAI Label does not run with, or pip failed.
    """
    recipe(root)  # before anything is made
    if is_ready(folder, root):
        return python(folder)
    if sys.version_info[:2] not in PYTHONS:
        wanted = " or ".join(".".join(map(str, one)) for one in PYTHONS)
        raise DataError(
            f"expected Python {wanted} for MONAI Label, found {sys.version.split()[0]}; make .venv "
            "with one of these"
        )
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not is_ready(folder, root):
            _make(folder, root)
    return python(folder)


def _make(folder: Path, root: Path) -> None:
    started = time.perf_counter()
    (folder / "recipe").unlink(missing_ok=True)
    if not python(folder).is_file():
        _run("its Python", [sys.executable, "-m", "venv", "--clear", str(folder)], folder)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # The bar moves in a terminal only; each step is a line anywhere.
    with Progress(*columns, console=Console(stderr=True)) as progress:
        planned = steps(root)
        bar = progress.add_task("the label environment", total=len(planned))
        for title, arguments in planned:
            since = time.perf_counter()
            progress.update(bar, description=title)
            pip = [str(python(folder)), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
            _run(title, [*pip, "-c", str(root / CONSTRAINTS), *arguments], folder)
            progress.advance(bar)
            progress.console.print(f"{title}: {time.perf_counter() - since:.0f} s", highlight=False)
    add_shims(folder)
    _run("MONAI Label's start", [str(python(folder)), "-c", "import monailabel.main, monailabel.app"], folder)
    (folder / "recipe").write_text(recipe(root))
    print(
        f"label environment: {folder}, {time.perf_counter() - started:.0f} s, "
        f"{size(folder) / 1e9:.1f} GB; remove the folder to be rid of it"
    )


def add_shims(folder: Path) -> None:
    """Let every interpreter of the environment load `shims` as it starts."""
    for site in folder.glob("lib/python*/site-packages"):
        shutil.copyfile(shims.__file__, site / f"{SHIMS}.py")
        (site / f"{SHIMS}.pth").write_text(f"import {SHIMS}; {SHIMS}.install()\n")


def size(folder: Path) -> int:
    """Bytes of all files in a folder; links count nothing."""
    return sum(file.stat().st_size for file in folder.rglob("*") if not file.is_symlink() and file.is_file())


def _run(title: str, command: list[str], folder: Path) -> None:
    """Run a command whose output goes to `install.log` in the environment."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "install.log"
    with log.open("a", encoding="utf-8") as output:
        output.write(f"\n$ {' '.join(command)}\n")
        output.flush()
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        lines = [line.strip() for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
        told = [line for line in lines if line.startswith("ERROR")] or lines
        raise DataError(
            f"expected {title} to be installed into {folder}, found: {told[-1]}; the output is in {log}"
        )


if __name__ == "__main__":
    try:
        interpreter = ensure()
    except DataError as error:
        sys.exit(f"featherseg: {error}")
    print(f"the label environment is ready: {interpreter}")

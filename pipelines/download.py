"""Datasets that anybody may download, through MONAI; for the others, where to get them."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import shutil
import socket
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipelines import datasets
from pipelines.errors import DataError
from pipelines.files import PARTIAL, remove_leftovers, writing_error

# Tasks of the Medical Segmentation Decathlon (Antonelli et al., 2022), CC BY-SA 4.0.
TASKS = {"brain_tumour": "Task01_BrainTumour", "lits": "Task03_Liver"}

ELSEWHERE = {
    "ceus": "no such data is public",
    "dce_us": "BUSI comes from scholar.cu.edu.eg/?q=afahmy/pages/dataset, and the paper's images are private",
    "inbreast": "the data comes from the authors of INbreast, who are asked for it",
}
PATIENCE = 60  # seconds without a byte, after which a connection is given up


def download(name: str, out: str | Path, progress: bool = True) -> Path:
    """Fetch a dataset, compare its checksum and unpack it.

    Nothing is where the data belongs before it is whole: MONAI moves the archive there once its checksum is
    right, and it is unpacked beside and renamed. An archive that lies there already is used, and stays.

    Args:
        name: of the dataset.
        out: the folder that gets the dataset's own, such as `Task01_BrainTumour`.
        progress: show a bar on standard error.

    Returns:
        The dataset's folder; where it is there already, nothing is done.

    Raises:
        DataError: an unknown dataset, or one that not everybody may download; no network, another checksum,
            a full disk, a folder that cannot be written to.
    """
    datasets.get(name)
    if name not in TASKS:
        raise DataError(
            f"expected a dataset that anybody may download ({', '.join(sorted(TASKS))}), found {name}:"
            f" {ELSEWHERE[name]}; a phantom is made with: featherseg phantom {name} --out data/{name}"
        )
    # Here, since the lines above need nothing of it.
    from monai.apps import DecathlonDataset

    task, out = TASKS[name], Path(out)
    folder, archive = out / task, out / f"{task}.tar"
    if folder.exists():
        return folder
    beside = out / f"{PARTIAL}{os.getpid()}@{platform.node()}@{task}"
    given = archive.exists()
    try:
        beside.mkdir(parents=True)
        remove_leftovers(out)
        _fetch(DecathlonDataset.resource[task], archive, DecathlonDataset.md5[task], beside, progress)
        _unpack(archive, beside)
        if not (beside / task).is_dir():
            raise DataError(f"expected the folder {task} in {archive}, found none; remove it and start again")
        (beside / task).rename(folder)
    except OSError as error:
        raise writing_error(error, archive) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    if not given:
        archive.unlink()
    return folder


def _fetch(url: str, archive: Path, md5: str, beside: Path, progress: bool) -> None:
    """Bring the archive to its place; what arrives lies in `beside` until its checksum is right."""
    from monai.apps import download_url
    from monai.apps.utils import HashCheckError

    try:
        with _monai_in(beside):
            download_url(url, archive, md5, "md5", progress)
    except HashCheckError:
        remedy = f"remove {archive} and start again" if archive.exists() else "start again"
        raise DataError(
            f"expected {archive.name} with the MD5 sum {md5}, found another one, as of a file that was cut"
            f" short or changed; {remedy}"
        ) from None
    except OSError as error:
        if isinstance(told := writing_error(error, archive), DataError):
            raise told from error
        raise DataError(
            f"expected to download {url}, found no way to it ({error}); check the network, or fetch it with"
            f" another computer, put it at {archive} and start again"
        ) from error
    if not archive.exists():  # MONAI passes over a folder that may not be written to
        raise writing_error(PermissionError(13, "permission denied"), archive)


def _unpack(archive: Path, beside: Path) -> None:
    from monai.apps import extractall

    try:
        with _monai_in(beside):
            extractall(archive, beside, file_type="tar")
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise DataError(
            f"expected a whole archive at {archive}, found one that cannot be unpacked ({error}); remove it"
            " and start again"
        ) from error


@contextlib.contextmanager
def _monai_in(folder: Path) -> Iterator[None]:
    """Let MONAI keep what is not whole in `folder`, as /tmp may be small; say nothing, and not wait long."""
    logger = logging.getLogger("monai.apps")
    before = tempfile.tempdir, socket.getdefaulttimeout(), logger.level
    tempfile.tempdir = str(folder)
    socket.setdefaulttimeout(PATIENCE)
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        tempfile.tempdir = before[0]
        socket.setdefaulttimeout(before[1])
        logger.setLevel(before[2])

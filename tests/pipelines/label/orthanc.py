"""Orthanc, a PACS, on this machine's loopback, with nothing of what it holds outside of a test's folder."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import requests

PROGRAM = shutil.which("Orthanc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
needs_orthanc = pytest.mark.skipif(
    PROGRAM is None or not PLUGIN.is_file(), reason="no Orthanc (apt-get install orthanc orthanc-dicomweb)"
)


@contextlib.contextmanager
def serving(folder: Path, port: int = 0, **options):
    """Run Orthanc; gives the address of its DICOMweb services.

    Args:
        folder: for what it stores and logs; what an earlier one stored there is there again.
        port: by default one that is free.
        options: further ones of its configuration.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        port = probe.getsockname()[1]
    configuration = {
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "Plugins": [str(PLUGIN)],
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **options,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "orthanc.log").open("w") as log:
        process = subprocess.Popen([PROGRAM, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}/system", process, folder / "orthanc.log")
        yield f"http://127.0.0.1:{port}/dicom-web"
    finally:
        process.terminate()
        process.wait(20)


def _wait(url: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(200):
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(url, timeout=5).status_code in (200, 401):
                return
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def upload(url: str, *files: Path) -> None:
    """Put files into it, by its own interface, not by DICOMweb."""
    for file in files:
        answer = requests.post(url.replace("dicom-web", "instances"), data=file.read_bytes(), timeout=20)
        assert answer.json()["Status"] == "Success", answer.text


def files(url: str, folder: Path, **query: str) -> list[Path]:
    """The files of all instances that have these values, by its own interface."""
    base = url.replace("dicom-web", "")
    wanted = {"Level": "Instance", "Query": query}
    found = []
    for one in requests.post(f"{base}tools/find", json=wanted, timeout=20).json():
        found.append(folder / f"{one}.dcm")
        found[-1].write_bytes(requests.get(f"{base}instances/{one}/file", timeout=20).content)
    return found

"""From bundles and a folder of studies to a server that viewers connect to."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines import package
from pipelines.errors import DataError
from pipelines.files import read_json, written_whole
from pipelines.label import environment, labels
from pipelines.label.doubts import MOST, MOST_SETTING
from pipelines.label.project import Project, default_folder, is_remote, place_of

HOSTS = "FEATHERSEG_LABEL_HOSTS"  # names that the server goes by, separated by commas, in its environment
MAIN = '''"""What MONAI Label starts; written by `featherseg label`."""

from pipelines.label.app import LabelApp  # noqa: F401
'''
SETTINGS = {
    # One image after the other; on a processor a large one takes minutes.
    "MONAI_LABEL_INFER_CONCURRENCY": "1",
    "MONAI_LABEL_INFER_TIMEOUT": "7200",
    "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",
    # The bundles track their trainings themselves.
    "MONAI_LABEL_TRACKING_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
EXPOSED = (
    "exposed on {host}: whoever reaches port {port} of this machine sees the studies, submits labels and "
    "starts trainings, without a password and unencrypted; use it in a closed network only, or behind a "
    "proxy that asks who somebody is"
)


def prepare(
    bundles: Sequence[str], studies: str | Path, folder: str | Path | None, checkpoints: dict[str, str]
) -> Project:
    """Begin a project, or go on with it: package its bundles, and serve weights where none are served yet.

    Args:
        bundles: names of bundles in bundles/.
        studies: a folder, or the address of a DICOMweb server.
        folder: of the project; by default `runs/label/` and the name of the studies' folder.
        checkpoints: bundle -> weights to serve from now on, as `featherseg package` takes them.

    Raises:
        DataError: no such folder, server or bundle, no weights, or weights that need other images than those
            served.
    """
    if is_remote(studies):
        check_pacs(str(studies))
    elif not Path(studies).is_dir():
        raise DataError(f"expected a folder with studies, found {studies}; see --studies")
    unknown = sorted(set(checkpoints) - set(bundles))
    if unknown or not bundles or len(set(bundles)) < len(bundles):
        raise DataError(
            f"expected each bundle once, and --checkpoint of bundles in --bundles, found {','.join(bundles)}"
            f"{f' and a checkpoint of {unknown[0]}' if unknown else ''}"
        )
    project = Project(folder or default_folder(studies))
    project.begin(studies, {})
    for bundle in bundles:
        _serve_weights(project, bundle, checkpoints.get(bundle))
    project.begin(studies, {bundle: {"experiment": bundle} for bundle in bundles})
    with written_whole(project.folder / "main.py") as beside:
        beside.write_text(MAIN, encoding="utf-8")
    return project


def _serve_weights(project: Project, bundle: str, checkpoint: str | None) -> None:
    versions, target = project.versions(bundle), project.package(bundle)
    if versions.number is not None and checkpoint is None:
        return
    out = target.parent if versions.number is None else target.parent / "given"
    made = package.package(bundle, checkpoint, out=out)
    if versions.number is not None:
        own, other = (read_json(one / "configs" / "inference.json") for one in (target, made.folder))
        differing = sorted(key for key in own.keys() | other.keys() if own.get(key) != other.get(key))
        if differing:
            raise DataError(
                f"expected weights for the network and the images of the project in {project.folder}, found "
                f"others in {checkpoint} ({differing[0]} differs); give them an --app-dir of their own"
            )
    number = versions.publish(
        made.folder / "models" / "model.pt", {"origin": "given", "reason": f"given: {made.weights}"}
    )
    print(f"{bundle}: version {number}, {made.weights}")


def check_pacs(url: str) -> None:
    """Refuse the address of a server that does not answer.

    Raises:
        DataError: it does not, or not as DICOMweb; it has a password in it; or what asks it is not installed.
    """
    if "@" in url:
        raise DataError(
            "expected the address of a PACS without a user and a password, found them in it; give these by "
            "the environment, MONAI_LABEL_DATASTORE_USERNAME and MONAI_LABEL_DATASTORE_PASSWORD"
        )
    try:
        from pipelines.label.dicomweb import connect
    except ImportError as error:
        raise DataError(
            "expected dicomweb-client for the studies of a PACS, found none; pip install featherseg[dicom]"
        ) from error
    connect(url).images(["CT"])


def patterns(project: Project, bundles: Sequence[str]) -> list[str]:
    """The names that studies may have: volumes, pictures, or both, as the bundles take them."""
    kinds = [_of_volumes(project.package(bundle)) for bundle in bundles]
    endings = [*(labels.VOLUMES if any(kinds) else ()), *(labels.PICTURES if not all(kinds) else ())]
    return [f"*{ending}" for ending in endings]


def _of_volumes(package_folder: Path) -> bool:
    inferer = read_json(package_folder / "configs" / "inference.json")["inferer"]
    return inferer["_target_"] == "SliceInferer"


def check_address(host: str, port: int, expose: bool) -> None:
    """Refuse an address that others reach, unless that is meant, and one that is taken.

    Raises:
        DataError: names the option that is missing or to change.
    """
    if not (host == "localhost" or _is_loopback(host)):
        if not expose:
            raise DataError(
                f"expected an address of this machine alone, such as 127.0.0.1, found --host {host}; add "
                "--expose if everybody in the network is to reach the studies without a password"
            )
        print(EXPOSED.format(host=host, port=port))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise DataError(
                f"expected a free port of this machine, found {host}:{port} ({error.strerror}); give "
                "another --port"
            ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def command(
    python: Path,
    project: Project,
    bundles: Sequence[str],
    studies: str | Path,
    host: str,
    port: int,
    doubts: int = MOST,
) -> tuple[list[str], dict[str, str]]:
    """The server's command line, and the settings that it gets by its environment."""
    arguments = [str(python), "-m", "monailabel.main", "start_server", "--app", str(project.folder)]
    arguments += ["--studies", place_of(studies), "--host", host, "--port", str(port)]
    arguments += ["--uvicorn_app", "pipelines.label.web:app", "--conf", "bundles", ",".join(bundles)]
    own = not (host == "localhost" or _is_loopback(host))
    shown = f"[{host}]" if ":" in host else host
    settings = {
        **SETTINGS,
        "MONAI_LABEL_DATASTORE_FILE_EXT": json.dumps(patterns(project, bundles)),
        "MONAI_LABEL_SESSION_PATH": str(project.folder / "sessions"),
        MOST_SETTING: str(doubts),
        HOSTS: "*" if own else f"127.0.0.1,localhost,{shown}",
    }
    return arguments, settings


def serve(
    bundles: Sequence[str],
    studies: str | Path,
    folder: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    expose: bool = False,
    checkpoints: dict[str, str] | None = None,
    doubts: int = MOST,
) -> int:
    """Serve until the server is stopped.

    Args:
        bundles, studies, folder, checkpoints: as for `prepare`.
        host, port, expose: as for `check_address`.
        doubts: how many studies without a label each version of a model looks at in the background.

    Returns:
        its exit code.

    Raises:
        DataError: as `prepare` and `check_address`, or MONAI Label cannot be installed.
    """
    check_address(host, port, expose)
    project = prepare(bundles, studies, folder, checkpoints or {})
    python = environment.ensure()
    arguments, settings = command(python, project, bundles, studies, host, port, doubts)
    print(
        f"project: {project.folder}\nstudies: {place_of(studies)}\n"
        f"in 3D Slicer, module MONAI Label, give the server http://{host}:{port}; stop it here by Ctrl-C",
        flush=True,
    )
    environ: dict[str, Any] = {**os.environ, **settings}
    if sys.platform == "win32":
        return subprocess.run(arguments, env=environ, check=False).returncode
    os.execve(arguments[0], arguments, environ)
    raise AssertionError  # another program runs by now


def roll_back(bundle: str, folder: str | Path | None, studies: str | Path | None) -> str:
    """Serve the version before; a running server does so from its next image on.

    Returns:
        what is served now, in words.

    Raises:
        DataError: no project, or no version before.
    """
    if folder is None and studies is None:
        raise DataError(
            "expected the project whose model is rolled back, found none; give --studies or --app-dir"
        )
    project = Project(folder or default_folder(studies))
    if bundle not in project.bundles:
        raise DataError(f"expected one of the bundles {', '.join(project.bundles)}, found {bundle!r}")
    number = project.versions(bundle).roll_back()
    about = project.versions(bundle).about(number)
    return f"{bundle}: version {number} is served ({about.get('reason')})"

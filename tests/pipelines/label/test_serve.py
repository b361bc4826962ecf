import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from pipelines import cli
from pipelines.errors import DataError
from pipelines.label import environment, serve
from pipelines.label.doubts import MOST_SETTING
from pipelines.label.project import Project


@dataclass
class Made:
    folder: Path
    weights: str


@pytest.fixture
def packaging(monkeypatch):
    """In place of packaging, which has its own tests, folders with what is looked at; keeps what is asked."""
    asked = []

    def package(bundle, checkpoint=None, out="dist"):
        asked.append((bundle, checkpoint))
        folder = Path(out) / bundle
        (folder / "configs").mkdir(parents=True, exist_ok=True)
        (folder / "models").mkdir(exist_ok=True)
        kind = "SliceInferer" if bundle == "lits" else "SimpleInferer"
        size = 64 if checkpoint == "larger.pt" else 32
        config = {"inferer": {"_target_": kind}, "image_size": [size, size]}
        (folder / "configs" / "inference.json").write_text(json.dumps(config))
        torch.save({"weight": torch.full((1,), float(len(asked)))}, folder / "models" / "model.pt")
        return Made(folder, checkpoint or "the newest run")

    monkeypatch.setattr(serve.package, "package", package)
    return asked


@pytest.fixture
def studies(tmp_path):
    (tmp_path / "studies").mkdir()
    return tmp_path / "studies"


def test_a_project_begins_with_the_weights_of_its_bundles(studies, tmp_path, packaging):
    project = serve.prepare(["lits", "dce_us"], studies, tmp_path / "app", {"lits": "mine.pt"})
    assert packaging == [("lits", "mine.pt"), ("dce_us", None)]
    assert project.bundles == ["lits", "dce_us"]
    assert [project.versions(bundle).number for bundle in project.bundles] == [1, 1]
    assert "import LabelApp" in (project.folder / "main.py").read_text()


def test_started_again_what_is_served_stays(studies, tmp_path, packaging):
    for _ in range(2):
        project = serve.prepare(["lits"], studies, tmp_path / "app", {})
    assert len(packaging) == 1 and project.versions("lits").number == 1


def test_weights_that_are_given_are_served_and_those_before_can_be_had_back(studies, tmp_path, packaging):
    project = serve.prepare(["lits"], studies, tmp_path / "app", {})
    serve.prepare(["lits"], studies, tmp_path / "app", {"lits": "better.pt"})
    assert project.versions("lits").number == 2
    assert torch.load(project.versions("lits").weights)["weight"] == 2
    told = serve.roll_back("lits", tmp_path / "app", None)
    assert told == "lits: version 1 is served (given: the newest run)"


def test_weights_for_other_images_are_refused(studies, tmp_path, packaging):
    serve.prepare(["lits"], studies, tmp_path / "app", {})
    with pytest.raises(DataError, match=r"found others in larger\.pt \(image_size differs\).*--app-dir"):
        serve.prepare(["lits"], studies, tmp_path / "app", {"lits": "larger.pt"})
    assert Project(tmp_path / "app").versions("lits").number == 1


def test_what_is_missing_or_said_twice_is_refused(studies, tmp_path, packaging):
    with pytest.raises(DataError, match="expected a folder with studies, found"):
        serve.prepare(["lits"], tmp_path / "none", tmp_path / "app", {})
    for bundles, given in ((["lits", "lits"], {}), (["lits"], {"dce_us": "a.pt"}), ([], {})):
        with pytest.raises(DataError, match="expected each bundle once"):
            serve.prepare(bundles, studies, tmp_path / "app", given)


@pytest.mark.parametrize(
    "url, message",
    [
        ("http://127.0.0.1:9/dicom-web", "expected a DICOMweb server at http://127.0.0.1:9/dicom-web, found"),
        ("http://reader:secret@127.0.0.1:9/dicom-web", "without a user and a password, found them in it"),
    ],
)
def test_a_pacs_that_does_not_answer_or_whose_password_would_be_seen_is_refused(
    tmp_path, packaging, url, message
):
    with pytest.raises(DataError, match=message) as error:
        serve.prepare(["lits"], url, tmp_path / "app", {})
    assert "secret" not in str(error.value)
    assert not (tmp_path / "app").exists()


@pytest.mark.parametrize(
    "bundles, volumes, pictures", [(["lits"], 1, 0), (["dce_us"], 0, 1), (["lits", "dce_us"], 1, 1)]
)
def test_studies_are_what_the_bundles_take(studies, tmp_path, packaging, bundles, volumes, pictures):
    found = serve.patterns(serve.prepare(bundles, studies, tmp_path / "app", {}), bundles)
    assert ("*.nii.gz" in found, "*.nrrd" in found) == (volumes, volumes)
    # MONAI Label's own list lacks DICOM.
    assert ("*.png" in found, "*.dcm" in found) == (pictures, pictures)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "localhost", "::1"])
def test_addresses_of_this_machine_alone_need_no_leave(host):
    serve.check_address(host, 0, expose=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "hospital.example"])
def test_any_other_address_needs_a_flag(host):
    with pytest.raises(DataError, match=f"this machine alone.*found --host {host}; add --expose"):
        serve.check_address(host, 0, expose=False)


def test_exposed_it_says_what_that_means(capsys):
    serve.check_address("0.0.0.0", 0, expose=True)
    said = capsys.readouterr().out
    assert "exposed on 0.0.0.0" in said and "without a password and unencrypted" in said


def test_a_port_that_is_taken_is_refused():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DataError, match=f"expected a free port.*found 127.0.0.1:{port}.*--port"):
            serve.check_address("127.0.0.1", port, expose=False)


def test_the_server_knows_by_which_names_it_may_be_called(studies, tmp_path, packaging):
    project = serve.prepare(["lits"], studies, tmp_path / "app", {})
    words, settings = serve.command(Path("python"), project, ["lits"], studies, "127.0.0.1", 8000)
    assert settings[serve.HOSTS] == "127.0.0.1,localhost,127.0.0.1"
    assert words[words.index("--host") + 1] == "127.0.0.1" and words[words.index("--studies") + 1] == str(
        studies
    )
    _, settings = serve.command(Path("python"), project, ["lits"], studies, "0.0.0.0", 8000)
    assert settings[serve.HOSTS] == "*"
    assert all(isinstance(value, str) for value in settings.values())


def test_the_command_line_starts_the_server_in_its_own_environment(studies, tmp_path, packaging, monkeypatch):
    started = []
    monkeypatch.setattr(environment, "ensure", lambda: Path("/label/bin/python"))
    monkeypatch.setattr(
        os, "execve", lambda *given: started.append(given) or (_ for _ in ()).throw(SystemExit)
    )
    words = [
        "label",
        "--bundles",
        "lits,dce_us",
        "--studies",
        str(studies),
        "--app-dir",
        str(tmp_path / "app"),
    ]
    words += ["--port", "8123", "--doubts", "7"]
    done = CliRunner().invoke(cli.app, [*words, "--checkpoint", "lits=a=b.pt"])
    (program, arguments, environ), *_ = started
    assert program == arguments[0] == "/label/bin/python"
    assert arguments[arguments.index("--port") + 1] == "8123"
    assert arguments[-2:] == ["bundles", "lits,dce_us"]
    assert environ["MONAI_LABEL_INFER_CONCURRENCY"] == "1" and environ["PATH"] == os.environ["PATH"]
    assert environ[MOST_SETTING] == "7"
    assert packaging[0] == ("lits", "a=b.pt")
    assert "http://127.0.0.1:8123" in done.output and str(tmp_path / "app") in done.output


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "expected --bundles and --studies"),
        (["--bundles", "lits"], "expected --bundles and --studies"),
        (["--rollback", "lits"], "give --studies or --app-dir"),
        (["--rollback", "lits", "--app-dir", "none"], "expected an annotation project in"),
    ],
)
def test_what_the_command_line_lacks_is_named(words, message):
    done = CliRunner().invoke(cli.app, ["label", *words])
    assert isinstance(done.exception, DataError) and message in str(done.exception)


def test_rolled_back_by_the_command_line(studies, tmp_path, packaging, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in ({}, {"lits": "better.pt"}):
        serve.prepare(["lits"], studies, None, given)
    done = CliRunner().invoke(cli.app, ["label", "--rollback", "lits", "--studies", str(studies)])
    assert "version 1 is served" in done.output
    done = CliRunner().invoke(cli.app, ["label", "--rollback", "dce_us", "--studies", str(studies)])
    assert "expected one of the bundles lits, found 'dce_us'" in str(done.exception)

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import platform
import tarfile
import threading

import pytest
from monai.apps import DecathlonDataset

from pipelines.datasets import brain_tumour
from pipelines.download import TASKS, download
from pipelines.errors import DataError

TASK = "Task01_BrainTumour"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; of what is called "short" it promises more than it sends."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        if self.path != "/short.tar":
            return super().do_GET()
        self.server.asked += 1
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        self.wfile.write(b"x" * 5000)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Loopback only: a phantom as the archive that MONAI would find, and its folder."""
    folder = tmp_path_factory.mktemp("served")
    brain_tumour.phantom(folder / "phantom", cases=2, size=32)
    with tarfile.open(folder / f"{TASK}.tar", "w") as archive:
        archive.add(folder / "phantom" / TASK, TASK)
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=folder)
    ) as one:
        one.asked = 0
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield folder, one
        one.shutdown()


@pytest.fixture
def place(server, monkeypatch):
    """Make MONAI look for the task at a file of the server, with the MD5 sum of the archive or another."""
    folder, one = server
    md5 = hashlib.md5((folder / f"{TASK}.tar").read_bytes()).hexdigest()

    def at(name=f"{TASK}.tar", md5=md5, port=one.server_port):
        monkeypatch.setitem(DecathlonDataset.resource, TASK, f"http://127.0.0.1:{port}/{name}")
        monkeypatch.setitem(DecathlonDataset.md5, TASK, md5)

    return at


def test_what_was_downloaded_is_whole_and_nothing_else_is_there(place, tmp_path, capsys):
    place()
    folder = download("brain_tumour", tmp_path / "data")
    assert folder == tmp_path / "data" / TASK
    assert [path.name for path in (tmp_path / "data").iterdir()] == [TASK]
    assert brain_tumour.check(folder, workers=1) == []
    assert len(brain_tumour.index(tmp_path / "data", labelled=False)) == 4
    shown = capsys.readouterr()
    assert f"{TASK}.tar" in shown.err  # the progress bar
    assert shown.out == ""


def test_what_a_killed_process_left_is_removed(place, tmp_path):
    left = tmp_path / f".partial-{2**30}@{platform.node()}@{TASK}" / "tmp" / f"{TASK}.tar"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    place()
    download("brain_tumour", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [TASK]


def test_what_is_there_already_is_not_fetched_again(place, tmp_path):
    (tmp_path / TASK).mkdir()
    place(port=9)
    assert download("brain_tumour", tmp_path) == tmp_path / TASK


def test_an_archive_that_lies_there_is_unpacked_and_stays(place, server, tmp_path):
    content = (server[0] / f"{TASK}.tar").read_bytes()
    (tmp_path / f"{TASK}.tar").write_bytes(content)
    place(port=9)
    assert (download("brain_tumour", tmp_path) / "dataset.json").is_file()
    assert (tmp_path / f"{TASK}.tar").read_bytes() == content


def test_an_archive_that_was_cut_short_is_not_taken_for_whole(place, server, tmp_path):
    (tmp_path / f"{TASK}.tar").write_bytes((server[0] / f"{TASK}.tar").read_bytes()[:20000])
    place()
    with pytest.raises(DataError, match=rf"MD5 sum \w+, found another one.*; remove .*{TASK}\.tar and start"):
        download("brain_tumour", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{TASK}.tar"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("short.tar", {}, "found no way to it .*5000 out of 100000 bytes.*; check the network"),
        ("none.tar", {}, "found no way to it .*404.*; check the network"),
        (f"{TASK}.tar", {"port": 9}, r"found no way to it .*refused.*put it at .*Task01_BrainTumour\.tar"),
        (f"{TASK}.tar", {"md5": "0" * 32}, "MD5 sum 0{32}, found another one.*; start again"),
    ],
)
def test_what_cannot_be_had_is_one_line_and_leaves_nothing(
    place, server, tmp_path, capsys, name, options, message
):
    place(name, **options)
    with pytest.raises(DataError, match=message) as error:
        download("brain_tumour", tmp_path / "data", progress=False)
    assert "\n" not in str(error.value)
    assert list((tmp_path / "data").iterdir()) == []
    assert capsys.readouterr().out == ""
    assert name != "short.tar" or server[1].asked == 1


@pytest.mark.parametrize("member", ["../outside.txt", "/outside.txt", "other/file.txt"])
def test_an_archive_of_another_content_is_refused(place, tmp_path, member):
    with tarfile.open(tmp_path / f"{TASK}.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(member), io.BytesIO())
    place(md5=hashlib.md5((tmp_path / f"{TASK}.tar").read_bytes()).hexdigest())
    with pytest.raises(DataError, match=f"{TASK}.tar"):
        download("brain_tumour", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{TASK}.tar"]
    assert not (tmp_path.parent / "outside.txt").exists()


def test_a_folder_that_cannot_be_written_to_is_named(place, tmp_path):
    (tmp_path / "data").touch()
    place()
    with pytest.raises(DataError, match=r"a folder that can be written to, found .*data"):
        download("brain_tumour", tmp_path / "data")


@pytest.mark.parametrize("name", ["ceus", "dce_us", "inbreast"])
def test_of_the_others_it_says_where_they_are(tmp_path, name):
    with pytest.raises(
        DataError, match=rf"\(brain_tumour, lits\), found {name}: .*featherseg phantom {name}"
    ):
        download(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_every_dataset_is_one_or_the_other():
    from pipelines import datasets
    from pipelines.download import ELSEWHERE

    assert sorted([*TASKS, *ELSEWHERE]) == sorted(datasets.MODULES)
    assert set(TASKS.values()) <= DecathlonDataset.resource.keys() & DecathlonDataset.md5.keys()

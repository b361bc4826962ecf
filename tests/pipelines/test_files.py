import errno
import os
import platform

import pytest

from pipelines.errors import DataError
from pipelines.files import PARTIAL, read_json, remove_leftovers, write_json, written_whole

NODE = platform.node()


def test_a_file_appears_only_once_it_is_whole(tmp_path):
    path = tmp_path / "folder" / "a.nii.gz"
    with written_whole(path) as beside:
        beside.write_text("half")
        assert not path.exists()
        assert beside.name.endswith("a.nii.gz")
    assert path.read_text() == "half"
    assert list(path.parent.iterdir()) == [path]


def test_what_was_there_stays_if_writing_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(RuntimeError), written_whole(path) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "found the disk full"), (errno.EROFS, "folder that can be written to")],
)
def test_a_full_disk_and_a_read_only_folder_are_named(tmp_path, number, message):
    with pytest.raises(DataError, match=message), written_whole(tmp_path / "a.txt"):
        raise OSError(number, os.strerror(number))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(DataError, match="a folder that can be written to"),
        written_whole(tmp_path / "file" / "a.txt"),
    ):
        pass


def test_leftovers_of_dead_processes_are_removed_and_those_of_living_ones_kept(tmp_path):
    elsewhere = tmp_path / f"{PARTIAL}99999999@another@a"
    elsewhere.touch()
    dead, living, other = (
        tmp_path / name for name in (f"{PARTIAL}99999999@{NODE}@a", f"{PARTIAL}{os.getpid()}@{NODE}@a", "a")
    )
    for path in (dead, living, other):
        path.touch()
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([living, other, elsewhere])


def test_json_round_trip_and_its_errors(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": [1, None]})
    assert read_json(path) == {"a": [1, None]}
    with pytest.raises(DataError, match="found none"):
        read_json(tmp_path / "b.json")
    path.write_text("{")
    with pytest.raises(DataError, match="expected JSON in"):
        read_json(path)

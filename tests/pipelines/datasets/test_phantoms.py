from __future__ import annotations

import json

import pytest

from pipelines.datasets.phantoms import MARKER, strangers, write_phantom
from pipelines.errors import DataError


def make(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "a.txt").write_text("a")
    return {"extra": 1}


def must_not_run(folder):
    raise AssertionError("made although it was there")


def test_writes_once_and_names_what_it_wrote(tmp_path):
    root = tmp_path / "data" / "set"
    assert write_phantom(root, {"seed": 0}, make)
    assert json.loads((root / MARKER).read_text()) == {
        "parameters": {"seed": 0},
        "extra": 1,
        "files": {"sub/a.txt": 1},
    }
    assert not write_phantom(root, {"seed": 0}, must_not_run)
    assert [path.name for path in root.parent.iterdir()] == ["set"]


@pytest.mark.parametrize("change", ["delete", "cut"])
def test_an_incomplete_phantom_is_made_again(tmp_path, change):
    root = tmp_path / "set"
    write_phantom(root, {"seed": 0}, make)
    file = root / "sub" / "a.txt"
    file.unlink() if change == "delete" else file.write_text("")
    assert write_phantom(root, {"seed": 0}, make)
    assert file.read_text() == "a"


def test_other_parameters_replace_an_earlier_phantom(tmp_path):
    root = tmp_path / "set"
    write_phantom(root, {"seed": 0}, make)
    assert write_phantom(root, {"seed": 1}, lambda folder: (folder / "b").write_text("b") and {})
    assert sorted(path.name for path in root.iterdir()) == [MARKER, "b"]


def test_an_empty_folder_is_filled(tmp_path):
    assert write_phantom(tmp_path, {}, make)
    assert (tmp_path / "sub" / "a.txt").exists()


@pytest.mark.parametrize("marker", [None, "[]", "not json", '{"parameters": {}}'])
def test_a_folder_that_is_no_phantom_is_refused_and_kept(tmp_path, marker):
    (tmp_path / "thesis.tex").write_text("years of work")
    if marker is not None:
        (tmp_path / MARKER).write_text(marker)
    with pytest.raises(DataError, match="choose another --out"):
        write_phantom(tmp_path, {}, make)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_file_laid_into_a_phantom_is_not_lost(tmp_path):
    root = tmp_path / "set"
    write_phantom(root, {"seed": 0}, make)
    (root / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"notes\.txt"):
        write_phantom(root, {"seed": 1}, make)
    assert (root / "notes.txt").read_text() == "mine"


class TestStrangers:
    @pytest.fixture
    def root(self, tmp_path):
        write_phantom(tmp_path / "set", {"seed": 0}, make)
        return tmp_path / "set"

    def test_data_beside_a_phantom_is_counted_and_named(self, root):
        files = [root / name for name in ("sub/b.txt", "sub/a.txt", "c/a.txt", "sub/b.txt")]
        (finding,) = strangers(root, files)
        assert (finding.severity, finding.kind, finding.file) == ("error", "phantom", "c/a.txt")
        assert "found 2 files beside those of a phantom" in finding.message

    def test_a_phantom_alone_may_lack_files_and_hold_what_is_no_data(self, root):
        (root / "notes.txt").write_text("mine")
        assert strangers(root, [root / "sub/a.txt"]) == []
        assert strangers(root, []) == []

    def test_data_in_the_place_of_a_phantom_is_not_mixed_with_it(self, root):
        (root / "sub/a.txt").rename(root / "sub/b.txt")
        assert strangers(root, [root / "sub/b.txt"]) == []

    @pytest.mark.parametrize("marker", [None, "[]", "not json", '{"files": 3}', "{}"])
    def test_without_a_phantoms_marker_there_is_none(self, root, marker):
        (root / MARKER).unlink() if marker is None else (root / MARKER).write_text(marker)
        assert strangers(root, [root / "sub/a.txt", root / "b.txt"]) == []


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "set").write_text("")
    with pytest.raises(DataError, match="found a file"):
        write_phantom(tmp_path / "set", {}, make)


def test_a_failure_leaves_the_earlier_phantom_and_nothing_half_made(tmp_path):
    root = tmp_path / "set"
    write_phantom(root, {"seed": 0}, make)

    def fail(folder):
        make(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="disk full"):
        write_phantom(root, {"seed": 1}, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert (root / "sub" / "a.txt").read_text() == "a"

from __future__ import annotations

import json
import shutil
from multiprocessing import get_context

import numpy as np
import pytest
from PIL import Image

from pipelines.datasets import ceus, checking, masks
from pipelines.datasets.ceus_phantom import draw
from pipelines.datasets.ceus_writers import write_clip
from pipelines.errors import DataError

SOUND = [  # of the first four patients
    ("note", "colour", "P001", "P001/IM_0001"),
    ("note", "not-ascii", "P004达峰", "P004达峰"),
]


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check") / "ceus"
    ceus.phantom(folder, cases=4, size=64)
    return folder


@pytest.fixture
def root(phantom, tmp_path):
    """The phantom as data of one's own: without the marker, patients may be added."""
    shutil.copytree(phantom, tmp_path / "ceus", ignore=shutil.ignore_patterns("PHANTOM.json"))
    return tmp_path / "ceus"


def findings(root, **options):
    return [
        f for f in ceus.check(root, workers=1, **options) if (f.severity, f.kind, f.case, f.file) not in SOUND
    ]


def kinds(root, **options):
    return [(f.severity, f.kind, f.file) for f in findings(root, **options)]


def test_sound_patients_give_only_notes_whatever_the_number_of_workers(phantom, monkeypatch):
    # A new interpreter would import everything anew; what goes to and from it is the same.
    monkeypatch.setattr(checking, "get_context", lambda _: get_context("fork"))
    found = ceus.check(phantom, workers=2)
    assert found == ceus.check(phantom, workers=1)
    assert [(f.severity, f.kind, f.case, f.file) for f in found] == SOUND
    assert "YBR_FULL_422" in found[0].message


def test_a_phantom_of_two_dozen_has_no_errors_and_no_repeats(tmp_path):
    ceus.phantom(tmp_path / "ceus", cases=24, seed=1, size=64)
    found = ceus.check(tmp_path / "ceus", workers=1)
    assert {(f.severity, f.kind) for f in found} == {("note", "colour"), ("note", "not-ascii")}
    coded = {f.case: f.message.split()[3].rstrip(",") for f in found if f.kind == "colour"}
    assert coded["P006"] == "PALETTE"
    assert coded["P007"] == "YBR_FULL"


def test_sizes_are_both_named(root):
    Image.new("1", (50, 40)).save(root / "P003/mask.png")
    (finding,) = findings(root)
    frame = "x".join(map(str, draw(3, size=64).lesion.shape[::-1]))
    assert (finding.severity, finding.kind) == ("error", "size")
    assert f"{frame} pixels, found 50x40" in finding.message


def test_a_lesion_beyond_the_panel_is_found_and_a_touching_one_is_not(root):
    top, left, _, width = draw(3, size=64).boxes["contrast"]
    lesion = np.zeros(draw(3, size=64).lesion.shape, np.uint8)
    for reach, expected in ((1, []), (6, [("error", "outside", "P003/mask.png")])):
        lesion[:] = 0
        lesion[top + 10 : top + 30, left + 40 : left + width + reach] = 255
        Image.fromarray(lesion).save(root / "P003/mask.png")
        assert kinds(root) == expected


def test_given_panels_are_what_a_lesion_is_compared_with(root):
    boxes = {name: list(box) for name, box in draw(3, size=64).boxes.items()}
    (root / "P003/panels.json").write_text(json.dumps(boxes))
    assert kinds(root) == []
    swapped = {"contrast": boxes["bmode"], "bmode": boxes["contrast"]}
    (root / "P003/panels.json").write_text(json.dumps(swapped))
    assert kinds(root) == [("error", "outside", "P003/mask.png")]
    boxes["bmode"][1] += 50
    (root / "P003/panels.json").write_text(json.dumps(boxes))
    (finding,) = findings(root)
    assert (finding.kind, finding.file) == ("panels", "P003/panels.json")
    assert "within the clip's frames" in finding.message
    (root / "P003/panels.json").write_text("{}")
    assert kinds(root) == [("error", "panels", "P003/panels.json")]


def test_a_clip_of_one_panel_asks_for_panels_json(root):
    left, width = draw(3, size=64).boxes["bmode"][1::2]
    frames = (frame[:, left : left + width] for frame in draw(3, size=64).frames)
    write_clip(root / "P003/clip.dcm", frames, 2, "rgb")
    lesion = masks.read(root / "P003/mask.png")[:, left : left + width]
    Image.fromarray(lesion).save(root / "P003/mask.png")
    found = findings(root)
    assert ("error", "panels") in {(f.severity, f.kind) for f in found}
    assert any("give both in panels.json" in f.message for f in found)


def test_damaged_files_are_named_without_their_path(root):
    for name in ("P001/mask.png", "P002/bolus.mp4", "P004达峰/Loop 1.avi"):
        path = root / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = findings(root)
    assert [(f.severity, f.kind, f.file) for f in found] == [
        ("error", "unreadable", "P001/mask.png"),
        ("error", "unreadable", "P002/bolus.mp4"),
        ("error", "unreadable", "P004达峰/Loop 1.avi"),
    ]
    assert not any(str(root) in f.message for f in found)


def test_a_mask_coded_in_no_known_way_is_an_error(root):
    lesion = masks.read(root / "P003/mask.png")
    Image.fromarray(100 * lesion.astype(np.uint8)).save(root / "P003/mask.png")
    assert kinds(root) == [("error", "labels", "P003/mask.png")]


def test_a_clip_of_another_patient_is_found_in_whatever_form(root):
    frames = list(draw(3, size=64).frames)
    for form in ("rgb", "ybr"):
        (root / form).mkdir()
        write_clip(root / form / "clip.dcm", frames, 2, form)
        shutil.copy(root / "P003/mask.png", root / form)
    found = [f for f in findings(root) if f.kind != "colour"]
    assert [(f.severity, f.kind, f.case) for f in found] == [
        ("error", "duplicate", "rgb"),
        ("warning", "repeat", "ybr"),
    ]
    assert all("P003" in f.message for f in found)


class TestSplit:
    def write(self, root, *folds):
        path = root.parent / "split.json"
        path.write_text(json.dumps({"folds": folds}))
        return path

    def test_a_sound_split_gives_nothing(self, root):
        assert kinds(root, split=self.write(root, ["P001", "P002"], ["P003", "P004达峰"])) == []

    def test_a_patient_in_two_folds_or_none(self, root):
        split = self.write(root, ["P001", "P002"], ["P002", "P003"])
        assert [(f.severity, f.kind, f.case) for f in findings(root, split=split)] == [
            ("error", "no-fold", ""),
            ("error", "two-folds", "P002"),
        ]

    def test_key_frames_of_a_patient_in_two_folds(self, root):
        split = self.write(root, ["P001_3", "P001_9", "P002"], ["P001_12", "P003", "P004达峰"])
        divided = [f for f in findings(root, split=split) if f.kind == "divided"]
        assert [(f.severity, f.case) for f in divided] == [("error", "P001_12")]
        assert "P001_3 in fold 0 and P001_12 in fold 1" in divided[0].message

    def test_near_identical_clips_in_two_folds(self, root):
        shutil.copytree(root / "P003", root / "P005")
        split = self.write(root, ["P001", "P002", "P003"], ["P004达峰", "P005"])
        found = [(f.severity, f.kind, f.case) for f in findings(root, split=split)]
        assert found == [("error", "duplicate", "P005"), ("error", "divided", "P005")]

    def test_a_file_that_is_no_split_is_an_error(self, root):
        with pytest.raises(DataError, match="folds"):
            ceus.check(root, workers=1, split=self.write(root, "P001"))

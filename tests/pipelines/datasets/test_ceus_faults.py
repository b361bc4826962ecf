from __future__ import annotations

import json

import numpy as np
import pydicom
import pytest
from PIL import Image

from pipelines.clips import read_clip
from pipelines.datasets import ceus, masks

# Written down here and not read from the module, so that a fault left out of it is seen.
FAULTS = [
    ("error", "size", "P003", "P003/mask.png"),
    ("error", "unreadable", "P004", "P004/clip.dcm"),
    ("error", "unreadable", "P005", "P005/frame-12.png"),
    ("warning", "empty", "P006", "P006/mask.png"),
    ("warning", "full", "P007", "P007/mask.png"),
    ("error", "outside", "P008", "P008/mask.png"),
    ("error", "unlabelled", "P009", "P009"),
    ("error", "missing", "P010", "P010"),
    ("error", "clips", "P011", "P011"),
    ("note", "not-ascii", "P012 Müller", "P012 Müller"),
    ("note", "several", "P013", "P013/mask.png"),
    ("note", "grey", "P014", "P014/mask.jpg"),
    ("error", "modality", "P015", "P015/clip.dcm"),
    ("error", "timing", "P016", "P016/clip.dcm"),
    ("error", "panels", "P017", "P017/clip.dcm"),
    ("warning", "short", "P018", "P018/clip.dcm"),
    ("error", "duplicate", "P019", "P019/clip.dcm"),
    ("warning", "repeat", "P020", "P020/clip.dcm"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults") / "ceus"
    ceus.phantom(folder, cases=2, size=64, faults=True)
    return folder


def test_the_findings_to_expect_are_listed(root):
    listed = json.loads((root / "PHANTOM.json").read_text("utf-8"))["faults"]
    assert [tuple(fault[key] for key in ("severity", "kind", "case", "file")) for fault in listed] == FAULTS


def test_check_finds_each_of_them_and_nothing_else(root):
    found = {(f.severity, f.kind, f.case, f.file) for f in ceus.check(root, workers=1)}
    # The first patient's DICOM file is coded in YBR, and so is its copy.
    coded = {("note", "colour", "P001", "P001/IM_0001"), ("note", "colour", "P019", "P019/clip.dcm")}
    # One frame may be too little to tell the panels by.
    assert found - {("error", "panels", "P018", "P018/clip.dcm")} == {*FAULTS, *coded}


def frames(folder, name="clip.dcm"):
    return [frame.image for frame in read_clip(folder / name)]


def test_masks_are_as_described(root):
    size = frames(root / "P003")[0].shape[:2]
    assert masks.read(root / "P003/mask.png").shape == (size[0] // 2, size[1] // 2)
    assert not masks.read(root / "P006/mask.png").any()
    assert masks.read(root / "P007/mask.png").all()
    halves = [masks.read(root / "P013" / name) for name in ("mask.png", "mask_1.png")]
    assert min(half.sum() for half in halves) > 0.3 * max(half.sum() for half in halves)
    assert not (halves[0] & halves[1]).any()
    with Image.open(root / "P014/mask.jpg") as picture:
        assert len(np.unique(picture)) > 5


def test_clips_are_as_described(root):
    assert pydicom.dcmread(root / "P015/clip.dcm").Modality == "MR"
    assert "FrameTime" not in pydicom.dcmread(root / "P016/clip.dcm")
    assert len(frames(root / "P018")) == 1
    assert frames(root / "P017")[0].shape[1] < 0.7 * frames(root / "P008")[0].shape[1]
    assert (root / "P019/clip.dcm").read_bytes() == (root / "P001/IM_0001").read_bytes()
    assert 0 < len(frames(root / "P001", "IM_0001")) - len(frames(root / "P020")) < 5

from __future__ import annotations

import json
import plistlib
from ast import literal_eval
from xml.parsers.expat import ExpatError

import numpy as np
import pydicom
import pytest

from pipelines.datasets.inbreast_phantom import phantom
from pipelines.mammograms import read_header, read_mammogram

# Written down here and not read from the module, so that a fault left out of it is seen.
FAULTS = [
    ("error", "unreadable", ".dcm"),  # cut off
    ("error", "unreadable", ".dcm"),  # several frames
    ("error", "modality", ".dcm"),
    ("warning", "raw", ".dcm"),
    ("warning", "spacing", ".dcm"),
    ("warning", "view", ".dcm"),
    ("error", "side", ".dcm"),
    ("warning", "flipped", ".dcm"),
    ("warning", "blank", ".dcm"),
    ("error", "duplicate", ".dcm"),
    ("error", "name", ".dcm"),
    ("error", "missing", ".xml"),  # since its image has no name any more
    ("error", "missing", ".xml"),
    ("warning", "absent", ".csv"),
    ("warning", "unlisted", ".dcm"),
    ("warning", "birads", ".csv"),
    ("error", "unreadable", ".xml"),  # cut off
    ("error", "unreadable", ".xml"),  # points announced and not given
    ("error", "contour-name", ".xml"),
    ("error", "outside", ".xml"),
    ("note", "empty", ".xml"),
    ("error", "two-folds", ".json"),
    ("error", "absent", ".json"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults") / "phantom"
    phantom(folder, cases=1, size=96, faults=True, progress=False)
    return folder


@pytest.fixture(scope="module")
def listed(folder):
    return json.loads((folder / "PHANTOM.json").read_text("utf-8"))["faults"]


def file(folder, listed, kind, number=0):
    """The path of the finding with a kind, the first of them or another."""
    return [folder / fault["file"] for fault in listed if fault["kind"] == kind][number]


def test_the_findings_to_expect_are_listed(listed):
    assert [(f["severity"], f["kind"], f["file"][-4:].replace("json", ".json")) for f in listed] == FAULTS


def test_every_file_is_there_and_every_broken_patient_has_one_image(folder, listed):
    assert all((folder / fault["file"]).is_file() for fault in listed)
    images = list((folder / "INbreast Release 1.0/AllDICOMs").iterdir())
    # Four of the sound patient, one of each of 19 broken ones but of one without an image, and a copy.
    assert len(images) == 4 + 19 - 1 + 1


def test_headers(folder, listed):
    def header(kind, number=0):
        return pydicom.dcmread(file(folder, listed, kind, number), stop_before_pixels=True)

    assert header("unreadable", 1).NumberOfFrames == 2
    assert header("modality").Modality == "CR"
    assert header("raw").PresentationIntentType == "FOR PROCESSING"
    assert "ImagerPixelSpacing" not in header("spacing")
    view = file(folder, listed, "view")
    assert read_header(view).view != {"ML": "MLO"}.get(view.name.split("_")[4], view.name.split("_")[4])
    side = file(folder, listed, "side")
    assert read_header(side).side != side.name.split("_")[3]


def test_pixels(folder, listed):
    flipped, header = read_mammogram(file(folder, listed, "flipped"))
    away = flipped[:, :4] if header.side == "L" else flipped[:, -4:]
    assert (away == 0).mean() > 0.9
    assert not read_mammogram(file(folder, listed, "blank"))[0].any()
    copy = file(folder, listed, "duplicate")
    twins = [p for p in copy.parent.iterdir() if p.read_bytes() == copy.read_bytes()]
    assert len(twins) == 2
    assert len({p.name.split("_")[1] for p in twins}) == 2


def test_contours(folder, listed):
    def first(kind, number=0):
        return plistlib.loads(file(folder, listed, kind, number).read_bytes())["Images"][0]["ROIs"][0]

    with pytest.raises(ExpatError):
        first("unreadable", 2)
    mismatch = first("unreadable", 3)
    assert mismatch["NumberOfPoints"] == len(mismatch["Point_px"]) + 1
    assert first("contour-name")["Name"] == "Lump"
    points = np.array([literal_eval(point) for point in first("outside")["Point_px"]])
    assert (points < 0).all()
    assert plistlib.loads(file(folder, listed, "empty").read_bytes())["Images"][0]["ROIs"] == []


def test_the_table_lacks_one_image_and_lists_one_that_is_not_there(folder, listed):
    text = (folder / "INbreast Release 1.0/INbreast.csv").read_text()
    cases = {fault["kind"]: fault["case"] for fault in listed if not fault["file"].endswith(".json")}
    assert f";{cases['unlisted']};" not in text
    assert f";{cases['absent']};" in text
    (row,) = (line for line in text.splitlines() if f";{cases['birads']};" in line)
    assert row.endswith(";7")

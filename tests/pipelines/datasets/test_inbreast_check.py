from __future__ import annotations

import json
import shutil

import numpy as np
import pydicom
import pytest

from pipelines.datasets.inbreast_check import check, chest_wall
from pipelines.datasets.inbreast_phantom import phantom
from pipelines.datasets.inbreast_writers import IDENTITY, write_contours, write_mammogram, write_table
from pipelines.folds import write_split

NAMES = ("20586908", "20586934", "22427705")
RIGHT, LEFT, OTHER = (
    f"AllDICOMs/{name}.dcm"
    for name in (
        "20586908_6c613a14b80a8591_MG_R_CC_ANON",
        "20586934_6c613a14b80a8591_MG_L_CC_ANON",
        "22427705_aa5f3a14b80a0001_MG_L_ML_ANON",
    )
)
MASS = np.array([(10.0, 30), (24, 30), (22, 44), (12, 42)])
SOUND = [
    ("note", "names", "", ""),
    ("note", "normal", "", ""),
]


def breast(seed, side="L"):
    """A noisy half disc at the left edge, or at the right one."""
    y, x = np.mgrid[:80, :60]
    noise = np.random.default_rng(seed).normal(2000, 100, (80, 60))
    levels = (noise * (np.hypot(y - 40, 1.2 * x) < 36)).astype(np.uint16)
    return levels if side == "L" else levels[:, ::-1]


def write(root, file, seed, **options):
    _, _, _, side, view, _ = file.split("/")[1].split("_")
    options = {"side": side, "view": "MLO" if view == "ML" else view, "spacing": 0.9, **options}
    write_mammogram(root / file, breast(seed, side), **options)


def rows():
    return [("R", "CC"), ("L", "CC"), ("L", "MLO")]


@pytest.fixture
def root(tmp_path):
    """Three images of two patients; the second one is normal."""
    for folder in ("AllDICOMs", "AllXML"):
        (tmp_path / folder).mkdir()
    for number, file in enumerate((RIGHT, LEFT, OTHER)):
        write(tmp_path, file, number)
    for name in (NAMES[0], NAMES[2]):
        points = MASS if name == NAMES[2] else MASS * (-1, 1) + (59, 0)
        write_contours(tmp_path / f"AllXML/{name}.xml", [("Mass", points)])
    table(tmp_path)
    return tmp_path


def table(root, **changed):
    """The table, but for rows by their id, None for one that is left out."""
    lines = {
        name: (*place, "201001", name, "2", "4a") for name, place in zip(NAMES, rows(), strict=True)
    } | changed
    write_table(root / "INbreast.csv", [line for line in lines.values() if line])


def findings(root, **options):
    found = [(f.severity, f.kind, f.case, f.file) for f in check(root, workers=1, **options)]
    assert all(one in found for one in SOUND)
    return [one for one in found if one not in SOUND]


def message(root, kind):
    (found,) = {f.message for f in check(root, workers=1) if f.kind == kind}
    return found


def alter(root, file, **elements):
    dataset = pydicom.dcmread(root / file)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(root / file)


def test_sound_data_gives_notes_only(root):
    assert findings(root) == []
    assert message(root, "names") == "contours by their names: Mass 2"
    assert message(root, "normal").startswith("1 of 3 images have no contours")


def test_every_fault_of_the_phantom_is_found_and_nothing_else(tmp_path):
    folder = tmp_path / "phantom"
    phantom(folder, cases=6, size=96, faults=True, progress=False)
    found = {
        (f.severity, f.kind, f.case, f.file) for f in check(folder, workers=1, split=folder / "split.json")
    }
    listed = json.loads((folder / "PHANTOM.json").read_text("utf-8"))["faults"]
    expected = {tuple(fault[key] for key in ("severity", "kind", "case", "file")) for fault in listed}
    assert expected <= found
    # An image called by the wrong side is on the wrong edge for it; one without a name is absent too.
    more = {(kind, severity) for severity, kind, _, _ in found - expected if severity != "note"}
    assert more == {("flipped", "warning"), ("absent", "warning")}
    assert len([one for one in found - expected if one[0] != "note"]) == 2


def test_a_sound_phantom_gives_notes_only(tmp_path):
    phantom(tmp_path / "phantom", cases=6, size=96, progress=False)
    found = check(tmp_path / "phantom", workers=1)
    assert {f.severity for f in found} == {"note"}
    assert {f.kind for f in found} == {"names", "normal", "marks", "clipped", "density"}


def test_workers_find_the_same(root):
    alter(root, RIGHT, NumberOfFrames=9)
    found = check(root, workers=2)
    assert len(found) == 3
    assert found == check(root, workers=1)


@pytest.mark.parametrize("kept", [0, 0.3, 0.9])
def test_a_mammogram_or_contours_cut_off(root, kept):
    for file in (OTHER, f"AllXML/{NAMES[2]}.xml"):
        whole = (root / file).read_bytes()
        (root / file).write_bytes(whole[: int(kept * len(whole))])
        assert findings(root) == [("error", "unreadable", NAMES[2], file)]
        (root / file).write_bytes(whole)


def test_another_modality_and_several_frames(root):
    alter(root, RIGHT, Modality="CT")
    alter(root, LEFT, NumberOfFrames=9)
    assert findings(root) == [
        ("error", "modality", NAMES[0], RIGHT),
        ("error", "unreadable", NAMES[1], LEFT),
    ]


def test_side_and_view_are_compared_between_name_header_and_table(root):
    alter(root, LEFT, ImageLaterality="R")
    table(root, **{NAMES[2]: ("R", "CC", "201001", NAMES[2], "2", "4a")})
    assert findings(root) == [
        ("error", "side", NAMES[1], LEFT),
        ("error", "side", NAMES[2], OTHER),
        ("warning", "view", NAMES[2], OTHER),
    ]
    alter(root, LEFT, ImageLaterality=None, ViewPosition=None)
    table(root)
    assert findings(root) == []


def test_a_flipped_image(root):
    write_mammogram(root / LEFT, breast(1, "R"), "L", "CC", 0.9)
    assert findings(root) == [("warning", "flipped", NAMES[1], LEFT)]
    assert "at the right edge" in message(root, "flipped")


def test_the_chest_wall_of_an_image():
    assert chest_wall(breast(0)) == "L"
    assert chest_wall(breast(0)[:, ::-1]) == "R"
    assert chest_wall(np.zeros((50, 40))) == ""
    assert chest_wall(np.random.default_rng(0).normal(size=(50, 40))) == ""
    bright = breast(0).astype(float)
    bright[:6, -6:] = 16383  # a marker
    assert chest_wall(bright) == "L"


def test_no_spacing_for_processing_and_blank(root):
    write(root, RIGHT, 0, spacing=float("nan"))
    alter(root, LEFT, PresentationIntentType="FOR PROCESSING")
    write_mammogram(root / OTHER, np.full((80, 60), 7), "L", "MLO", 0.9)
    assert findings(root) == [
        ("warning", "spacing", NAMES[0], RIGHT),
        ("warning", "raw", NAMES[1], LEFT),
        ("warning", "blank", NAMES[2], OTHER),
    ]


def test_the_same_pixels_in_two_patients_and_in_one(root):
    for file in (LEFT, OTHER):
        write(root, file, 1)
    assert findings(root) == [("error", "duplicate", NAMES[2], OTHER)]
    write_mammogram(root / LEFT, breast(0, "R"), "L", "CC", 0.9)
    found = findings(root)
    assert ("warning", "duplicate", NAMES[1], LEFT) in found


def test_names_marks_and_contours_that_leave_the_image(root):
    path = root / f"AllXML/{NAMES[2]}.xml"
    rois = [("Mass", MASS - (15, 0)), ("Point 1", MASS[:1]), (None, MASS[:2]), ("mass", MASS)]
    write_contours(path, rois)
    assert findings(root) == [
        ("note", "marks", "", ""),
        ("note", "clipped", NAMES[2], f"AllXML/{NAMES[2]}.xml"),
    ]
    assert message(root, "names") == "contours by their names: Mass 2, Point 1 1, without a name 1, mass 1"
    assert message(root, "marks").startswith("2 of 5 contours are one or two points")
    around = [(-50.0, -50), (200, -50), (200, 200), (-50, 200)]
    write_contours(path, [("Mass", np.array(around)), ("Mass", np.array([(-9.0, -9)]))])
    assert message(root, "clipped").startswith("1 of 2 contours have points outside the 60x80 pixels")
    assert message(root, "outside").startswith("contour 2: expected a contour within")
    write_contours(path, [("Lump", MASS), ("Mass", MASS + np.array((200, 0))), ("Nodule", MASS[:1])])
    found = findings(root)
    assert ("error", "contour-name", NAMES[2], f"AllXML/{NAMES[2]}.xml") in found
    assert ("error", "outside", NAMES[2], f"AllXML/{NAMES[2]}.xml") in found
    assert message(root, "contour-name").endswith("found 'Lump', 'Nodule'")
    assert message(root, "outside").startswith("contour 2: expected a contour within the image of 60x80")


def test_contours_without_an_image_and_without_a_contour(root):
    write_contours(root / "AllXML/99.xml", [("Mass", MASS)])
    write_contours(root / f"AllXML/{NAMES[0]}.xml", [])
    assert findings(root) == [
        ("error", "missing", "99", "AllXML/99.xml"),
        ("note", "empty", NAMES[0], f"AllXML/{NAMES[0]}.xml"),
    ]


def test_a_table_that_does_not_fit(root):
    gone = ("L", "CC", "201001", "777", " ", "9")
    table(root, **{NAMES[1]: None, "777": gone})
    assert findings(root) == [
        ("warning", "absent", "777", "INbreast.csv"),
        ("warning", "birads", "777", "INbreast.csv"),
        ("warning", "unlisted", NAMES[1], LEFT),
        ("note", "density", "", "INbreast.csv"),
    ]
    (root / "INbreast.csv").write_text("a;b\n")
    assert findings(root) == [("error", "table", "", "INbreast.csv")]
    (root / "INbreast.csv").unlink()
    assert findings(root) == [("warning", "table", "", "INbreast.csv")]


def test_a_split_that_divides_a_patient_or_leaves_one_out(root, tmp_path):
    split = tmp_path / "split.json"
    write_split(split, [["6c613a14b80a8591"], ["aa5f3a14b80a0001"]])
    assert findings(root, split=split) == []
    write_split(split, [[NAMES[0]], [NAMES[1], "aa5f3a14b80a0001"]])
    found = findings(root, split=split)
    assert ("error", "divided", NAMES[1], "split.json") in found
    write_split(split, [["6c613a14b80a8591", "none"], ["6c613a14b80a8591"]])
    assert {(kind, case) for _, kind, case, _ in findings(root, split=split)} == {
        ("two-folds", "6c613a14b80a8591"),
        ("absent", "none"),
        ("no-fold", ""),
    }


def test_nothing_of_the_patient_is_in_the_findings(root, capfd):
    """Neither where a file is sound nor where it is at fault in any way."""
    secrets = {**IDENTITY, "AccessionNumber": "ACC-0815", "StudyDescription": "Vorsorge Mustermann"}
    alter(root, RIGHT, **secrets, Modality="CR")
    alter(root, LEFT, **secrets, ImageLaterality="R", ViewPosition="ML", NumberOfFrames=1)
    alter(root, OTHER, **secrets, Rows=999)
    found = check(root, workers=1)
    assert len([f for f in found if f.severity == "error"]) == 3
    out = capfd.readouterr()
    said = [repr(found), out.out, out.err]
    assert not any(secret in text for secret in secrets.values() for text in said)


def test_a_phantom_beside_other_data_is_told(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed") / "phantom"
    phantom(folder, cases=1, size=64, progress=False)
    shutil.copy(root / OTHER, folder / "INbreast Release 1.0/AllDICOMs")
    assert ("error", "phantom") in {(f.severity, f.kind) for f in check(folder, workers=1)}

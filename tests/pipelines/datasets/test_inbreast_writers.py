from __future__ import annotations

import math
import plistlib

import numpy as np
import pydicom
import pytest
from pydicom.pixels import pixel_array

from pipelines.datasets.inbreast_writers import (
    SYNTAXES,
    burn_in,
    write_contours,
    write_mammogram,
    write_table,
)

LEVELS = np.random.default_rng(0).integers(0, 4096, (50, 40)).astype(np.uint16)
WINDOWS = [(2000, 900, "NORMAL"), (2100, 500, "HARDER")]


def write(path, **options):
    write_mammogram(path, LEVELS, "R", "MLO", 0.07, **options)
    return pydicom.dcmread(path)


@pytest.mark.parametrize("form", SYNTAXES)
def test_every_syntax_holds_the_same_pixels_in_the_same_bytes(tmp_path, form):
    dataset = write(tmp_path / "a.dcm", form=form)
    assert dataset.file_meta.TransferSyntaxUID == SYNTAXES[form]
    np.testing.assert_array_equal(pixel_array(tmp_path / "a.dcm"), LEVELS)
    write(tmp_path / "b.dcm", form=form)
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()


def test_what_the_header_says(tmp_path):
    dataset = write(tmp_path / "a.dcm", bits=14, windows=WINDOWS)
    assert dataset.SOPClassUID.name == "Digital Mammography X-Ray Image Storage - For Presentation"
    assert (dataset.Modality, dataset.ImageLaterality, dataset.ViewPosition) == ("MG", "R", "MLO")
    assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == (16, 14, 13)
    assert dataset.ImagerPixelSpacing == [0.07, 0.07]
    assert "PixelSpacing" not in dataset
    assert (dataset.WindowCenter, dataset.WindowWidth) == ([2000, 2100], [900, 500])
    assert dataset.WindowCenterWidthExplanation == ["NORMAL", "HARDER"]
    one = write(tmp_path / "b.dcm", windows=WINDOWS[:1], PatientID="other")
    assert (one.WindowCenter, one.WindowCenterWidthExplanation, one.PatientID) == (2000, "NORMAL", "other")
    write_mammogram(tmp_path / "c.dcm", LEVELS, "R", "MLO", math.nan)
    assert "ImagerPixelSpacing" not in pydicom.dcmread(tmp_path / "c.dcm")


def test_monochrome1_is_stored_reflected_and_another_image_has_another_name(tmp_path):
    first, second = write(tmp_path / "a.dcm"), write(tmp_path / "b.dcm", photometric="MONOCHROME1")
    np.testing.assert_array_equal(pixel_array(tmp_path / "b.dcm"), 4095 - LEVELS)
    assert first.SOPInstanceUID != second.SOPInstanceUID


def test_contours_have_the_published_structure(tmp_path):
    square = np.array([(1.0, 2), (11, 2), (11, 12), (1, 12)])
    write_contours(tmp_path / "1.xml", [("Mass", square), (None, square[:1])])
    content = plistlib.loads((tmp_path / "1.xml").read_bytes())
    (image,) = content["Images"]
    assert (image["ImageIndex"], image["NumberOfROIs"]) == (0, 2)
    mass, mark = image["ROIs"]
    assert (mass["Name"], mass["NumberOfPoints"], mass["Area"], mass["Type"]) == ("Mass", 4, 100, 15)
    assert mass["Point_px"][1] == "(11.000000, 2.000000)"
    assert set(mass["Point_mm"]) == {mass["Center"]} == {"(0.000000, 0.000000, 0.000000)"}
    assert "Name" not in mark
    assert (mark["NumberOfPoints"], mark["Type"], mark["Area"]) == (1, 19, 0)


def test_the_table(tmp_path):
    write_table(tmp_path / "INbreast.csv", [("R", "CC", "201001/02", "20586908", "   ", "4a")])
    header, row = (tmp_path / "INbreast.csv").read_text().splitlines()
    assert header.split(";")[2:] == ["Laterality", "View", "Acquisition date", "File Name", "ACR", "Bi-Rads"]
    assert row == "removed;removed;R;CC;201001/02;20586908;   ;4a"


@pytest.mark.parametrize("side", ["L", "R"])
def test_the_marker_lies_in_the_upper_corner_away_from_the_chest_wall(side):
    levels = np.zeros((300, 240), np.uint16)
    burn_in(levels, side, "CC", 4095)
    rows, columns = np.nonzero(levels)
    assert set(np.unique(levels)) == {0, 4095}
    assert 20 < len(rows) < 0.01 * levels.size
    assert rows.max() < 40
    assert columns.min() > 180 if side == "L" else columns.max() < 60

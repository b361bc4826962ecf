from __future__ import annotations

import math
import plistlib

import numpy as np
import pytest
from skimage.draw import polygon

from pipelines.datasets import inbreast_contours as contours
from pipelines.datasets.inbreast_contours import CALCIFICATION, MASS, OTHER, Roi, draw, label_of, read_rois
from pipelines.datasets.inbreast_writers import write_contours
from pipelines.errors import DataError

SIZE, SPACING = (60, 80), (0.07, 0.07)
LARGE = np.array([(10.0, 10), (50, 12), (48, 40), (14, 38)])  # 2.8 mm wide
SMALL = np.array([(20.0, 20), (26, 20), (26, 25)])

# As a file of the release lies on disk; the values are made up.
PLIST = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>Images</key>
	<array>
		<dict>
			<key>ImageIndex</key>
			<integer>0</integer>
			<key>NumberOfROIs</key>
			<integer>2</integer>
			<key>ROIs</key>
			<array>
				<dict>
					<key>Area</key>
					<real>0.5</real>
					<key>Center</key>
					<string>(0.000000, 0.000000, 0.000000)</string>
					<key>IndexInImage</key>
					<integer>0</integer>
					<key>Name</key>
					<string>Mass</string>
					<key>NumberOfPoints</key>
					<integer>3</integer>
					<key>Point_mm</key>
					<array>
						<string>(0.000000, 0.000000, 0.000000)</string>
						<string>(0.000000, 0.000000, 0.000000)</string>
						<string>(0.000000, 0.000000, 0.000000)</string>
					</array>
					<key>Point_px</key>
					<array>
						<string>(10.560059, 11.180054)</string>
						<string>(30.250000, 12.500000)</string>
						<string>(21.500000, 33.750000)</string>
					</array>
					<key>Type</key>
					<integer>15</integer>
				</dict>
				<dict>
					<key>NumberOfPoints</key>
					<integer>1</integer>
					<key>Point_px</key>
					<array>
						<string>(60.000000, 40.000000)</string>
					</array>
					<key>Type</key>
					<integer>19</integer>
				</dict>
			</array>
		</dict>
	</array>
</dict>
</plist>
"""


def write(path, *rois):
    write_contours(path, rois)
    return path


def filled(points):
    mask = np.zeros(SIZE, bool)
    mask[polygon(points[:, 1], points[:, 0], SIZE)] = True
    return mask


def test_a_file_as_osirix_exports_it(tmp_path):
    path = tmp_path / "20586908.xml"
    path.write_text(PLIST)
    mass, mark = read_rois(path)
    assert mass.name == "Mass"
    assert mass.points.tolist() == [[10.560059, 11.180054], [30.25, 12.5], [21.5, 33.75]]
    assert (mark.name, mark.points.tolist()) == ("", [[60, 40]])
    mask = draw(path, SIZE, SPACING)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask == MASS, filled(mass.points))
    rows, columns = np.nonzero(mask == CALCIFICATION)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (37, 43, 57, 63)
    assert not (mask == OTHER).any()


SPELLINGS = {
    "Mass": MASS,
    "Calcification": CALCIFICATION,
    "Calcifications": CALCIFICATION,
    "Cluster": OTHER,
    "Spiculated Region": OTHER,
    "Spiculated region": OTHER,
    "Espiculated Region": OTHER,
    "Distortion": OTHER,
    "Asymmetry": OTHER,
    "Assymetry": OTHER,
    " MASS ": MASS,
}


@pytest.mark.parametrize(("name", "label"), SPELLINGS.items())
@pytest.mark.parametrize("points", [LARGE, SMALL, SMALL[:1], SMALL[:2]])
def test_a_name_that_tells_goes_before_the_size(name, label, points):
    assert label_of(Roi(name, points), SPACING) == label


@pytest.mark.parametrize("name", ["Unnamed", "Point 1", "Point 3", "Point 12", ""])
def test_without_a_telling_name_only_the_small_is_a_calcification(name):
    for points in (SMALL[:1], SMALL[:2], SMALL, LARGE[:2]):
        assert label_of(Roi(name, points), SPACING) == CALCIFICATION
    assert label_of(Roi(name, LARGE), SPACING) == OTHER


def test_small_is_a_millimetre_in_either_direction():
    box = np.array([(5.0, 5), (15, 5), (15, 10), (5, 10)])
    assert label_of(Roi("Unnamed", box), (0.1, 0.1)) == CALCIFICATION
    assert label_of(Roi("Unnamed", box), (0.11, 0.1)) == OTHER
    assert label_of(Roi("Unnamed", box), (0.1, 0.21)) == OTHER
    assert label_of(Roi("Unnamed", box * 1.4), (math.nan, math.nan)) == CALCIFICATION  # 14 pixels of 0.07 mm
    assert label_of(Roi("Unnamed", box * 1.45), (math.nan, math.nan)) == OTHER


@pytest.mark.parametrize("name", ["Lump", "Masses", "Point", "Point A", "Pectoral Muscle", "Mass 2"])
def test_an_unknown_name_is_an_error_that_names_file_and_name(tmp_path, name):
    assert label_of(Roi(name, LARGE), SPACING) is None
    path = write(tmp_path / "1.xml", ("Mass", LARGE), (name, SMALL))
    with pytest.raises(DataError, match=rf"1\.xml: expected a contour named Mass, .*, found '{name}'; "):
        draw(path, SIZE, SPACING)


def test_two_contours_are_both_drawn_and_a_calcification_lies_on_a_mass_on_a_region(tmp_path):
    other = LARGE * 0.4 + (55, 40)
    outside = LARGE * 1.25 - 6
    rois = [("Calcification", SMALL), ("Mass", LARGE), ("Distortion", outside), ("Mass", other)]
    path = write(tmp_path / "1.xml", *rois)
    mask = draw(path, SIZE, SPACING)
    np.testing.assert_array_equal(mask == CALCIFICATION, filled(SMALL))
    np.testing.assert_array_equal(mask == MASS, (filled(LARGE) | filled(other)) & ~filled(SMALL))
    np.testing.assert_array_equal(mask > 0, filled(outside) | filled(other) | filled(LARGE))
    assert np.array_equal(mask, draw(write(tmp_path / "2.xml", *rois[::-1]), SIZE, SPACING))


def test_what_is_drawn_can_be_chosen(tmp_path):
    path = write(tmp_path / "1.xml", ("Mass", LARGE), ("Calcification", SMALL), ("Cluster", LARGE))
    np.testing.assert_array_equal(draw(path, SIZE, SPACING, [MASS]), MASS * filled(LARGE))
    np.testing.assert_array_equal(draw(path, SIZE, SPACING, [CALCIFICATION]), CALCIFICATION * filled(SMALL))
    assert set(np.unique(draw(path, SIZE, SPACING, [MASS, CALCIFICATION]))) == {0, MASS, CALCIFICATION}


@pytest.mark.parametrize(("spacing", "pixels"), [(0.07, 37), (0.25, 5), (0.9, 5), (math.nan, 37)])
def test_a_mark_is_half_a_millimetre_wide_or_three_pixels(tmp_path, spacing, pixels):
    path = write(tmp_path / "1.xml", ("Point 1", np.array([(40.0, 30)])))
    assert np.count_nonzero(draw(path, SIZE, (spacing, spacing))) == pixels


def test_two_points_are_two_marks(tmp_path):
    path = write(tmp_path / "1.xml", ("Calcification", np.array([(20.0, 30), (60, 30)])))
    mask = draw(path, SIZE, SPACING)
    assert np.count_nonzero(mask) == 2 * 37
    assert not mask[:, 30:50].any()


def test_a_contour_that_leaves_the_image_is_cut_off_and_one_beyond_it_is_an_error(tmp_path):
    path = write(tmp_path / "1.xml", ("Mass", LARGE - (30, 0)))
    np.testing.assert_array_equal(draw(path, SIZE, SPACING) > 0, filled(LARGE - (30, 0)))
    path = write(tmp_path / "2.xml", ("Mass", LARGE - (90, 0)))
    with pytest.raises(DataError, match=r"2\.xml: contour 1: expected a contour within the image of 80x60"):
        draw(path, SIZE, SPACING)


def test_no_contours_are_an_empty_mask(tmp_path):
    assert not draw(write(tmp_path / "1.xml"), SIZE, SPACING).any()


@pytest.mark.parametrize("kept", [0, 0.3, 0.8, 0.99])
def test_a_file_cut_off_is_an_error(tmp_path, kept):
    path = tmp_path / "1.xml"
    path.write_text(PLIST[: int(kept * len(PLIST))])
    with pytest.raises(DataError, match=r"1\.xml: expected a whole property list") as caught:
        read_rois(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_such_list_is_an_error(tmp_path):
    path = tmp_path / "1.xml"
    with pytest.raises(DataError, match=r"expected contours at .*1\.xml, found no such file"):
        read_rois(path)
    path.write_bytes(b"\x00\xff binary")
    with pytest.raises(DataError, match="expected a whole property list"):
        read_rois(path)
    roi = {"Name": "Mass", "NumberOfPoints": 1, "Point_px": ["(1.0, 2.0)"]}
    wrong = {
        "another structure": ({}, [], {"Images": []}, {"Images": [{}]}, {"Images": [{"ROIs": [{}]}]}),
        "2 points announced and 1 given": ({**roi, "NumberOfPoints": 2},),
        "a point '": ({**roi, "Point_px": [p]} for p in ("1.0, 2.0", "(1, 2, 3)", "(a, b)", "(nan, 1)")),
        "None points announced and 0 given": ({"Name": "Mass", "Point_px": []},),
        "a name that is no text": ({**roi, "Name": 3},),
    }
    for found, contents in wrong.items():
        for content in contents:
            image = {"Images": [{"ROIs": [content]}]} if found != "another structure" else content
            path.write_bytes(plistlib.dumps(image))
            with pytest.raises(DataError, match=rf"1\.xml: expected contours as OsiriX .*, found {found}"):
                read_rois(path)


def test_entities_are_not_expanded(tmp_path):
    """Of a file from elsewhere a few bytes must not become gigabytes, nor another file's content."""
    path = tmp_path / "1.xml"
    path.write_text(PLIST.replace('PropertyList-1.0.dtd">', 'PropertyList-1.0.dtd" [<!ENTITY a "Mass">]>'))
    with pytest.raises(DataError, match="expected a whole property list"):
        read_rois(path)


def test_the_known_names_are_all_listed():
    assert all(name.strip().lower() in contours.known_names().lower() for name in SPELLINGS)

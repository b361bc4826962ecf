from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pydicom
import pytest
from skimage.draw import polygon

from pipelines import threshold
from pipelines.datasets import inbreast
from pipelines.datasets.inbreast_contours import PIXEL, draw, label_of, read_rois
from pipelines.datasets.inbreast_layout import discover, read_table, table_file
from pipelines.datasets.inbreast_phantom import draw as draw_image
from pipelines.datasets.inbreast_phantom import phantom
from pipelines.errors import DataError
from pipelines.mammograms import read_header, read_mammogram

SIZE = 192


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inbreast") / "phantom"
    assert phantom(folder, cases=6, size=SIZE, progress=False)
    return folder


@pytest.fixture(scope="module")
def cases(root):
    found, findings = discover(root)
    assert findings == []
    return found


@pytest.fixture(scope="module")
def rois(cases):
    return {case.name: read_rois(case.contours) for case in cases if case.contours}


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_arguments_give_the_same_bytes_and_others_do_not(root, tmp_path):
    assert not phantom(root, cases=6, size=SIZE)
    phantom(tmp_path / "again", cases=2, size=SIZE, progress=False)
    again, whole = contents(tmp_path / "again"), contents(root)
    shared = [name for name in again if name.endswith((".dcm", ".xml"))]
    assert len(shared) == 6 + 5
    assert all(again[name] == whole[name] for name in shared)
    phantom(tmp_path / "other", cases=2, seed=1, size=SIZE, progress=False)
    other = contents(tmp_path / "other")
    assert not {other[name] for name in other if name.endswith(".dcm")} & set(again.values())


def test_six_patients_of_two_to_four_images_of_both_sides_and_views(cases):
    patients = Counter(case.patient for case in cases)
    assert sorted(patients.values()) == [2, 2, 2, 3, 4, 4]
    assert all(re.fullmatch(r"[0-9a-f]{16}", patient) for patient in patients)
    assert {(case.side, case.view) for case in cases} == {(s, v) for s in "LR" for v in ("CC", "MLO")}
    assert len({(case.patient, case.side, case.view) for case in cases}) == len(cases)
    names = [case.name for case in cases]
    assert all(re.fullmatch(r"\d{8}", name) for name in names)
    by_id = [case.patient for case in cases]
    assert len([1 for one, other in pairwise(by_id) if one != other]) >= 5
    assert any("_MG_R_ML_" in case.image.name for case in cases)


def test_all_formats_that_readers_have_to_know(cases):
    headers = [pydicom.dcmread(case.image, stop_before_pixels=True) for case in cases]
    assert {h.file_meta.TransferSyntaxUID.name.split(",")[0] for h in headers} == {
        "Explicit VR Little Endian",
        "Implicit VR Little Endian",
        "JPEG Lossless",
        "JPEG 2000 Image Compression (Lossless Only)",
        "RLE Lossless",
    }
    kinds = {(h.BitsStored, h.PhotometricInterpretation) for h in headers}
    assert kinds == {(bits, f"MONOCHROME{n}") for bits in (12, 14) for n in (1, 2)}
    assert {h.Modality for h in headers} == {"MG"}
    assert all("ImagerPixelSpacing" in h and "PixelSpacing" not in h for h in headers)
    assert {len(read_header(case.image).windows) for case in cases} == {0, 1, 2, 3}
    assert all("PatientName" in h and "PatientBirthDate" in h for h in headers)


def test_sizes_have_the_detectors_aspect_and_the_pixels_cover_the_same(cases):
    sizes = Counter(read_header(case.image).size for case in cases)
    assert set(sizes) == {(SIZE, round(SIZE * 2560 / 3328)), (round(SIZE * 4084 / 3328), SIZE)}
    assert all(read_header(c.image).spacing[0] * SIZE == pytest.approx(PIXEL * 3328, rel=1e-4) for c in cases)


@pytest.mark.parametrize("number", range(1, 7))
def test_a_file_holds_what_was_drawn(cases, number):
    """Each patient has another format; nothing of it changes the image."""
    levels, rois, pixel = draw_image(number, 0, 0, SIZE)
    matches = [
        case
        for case in cases
        if read_header(case.image).size == levels.shape
        and np.array_equal(read_mammogram(case.image)[0], levels)
    ]
    (case,) = matches
    assert read_header(case.image).spacing[0] == pytest.approx(pixel, rel=1e-4)
    if rois:
        for roi, (name, points) in zip(read_rois(case.contours), rois, strict=True):
            assert roi.name == (name or "")
            np.testing.assert_allclose(roi.points, points, atol=1e-6)


def test_every_name_is_there_and_some_images_are_normal(cases, rois):
    assert {roi.name for found in rois.values() for roi in found} == {
        *("Mass", "Calcification", "Calcifications", "Cluster", "Spiculated Region", "Spiculated region"),
        *("Espiculated Region", "Distortion", "Asymmetry", "Assymetry", "Unnamed", "Point 1", "Point 3", ""),
    }
    labels = Counter(
        label_of(roi, read_header(case.image).spacing) for case in cases for roi in rois.get(case.name, [])
    )
    assert min(labels[1], labels[2], labels[3]) >= 6
    assert sum(case.contours is None for case in cases) == 3


def test_one_and_two_points_two_masses_and_points_outside(cases, rois):
    counts = Counter(len(roi.points) for found in rois.values() for roi in found)
    assert counts[1] >= 4
    assert counts[2] >= 4
    masses = [sum(roi.name == "Mass" for roi in found) for found in rois.values()]
    assert max(masses) == 2
    sizes = {case.name: read_header(case.image).size for case in cases}
    left = [name for name, found in rois.items() if min(roi.points[:, 0].min() for roi in found) < 0]
    right = [
        name
        for name, found in rois.items()
        if max(roi.points[:, 0].max() for roi in found) > sizes[name][1] - 1
    ]
    assert left
    assert right
    sides = {case.name: case.side for case in cases}
    assert {sides[name] for name in left} == {"L"}
    assert {sides[name] for name in right} == {"R"}
    inside = [case for case in cases if _calcification_in_mass(case)]
    assert inside


def _calcification_in_mass(case):
    if case.contours is None:
        return False
    header = read_header(case.image)
    mass, calcification = (draw(case.contours, header.size, header.spacing, [label]) for label in (1, 2))
    return bool(((mass > 0) & (calcification > 0)).any())


def test_contours_lie_over_what_is_brighter_than_around_on_every_side_and_view(cases):
    """Turned, flipped or shifted contours would not: of each mass the margin outside is darker."""
    seen = set()
    for case in cases:
        if case.contours is None:
            continue
        values, header = read_mammogram(case.image)
        for roi in read_rois(case.contours):
            if roi.name != "Mass":
                continue
            around = (roi.points - roi.points.mean(axis=0)) * 1.5 + roi.points.mean(axis=0)
            within, fringe = (_filled(points, header.size) for points in (roi.points, around))
            fringe &= ~within & (values > 0)
            assert values[within].mean() > 1.08 * values[fringe].mean()
            seen.add((case.side, case.view))
    assert len(seen) == 4


def _filled(points, size):
    mask = np.zeros(size, bool)
    mask[polygon(points[:, 1], points[:, 0], size)] = True
    return mask


def test_a_marker_brighter_than_all_is_burned_into_the_air(cases):
    for case in cases:
        values, _ = read_mammogram(case.image)
        highest = 2 ** pydicom.dcmread(case.image, stop_before_pixels=True).BitsStored - 1
        rows, columns = np.nonzero(values == highest)
        assert len(rows) > 20
        assert rows.max() < 0.2 * values.shape[0]
        middle = columns.mean() / values.shape[1]
        assert middle > 0.6 if case.side == "L" else middle < 0.4


def test_the_table_lists_every_image_in_another_order_with_its_traps(root, cases):
    path = table_file(root)
    rows = read_table(path)
    assert set(rows) == {case.name for case in cases}
    assert all((rows[c.name].side, rows[c.name].view) == (c.side, c.view) for c in cases)
    text = path.read_text()
    assert ";201001/02;" in text
    assert ";     ;" in text
    assert {"4a", "4b", "4c", "1"} <= {row.birads for row in rows.values()}
    assert list(rows) != [case.name for case in cases]
    assert ";MLO;" in text
    assert ";ML;" not in text


def test_the_best_fixed_threshold_does_badly(root):
    cases = [case for case in inbreast.index(root) if len(case["label"]) > 1]
    images = [inbreast.read(case, [1, 2])[:2] for case in cases]
    band = threshold.best_band(images, inbreast.LEVELS)
    lesions = [(str(n), *image, (1, 1)) for n, image in enumerate(images) if image[1].any()]
    rows = threshold.band_rows(lesions, band)
    assert np.mean([row["dice"] for row in rows]) < 0.4


@pytest.mark.parametrize("options", [{"cases": 0}, {"seed": -1}, {"size": 63}, {"size": 3329}])
def test_options_out_of_range(tmp_path, options):
    with pytest.raises(
        DataError, match="expected at least 1 case, a seed of 0 or more and a size of 64 to 3328"
    ):
        phantom(tmp_path / "a", **options)


def test_the_smallest_phantom_can_be_read(tmp_path):
    phantom(tmp_path / "a", cases=6, size=64, progress=False)
    assert not [
        finding for finding in inbreast.check(tmp_path / "a", workers=1) if finding.severity != "note"
    ]


def test_faults_are_added_behind_the_sound_patients_and_listed(root, tmp_path):
    phantom(tmp_path / "broken", cases=6, size=SIZE, faults=True, progress=False)
    sound, broken = contents(root), contents(tmp_path / "broken")
    assert all(broken[name] == sound[name] for name in sound if name.endswith((".dcm", ".xml")))
    assert len(json.loads(broken["PHANTOM.json"])["faults"]) > 15
    assert "faults" not in json.loads(sound["PHANTOM.json"])

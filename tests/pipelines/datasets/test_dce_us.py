from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pipelines import folds
from pipelines.datasets import dce_us, masks
from pipelines.errors import DataError
from tests.conftest import SHARED

BUSI = SHARED / "busi"


def picture(seed, width=96, height=80):
    """An RGB image like no other: smooth noise."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), 2)
    grey = (128 + 100 * noise / np.abs(noise).max()).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def lesion(width=96, height=80, left=30, right=60):
    mask = np.zeros((height, width), np.uint8)
    mask[20:50, left:right] = 255
    return Image.fromarray(mask)


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def paired(tmp_path):
    """Three patients of two views."""
    for number in range(6):
        name = f"Patient{number // 2 + 1:03d}_img{number % 2 + 1}.png"
        write(tmp_path / "images" / name, picture(number))
        write(tmp_path / "masks" / name, lesion())
    return tmp_path


@pytest.fixture
def busi(tmp_path):
    """Three images with lesions, the last one malignant and like the first, and a normal one."""
    for number, kind in enumerate(("benign", "benign", "malignant", "normal")):
        name = f"{kind} ({number + 1})"
        write(tmp_path / kind / f"{name}.png", picture(number))
        write(tmp_path / kind / f"{name}_mask.png", lesion().convert("1"))
    dark = picture(0).point(lambda value: value * 3 // 4)
    write(tmp_path / "malignant/malignant (3).png", dark)
    write(tmp_path / "normal/normal (4)_mask.png", Image.new("1", (96, 80)))
    write(tmp_path / "benign/benign (2)_mask_1.png", lesion(left=70, right=80))
    return tmp_path


def kinds(root, **options):
    return [(f.severity, f.kind, f.case, f.file) for f in dce_us.check(root, workers=1, **options)]


SOUND_BUSI = [
    ("warning", "classes", "malignant (3)", "malignant/malignant (3).png"),
    ("note", "groups", "", ""),
    ("note", "normal", "", ""),
    ("note", "several", "benign (2)", "benign/benign (2)_mask.png"),
]


class TestIndex:
    def test_a_mask_of_another_size_is_an_error_before_anything_is_trained(self, busi):
        write(busi / "benign/benign (2)_mask_1.png", lesion(width=48, left=10, right=20))
        message = (
            r"benign \(2\)_mask_1.png: expected the 96x80 pixels of its image, found 48x80; .* never resized"
        )
        with pytest.raises(DataError, match=message):
            dce_us.index(busi)
        assert len(dce_us.index(busi, labelled=False)) == 4

    def test_a_pair_shares_its_patient(self, paired):
        found = dce_us.index(paired)
        assert found[1] == {
            "case": "Patient001_img2",
            "patient": "Patient001",
            "image": str(paired / "images/Patient001_img2.png"),
            "label": str(paired / "masks/Patient001_img2.png"),
        }
        assert [case["patient"] for case in found] == [f"Patient00{n}" for n in (1, 1, 2, 2, 3, 3)]

    def test_repeats_share_their_group_and_several_masks_are_listed(self, busi):
        found = dce_us.index(busi)
        assert [(case["case"], case["patient"]) for case in found] == [
            ("benign (1)", "benign (1)"),
            ("benign (2)", "benign (2)"),
            ("malignant (3)", "benign (1)"),
            ("normal (4)", "normal (4)"),
        ]
        assert found[0]["label"] == str(busi / "benign/benign (1)_mask.png")
        assert found[1]["label"] == [str(busi / f"benign/benign (2)_mask{n}.png") for n in ("", "_1")]

    def test_a_list_of_groups_goes_before_looks(self, busi):
        with (busi / "groups.csv").open("w", newline="") as file:
            rows = [("image", "group")]
            rows += [(f"benign/benign ({n}).png", "a") for n in (1, 2)]
            rows += [("malignant/malignant (3).png", "b"), ("normal/normal (4).png", "c")]
            csv.writer(file).writerows(rows)
        assert [case["patient"] for case in dce_us.index(busi)] == ["a", "a", "b", "c"]

    def test_normal_images_can_be_left_out(self, busi):
        assert dce_us.index(busi, normal=False) == dce_us.index(busi)[:3]

    @pytest.mark.parametrize("labelled", [True, False])
    def test_a_group_is_named_alike_whatever_is_left_out(self, busi, labelled):
        shutil.move(busi / "benign/benign (1).png", busi / "normal/normal (0).png")
        shutil.move(busi / "benign/benign (1)_mask.png", busi / "normal/normal (0)_mask.png")
        patients = {case["case"]: case["patient"] for case in dce_us.index(busi, labelled)}
        fewer = {case["case"]: case["patient"] for case in dce_us.index(busi, labelled, normal=False)}
        assert fewer == {case: patients[case] for case in ("benign (2)", "malignant (3)")}

    def test_without_labels_every_image_is_listed_and_none_is_read(self, busi):
        for path in busi.glob("*/*_mask*"):
            path.unlink()
        (busi / "benign/benign (1).png").write_bytes(b"")
        found = dce_us.index(busi, labelled=False)
        assert [case["case"] for case in found] == ["benign (1)", "benign (2)", "malignant (3)", "normal (4)"]
        assert all(set(case) == {"case", "patient", "image"} for case in found)

    def test_a_fold_holds_out_whole_patients(self, paired):
        cases = dce_us.index(paired)
        dealt = folds.split(cases, 3)
        assert [len(folds.held_out_cases(cases, dealt, fold)) for fold in range(3)] == [2, 2, 2]

    def test_what_is_wrong_is_told_with_the_way_to_see_all(self, paired):
        (paired / "masks/Patient002_img1.png").unlink()
        with pytest.raises(
            DataError, match=r"a mask for images/Patient002_img1\.png.*featherseg check dce_us"
        ):
            dce_us.index(paired)
        assert len(dce_us.index(paired, labelled=False)) == 6

    def test_an_image_that_cannot_be_read_is_named_where_groups_are_looked_for(self, busi):
        (busi / "benign/benign (2).png").write_bytes(b"no picture")
        with pytest.raises(DataError, match=r"benign \(2\)\.png: expected a whole image"):
            dce_us.index(busi)

    def test_a_note_is_no_reason_to_stop(self, busi):
        images = sorted(p for p in busi.glob("*/*.png") if "_mask" not in p.name)
        lines = [f"{path.relative_to(busi).as_posix()},g\n" for path in images]
        (busi / "groups.csv").write_text("image,group\nbenign/gone.png,g\n" + "".join(lines))
        assert {case["patient"] for case in dce_us.index(busi)} == {"g"}


class TestCheck:
    def test_sound_pairs_give_no_finding(self, paired):
        assert kinds(paired) == []

    def test_sound_busi_gives_notes_and_tells_of_a_repeat_in_another_class(self, busi):
        assert kinds(busi) == SOUND_BUSI
        (groups,) = (f.message for f in dce_us.check(busi, workers=1) if f.kind == "groups")
        assert "4 images form 3 groups" in groups

    def test_workers_find_the_same(self, busi):
        assert dce_us.check(busi, workers=2) == dce_us.check(busi, workers=1)

    @pytest.mark.parametrize("part", ["images", "masks"])
    @pytest.mark.parametrize("share", [0, 0.5, 0.9])
    def test_a_file_cut_off_is_an_error(self, paired, part, share):
        path = paired / part / "Patient001_img1.png"
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        assert kinds(paired) == [("error", "unreadable", "Patient001_img1", f"{part}/Patient001_img1.png")]

    @pytest.mark.parametrize("part", ["images", "masks"])
    def test_a_flipped_bit_is_an_error(self, paired, part):
        path = paired / part / "Patient001_img1.png"
        content = bytearray(path.read_bytes())
        content[-20] ^= 1  # within the last checksum of the data
        path.write_bytes(content)
        assert kinds(paired) == [("error", "unreadable", "Patient001_img1", f"{part}/Patient001_img1.png")]

    def test_a_mask_of_another_size_is_an_error_that_names_both(self, paired):
        write(paired / "masks/Patient001_img1.png", lesion(97, 80))
        (finding,) = dce_us.check(paired, workers=1)
        assert (finding.severity, finding.kind, finding.case) == ("error", "size", "Patient001_img1")
        assert "96x80" in finding.message
        assert "97x80" in finding.message

    def test_the_second_mask_of_another_size_is_named(self, busi):
        write(busi / "benign/benign (2)_mask_1.png", lesion(80, 96))
        other = ("error", "size", "benign (2)", "benign/benign (2)_mask_1.png")
        assert kinds(busi) == [other, *SOUND_BUSI[:-1]]

    def test_a_mask_of_no_known_coding_is_an_error(self, paired):
        write(paired / "masks/Patient001_img1.png", lesion().point(lambda value: value // 100))
        (finding,) = dce_us.check(paired, workers=1)
        assert (finding.severity, finding.kind) == ("error", "labels")
        assert finding.message.startswith("expected 0 for background")

    def test_missing_partners_are_errors(self, paired):
        (paired / "masks/Patient001_img1.png").unlink()
        (paired / "images/Patient002_img1.png").unlink()
        assert kinds(paired) == [
            ("error", "missing", "Patient001_img1", "images/Patient001_img1.png"),
            ("error", "missing", "Patient002_img1", "masks/Patient002_img1.png"),
        ]

    def test_an_empty_mask_is_a_note_but_a_warning_where_a_lesion_is_said_to_be(self, paired, tmp_path):
        write(paired / "masks/Patient001_img1.png", Image.new("L", (96, 80)))
        assert kinds(paired) == [("note", "empty", "Patient001_img1", "masks/Patient001_img1.png")]

    def test_masks_of_busi_that_contradict_their_folder(self, busi):
        write(busi / "benign/benign (1)_mask.png", Image.new("1", (96, 80)))
        write(busi / "normal/normal (4)_mask.png", lesion())
        assert [found for found in kinds(busi) if found not in SOUND_BUSI] == [
            ("warning", "empty", "benign (1)", "benign/benign (1)_mask.png"),
            ("warning", "lesion", "normal (4)", "normal/normal (4)_mask.png"),
        ]

    def test_an_inverted_mask(self, paired):
        inverted = lesion().crop((28, 18, 62, 52)).resize((96, 80))
        write(paired / "masks/Patient001_img1.png", inverted.point(lambda value: 255))
        assert kinds(paired) == [("warning", "full", "Patient001_img1", "masks/Patient001_img1.png")]

    def test_a_name_that_is_not_ascii(self, paired):
        for part in ("images", "masks"):
            (paired / part / "Patient001_img1.png").rename(paired / part / "患者001_img1.png")
        assert kinds(paired) == [("note", "not-ascii", "患者001_img1", "images/患者001_img1.png")]

    def test_a_mask_that_was_a_jpeg(self, paired):
        write(paired / "masks/Patient001_img1.jpg", lesion())
        (paired / "masks/Patient001_img1.png").unlink()
        assert kinds(paired) == [("note", "grey", "Patient001_img1", "masks/Patient001_img1.jpg")]

    @pytest.mark.parametrize(
        ("mode", "severity"), [("L", None), ("P", "note"), ("RGBA", "note"), ("I;16", "warning")]
    )
    def test_modes(self, paired, mode, severity):
        image = picture(0)
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16))
        else:
            image = image.convert(mode)
        write(paired / "images/Patient001_img1.png", image)
        expected = [(severity, "mode", "Patient001_img1", "images/Patient001_img1.png")] if severity else []
        assert kinds(paired) == expected

    def test_small_and_blank_images(self, paired):
        write(paired / "images/Patient001_img1.png", picture(0, 200, 63))
        write(paired / "masks/Patient001_img1.png", lesion(200, 63))
        write(paired / "images/Patient001_img2.png", Image.new("RGB", (96, 80), (9, 9, 9)))
        assert kinds(paired) == [
            ("warning", "small", "Patient001_img1", "images/Patient001_img1.png"),
            ("warning", "blank", "Patient001_img2", "images/Patient001_img2.png"),
        ]

    def test_one_image_in_two_patients_is_an_error_and_a_similar_one_a_warning(self, paired):
        write(paired / "images/Patient002_img1.png", picture(0))
        write(paired / "images/Patient003_img2.png", picture(3).point(lambda value: value * 3 // 4))
        assert kinds(paired) == [
            ("error", "duplicate", "Patient002_img1", "images/Patient002_img1.png"),
            ("warning", "repeat", "Patient003_img2", "images/Patient003_img2.png"),
        ]

    def test_two_views_that_are_one(self, paired):
        write(paired / "images/Patient001_img2.png", picture(0))
        assert kinds(paired) == [("warning", "views", "Patient001_img2", "images/Patient001_img2.png")]

    def test_repeats_that_a_list_of_groups_lacks(self, busi):
        images = sorted(p.relative_to(busi).as_posix() for p in busi.glob("*/*.png") if "_mask" not in p.name)
        lines = [f"{image},g{number}\n" for number, image in enumerate(images)]
        (busi / "groups.csv").write_text("image,group\n" + "".join(lines))
        repeat = ("warning", "repeat", "malignant (3)", "malignant/malignant (3).png")
        assert kinds(busi) == [SOUND_BUSI[0], repeat, *SOUND_BUSI[2:]]


def write_split(path, *groups):
    path.write_text(json.dumps({"folds": groups}))
    return path


class TestSplit:
    def test_a_split_of_groups_is_sound(self, busi, tmp_path):
        split = write_split(tmp_path / "split.json", ["benign (1)", "normal (4)"], ["benign (2)"])
        assert kinds(busi, split=split) == SOUND_BUSI

    def test_a_split_of_images_that_divides_a_group(self, busi, tmp_path):
        split = write_split(
            tmp_path / "split.json", ["benign (1)", "normal (4)"], ["benign (2)", "malignant (3)"]
        )
        errors = [found for found in kinds(busi, split=split) if found not in SOUND_BUSI]
        assert errors == [
            ("error", "absent", "malignant (3)", "split.json"),
            ("error", "divided", "malignant (3)", "split.json"),
        ]

    def test_a_patient_in_two_folds_or_in_none(self, paired, tmp_path):
        split = write_split(tmp_path / "split.json", ["Patient001", "Patient002"], ["Patient002"])
        assert kinds(paired, split=split) == [
            ("error", "no-fold", "", "split.json"),
            ("error", "two-folds", "Patient002", "split.json"),
        ]

    def test_near_identical_images_of_two_patients_in_different_folds(self, paired, tmp_path):
        write(paired / "images/Patient003_img2.png", picture(3).point(lambda value: value * 3 // 4))
        split = write_split(tmp_path / "split.json", ["Patient001", "Patient002"], ["Patient003"])
        assert kinds(paired, split=split) == [
            ("error", "divided", "Patient003_img2", "split.json"),
            ("warning", "repeat", "Patient003_img2", "images/Patient003_img2.png"),
        ]
        together = write_split(tmp_path / "split.json", ["Patient001"], ["Patient002", "Patient003"])
        assert [found[:2] for found in kinds(paired, split=together)] == [("warning", "repeat")]


def test_the_phantom_is_indexed_and_sound(tmp_path):
    dce_us.phantom(tmp_path / "phantom", cases=3, size=128, progress=False)
    found = dce_us.index(tmp_path / "phantom")
    assert len(found) == 6
    assert len({case["patient"] for case in found}) == 3
    findings = dce_us.check(tmp_path / "phantom", workers=1)
    assert [f for f in findings if f.severity != "note"] == []


def test_data_beside_a_phantom_is_no_part_of_it(tmp_path):
    dce_us.phantom(tmp_path, cases=1, size=128, progress=False)
    for part in ("images", "masks"):
        shutil.copy(tmp_path / part / "Patient001_img1.png", tmp_path / part / "Patient9_img1.png")
    with pytest.raises(
        DataError, match=r"folder of its own, found 2 files beside those of a phantom.*Patient9"
    ):
        dce_us.index(tmp_path)
    assert ("error", "phantom", "", "images/Patient9_img1.png") in kinds(tmp_path)
    assert len(dce_us.index(tmp_path, labelled=False)) == 3  # to segment them all does no harm


def test_each_fault_of_the_phantom_is_found_and_no_other(tmp_path):
    root = tmp_path / "phantom"
    dce_us.phantom(root, cases=3, size=128, faults=True, progress=False)
    faults = json.loads((root / "PHANTOM.json").read_text())["faults"]
    assert set(kinds(root)) == {
        tuple(fault[key] for key in ("severity", "kind", "case", "file")) for fault in faults
    }


@pytest.mark.skipif(not BUSI.is_dir(), reason="the real ultrasound images are not here")
class TestRealBusi:
    def test_index_honours_the_list_of_groups(self):
        found = dce_us.index(BUSI)
        assert len(found) == 605
        assert len({case["patient"] for case in found}) == 471
        several = [case["label"] for case in found if isinstance(case["label"], list)]
        assert sorted(map(len, several)) == [2] * 14 + [3]
        assert len(dce_us.index(BUSI, normal=False)) == 334 + 163

    def test_every_mask_fits_and_only_normal_ones_are_empty(self):
        for case in dce_us.index(BUSI)[::6]:
            with Image.open(case["image"]) as image:
                size = image.height, image.width
            files = case["label"] if isinstance(case["label"], list) else [case["label"]]
            mask = masks.join({file: masks.read(file) for file in files}, size)
            assert mask.any() != case["case"].startswith("normal")


def test_a_case_is_read_as_grey_levels_with_its_lesions(busi):
    values, truth, spacing = dce_us.read(dce_us.index(busi)[1], [1])
    np.testing.assert_array_equal(values, np.asarray(picture(1))[..., 0])
    expected = np.zeros((80, 96), bool)
    expected[20:50, 30:60] = expected[20:50, 70:80] = True
    np.testing.assert_array_equal(truth, expected)
    assert spacing == (1, 1)
    assert dce_us.LEVELS[1:] == (0, 255)

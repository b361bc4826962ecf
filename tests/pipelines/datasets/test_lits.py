from __future__ import annotations

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from pipelines.datasets import lits
from pipelines.errors import DataError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def raw(root, *numbers):
    for number in numbers:
        touch(root, f"volume-{number}.nii", f"segmentation-{number}.nii")


class TestIndex:
    def test_the_download_is_sorted_by_number_across_its_folders(self, tmp_path):
        raw(tmp_path / "Training Batch 2", 100, 28)
        touch(tmp_path, "Training Batch 1/volume-3.nii.gz", "Training Batch 1/segmentation-3.nii")
        touch(tmp_path, "Training Batch 1/._volume-3.nii", "readme.txt", "test/test-volume-28.nii")
        found = lits.index(tmp_path)
        assert [case["case"] for case in found] == ["volume-3", "volume-28", "volume-100"]
        assert found[0] == {
            "case": "volume-3",
            "patient": "3",
            "image": str(tmp_path / "Training Batch 1" / "volume-3.nii.gz"),
            "label": str(tmp_path / "Training Batch 1" / "segmentation-3.nii"),
        }

    def test_without_labels_every_volume_is_listed_and_a_test_volume_is_another_patient(self, tmp_path):
        raw(tmp_path, 10, 9)
        touch(tmp_path, "test-volume-9.nii", "volume-11.nii")
        found = lits.index(tmp_path, labelled=False)
        assert [case["case"] for case in found] == ["volume-9", "volume-10", "volume-11", "test-volume-9"]
        assert [case["patient"] for case in found] == ["9", "10", "11", "test-9"]
        assert all(set(case) == {"case", "patient", "image"} for case in found)

    @pytest.mark.parametrize("below", ["", "Task03_Liver"])
    @pytest.mark.parametrize("listing", [True, False])
    @pytest.mark.parametrize("as_dict", [True, False])
    def test_the_decathlons_layout(self, tmp_path, below, listing, as_dict):
        folder = tmp_path / below
        for number in (10, 2):
            touch(folder, f"imagesTr/liver_{number}.nii.gz", f"labelsTr/liver_{number}.nii.gz")
            touch(folder, f"imagesTr/._liver_{number}.nii.gz")
        touch(folder, "imagesTs/liver_132.nii.gz", "imagesTs/._liver_132.nii.gz")
        if listing:
            pairs = [
                {"image": f"./imagesTr/liver_{n}.nii.gz", "label": f"./labelsTr/liver_{n}.nii.gz"}
                for n in (10, 2)
            ]
            test = "./imagesTs/liver_132.nii.gz"
            content = {"training": pairs, "test": [{"image": test} if as_dict else test]}
            (folder / "dataset.json").write_text(json.dumps(content))
        found = lits.index(tmp_path)
        assert [(case["case"], case["patient"]) for case in found] == [("liver_2", "2"), ("liver_10", "10")]
        assert found[0]["image"] == str(folder / "imagesTr" / "liver_2.nii.gz")
        assert found[0]["label"] == str(folder / "labelsTr" / "liver_2.nii.gz")
        everything = lits.index(tmp_path, labelled=False)
        assert [case["case"] for case in everything] == ["liver_2", "liver_10", "liver_132"]

    def test_only_what_the_listing_names_is_taken(self, tmp_path):
        raw_pairs = [{"image": "./imagesTr/liver_1.nii.gz", "label": "./labelsTr/liver_1.nii.gz"}]
        for number in (1, 2):
            touch(tmp_path, f"imagesTr/liver_{number}.nii.gz", f"labelsTr/liver_{number}.nii.gz")
        (tmp_path / "dataset.json").write_text(json.dumps({"training": raw_pairs, "test": []}))
        assert [case["case"] for case in lits.index(tmp_path)] == ["liver_1"]

    @pytest.mark.parametrize(
        "content", ["{", "[]", "{}", '{"training": [{"image": "a"}]}', '{"training": 3}']
    )
    def test_a_broken_listing_is_named(self, tmp_path, content):
        touch(tmp_path, "imagesTr/liver_1.nii.gz")
        (tmp_path / "dataset.json").write_text(content)
        with pytest.raises(DataError, match=r"dataset\.json"):
            lits.index(tmp_path)

    def test_a_listed_file_that_is_absent_is_named(self, tmp_path):
        pairs = [{"image": "./imagesTr/liver_1.nii.gz", "label": "./labelsTr/liver_1.nii.gz"}]
        touch(tmp_path, "imagesTr/liver_1.nii.gz")
        (tmp_path / "dataset.json").write_text(json.dumps({"training": pairs}))
        with pytest.raises(DataError, match=r"labelsTr/liver_1\.nii\.gz.*no such file"):
            lits.index(tmp_path)

    @pytest.mark.parametrize("there", [True, False])
    def test_no_data_tells_what_was_looked_for_and_where_to_get_it(self, tmp_path, there):
        root = tmp_path / "data"
        if there:
            touch(root, "image.png")
        with pytest.raises(DataError) as error:
            lits.index(root)
        message = str(error.value)
        for part in (
            "volume-N.nii",
            "imagesTr",
            str(root),
            "featherseg phantom lits",
            "CodaLab",
            "decathlon",
        ):
            assert part in message
        assert "\n" not in message

    def test_test_volumes_alone_are_no_training_data(self, tmp_path):
        touch(tmp_path, "test-volume-0.nii")
        with pytest.raises(DataError, match="only test volumes"):
            lits.index(tmp_path)
        assert len(lits.index(tmp_path, labelled=False)) == 1

    @pytest.mark.parametrize("lacks", ["segmentation", "volume"])
    def test_a_missing_partner_is_named(self, tmp_path, lacks):
        raw(tmp_path, 1, 2)
        (tmp_path / f"{lacks}-2.nii").unlink()
        with pytest.raises(DataError, match=rf"a {lacks} for \w+-2\.nii.*featherseg check lits {tmp_path}"):
            lits.index(tmp_path)

    @pytest.mark.parametrize("labelled", [True, False])
    def test_a_number_that_occurs_twice_names_both_files(self, tmp_path, labelled):
        raw(tmp_path, 1)
        touch(tmp_path, "copy/volume-1.nii.gz")
        with pytest.raises(DataError, match=r"volume-1\.nii and copy/volume-1\.nii\.gz"):
            lits.index(tmp_path, labelled)


@pytest.fixture
def pair():
    """A sound volume and segmentation of a few voxels, 2 x 2 x 5 mm."""
    random = np.random.default_rng(0)
    volume = random.integers(-1000, 400, (12, 10, 8)).astype(np.int16)
    mask = np.zeros(volume.shape, np.uint8)
    mask[2:9, 2:8, 1:7] = 1
    mask[4:6, 4:6, 3:5] = 2
    return volume, mask, np.array([[-2, 0, 0, 90], [0, -2, 0, 80], [0, 0, 5, -300], [0, 0, 0, 1.0]])


def write(root, volume, mask, affine, number=0, mask_affine=None):
    nib.save(nib.Nifti1Image(volume, affine), root / f"volume-{number}.nii.gz")
    nib.save(
        nib.Nifti1Image(mask, affine if mask_affine is None else mask_affine),
        root / f"segmentation-{number}.nii",
    )


def kinds(root, **options):
    return [(f.severity, f.kind, f.case, f.file) for f in lits.check(root, workers=1, **options)]


class TestCheck:
    """What the phantom's faults do not show; those are checked in test_lits_faults.py."""

    def test_sound_data_gives_no_finding(self, tmp_path, pair):
        write(tmp_path, *pair)
        assert kinds(tmp_path) == []

    def test_a_float_mask_with_lossy_labels_is_sound(self, tmp_path, pair):
        volume, mask, affine = pair
        write(tmp_path, volume, mask.astype(np.float32) * np.float32(0.9999999), affine)
        assert kinds(tmp_path) == []

    def test_a_test_volume_is_read_but_needs_no_segmentation(self, tmp_path, pair):
        volume, mask, affine = pair
        write(tmp_path, volume, mask, affine)
        volume = volume.astype(np.float32)[::-1]
        volume[0] = np.nan
        nib.save(nib.Nifti1Image(volume, affine), tmp_path / "test-volume-0.nii")
        assert kinds(tmp_path) == [("error", "nonfinite", "test-volume-0", "test-volume-0.nii")]

    @pytest.mark.parametrize(
        ("shift", "severity"), [(1e-4, None), (0.02, "warning"), (1.9, "warning"), (2.1, "error")]
    )
    def test_an_affine_is_judged_in_voxels(self, tmp_path, pair, shift, severity):
        moved = pair[2].copy()
        moved[0, 3] += shift  # mm, where a voxel has 2
        write(tmp_path, *pair, mask_affine=moved)
        expected = [(severity, "affine", "volume-0", "segmentation-0.nii")] if severity else []
        assert kinds(tmp_path) == expected

    def test_a_duplicate_is_found_across_dtype_and_test_set(self, tmp_path, pair):
        write(tmp_path, *pair)
        nib.save(nib.Nifti1Image(pair[0].astype(np.float64), pair[2]), tmp_path / "test-volume-7.nii")
        assert kinds(tmp_path) == [("error", "duplicate", "volume-0", "volume-0.nii.gz")]

    def test_labels_are_named(self, tmp_path, pair):
        volume, mask, affine = pair
        mask = mask.astype(np.int16)
        mask[0, 0, :6] = (3, 4, 5, 6, 7, -1)
        write(tmp_path, volume, mask, affine)
        (finding,) = lits.check(tmp_path, workers=1)
        assert (finding.severity, finding.kind) == ("error", "labels")
        assert "found -1, 3, 4, 5, 6, ... as well" in finding.message

    @pytest.mark.parametrize("change", [lambda v: v * 0, lambda v: v + 1024, lambda v: v / 4096])
    def test_intensities_that_are_not_hu(self, tmp_path, pair, change):
        volume, mask, affine = pair
        write(tmp_path, change(volume.astype(np.float32)), mask, affine)
        assert kinds(tmp_path) == [("warning", "intensity", "volume-0", "volume-0.nii.gz")]

    def test_a_liver_without_a_lesion_and_an_empty_mask(self, tmp_path, pair):
        volume, mask, affine = pair
        write(tmp_path, volume, mask.clip(0, 1), affine, 0)
        write(tmp_path, volume + 1, mask * 0, affine, 1)
        assert kinds(tmp_path) == [
            ("warning", "no-liver", "volume-1", "segmentation-1.nii"),
            ("note", "no-lesion", "volume-0", "segmentation-0.nii"),
        ]

    def test_a_size_far_from_the_others_is_measured_along_the_patients_axes(self, tmp_path, pair):
        volume, mask, affine = pair
        for number in range(6):
            write(tmp_path, np.roll(volume, number, 0), mask, affine, number)
        turned = [np.moveaxis(array, 2, 0) for array in (np.roll(volume, 6, 0), mask)]
        write(tmp_path, *turned, affine[:, [2, 0, 1, 3]], 6)
        assert kinds(tmp_path) == []
        wide = np.kron(np.roll(volume, 7, 0), np.ones((2, 1, 1), np.int16))
        write(tmp_path, wide, np.kron(mask, np.ones((2, 1, 1), np.uint8)), affine, 7)
        assert kinds(tmp_path) == [("warning", "outlier", "volume-7", "volume-7.nii.gz")]

    def test_all_of_a_case_is_reported_and_the_worst_first(self, tmp_path, pair):
        volume, mask, _ = pair
        volume[0, 0, 0] = -3000
        write(tmp_path, volume, (mask > 1).astype(np.uint8) * 255, np.eye(4))
        assert [found[:2] for found in kinds(tmp_path)] == [
            ("error", "labels"),
            ("note", "identity"),
            ("note", "padding"),
        ]

    def test_the_decathlons_layout_is_read_as_well(self, tmp_path, pair):
        volume, mask, affine = pair
        for name in ("imagesTr", "labelsTr"):
            (tmp_path / "Task03_Liver" / name).mkdir(parents=True)
        nib.save(nib.Nifti1Image(volume, affine), tmp_path / "Task03_Liver/imagesTr/liver_5.nii.gz")
        nib.save(nib.Nifti1Image(mask * 100, affine), tmp_path / "Task03_Liver/labelsTr/liver_5.nii.gz")
        (tmp_path / "Task03_Liver/imagesTr/._liver_5.nii.gz").write_bytes(b"Mac OS X")
        assert kinds(tmp_path) == [("error", "labels", "liver_5", "Task03_Liver/labelsTr/liver_5.nii.gz")]

    def test_a_listed_pair_that_is_absent_is_one_error_a_file(self, tmp_path, pair):
        volume, _, affine = pair
        for name in ("imagesTr", "labelsTr"):
            (tmp_path / name).mkdir()
        nib.save(nib.Nifti1Image(volume, affine), tmp_path / "imagesTr/liver_5.nii.gz")
        entry = {"image": "./imagesTr/liver_5.nii.gz", "label": "./labelsTr/liver_5.nii.gz"}
        (tmp_path / "dataset.json").write_text(json.dumps({"training": [entry]}))
        assert kinds(tmp_path) == [("error", "missing", "liver_5", "labelsTr/liver_5.nii.gz")]

    def test_no_data_is_an_error_of_its_own(self, tmp_path):
        with pytest.raises(DataError, match="featherseg phantom lits"):
            lits.check(tmp_path)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("volume-77.nii.gz", "segmentation-77.nii.gz"),
        ("Task03_Liver/imagesTr/liver_7.nii.gz", "Task03_Liver/labelsTr/liver_7.nii.gz"),
    ],
)
def test_data_beside_a_phantom_is_no_part_of_it(tmp_path, image, label):
    lits.phantom(tmp_path, cases=1, size=48)
    sound = lits.index(tmp_path)[0]
    for name, source in ((image, sound["image"]), (label, sound["label"])):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, tmp_path / name)
    with pytest.raises(DataError, match="folder of its own, found 2 files beside those of a phantom"):
        lits.index(tmp_path)
    assert any(f[:2] == ("error", "phantom") for f in kinds(tmp_path))
    assert lits.index(tmp_path, labelled=False)  # to segment them all does no harm


def test_a_case_is_read_in_hu_with_its_tumours(tmp_path):
    lits.phantom(tmp_path, cases=1, size=48)
    case = lits.index(tmp_path)[0]
    hu, truth, spacing = lits.read(case, [2])
    image, label = (sitk.ReadImage(case[key]) for key in ("image", "label"))
    np.testing.assert_array_equal(hu, sitk.GetArrayFromImage(image).T)
    np.testing.assert_array_equal(truth, sitk.GetArrayFromImage(label).T == 2)
    assert truth.any()
    assert spacing == pytest.approx(image.GetSpacing())
    assert lits.LEVELS == ("HU", -100, 200)

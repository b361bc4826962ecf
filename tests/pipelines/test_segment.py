import gzip
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from monai.transforms import LoadImage
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from pipelines.cases import READERS
from pipelines.errors import DataError
from pipelines.segment import MaskWriter, inputs, write_mask
from pipelines.sequence_reader import SequenceReader
from tests.conftest import write_volume


def write_series(folder, slices=6, modality="CT", series=None, skip=()):
    """A DICOM series of 8 x 10 pixels, 0.7 x 0.8 x 2.5 mm, without file name extensions."""
    folder.mkdir(exist_ok=True)
    series = series or generate_uid()
    for z in range(slices):
        if z in skip:
            continue
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid()
        ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = "1.2.3", series, modality
        ds.PatientName, ds.PatientID = "Doe^Jane", "4711"
        ds.Rows, ds.Columns, ds.PixelSpacing = 8, 10, [0.8, 0.7]
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [-30, 12, 5 + 2.5 * z], [1, 0, 0, 0, 1, 0]
        ds.InstanceNumber, ds.SamplesPerPixel, ds.PhotometricInterpretation = z + 1, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleSlope, ds.RescaleIntercept, ds.SliceThickness = 1, -1024, 2.5
        ds.PixelData = np.full((8, 10), 100 * z, np.int16).tobytes()
        ds.save_as(folder / f"IM{z}", enforce_file_format=True)
    return folder


def test_a_file_and_a_folder_of_volumes(tmp_path):
    for name in ("b.nii", "a.nii.gz"):
        write_volume(tmp_path / name, np.zeros((4, 4, 4), np.int16))
    (tmp_path / "._a.nii.gz").touch()
    found = inputs(tmp_path, "CT", "lits")
    assert [case["case"] for case in found] == ["a", "b"]
    assert inputs(tmp_path / "b.nii", "CT", "lits") == [{"image": str(tmp_path / "b.nii"), "case": "b"}]


def test_a_dataset_in_its_own_layout_gives_its_images_and_not_its_masks(tmp_path):
    for name in ("volume-0.nii", "segmentation-0.nii", "test-volume-3.nii"):
        write_volume(tmp_path / name, np.zeros((4, 4, 4), np.int16))
    assert [case["case"] for case in inputs(tmp_path, "CT", "lits")] == ["volume-0", "test-volume-3"]


def test_a_stranger_among_a_datasets_volumes_is_not_passed_over(tmp_path):
    for name in ("volume-0.nii", "patient.nii"):
        write_volume(tmp_path / name, np.zeros((4, 4, 4), np.int16))
    with pytest.raises(DataError, match=r"found both, such as .*patient.nii; put them into folders"):
        inputs(tmp_path, "CT", "lits")


def test_a_dicom_series_gives_a_case_that_names_no_patient(tmp_path):
    folder = write_series(tmp_path / "DOE_JANE")
    assert inputs(folder, "CT", "lits") == [{"image": str(folder), "case": "series"}]


def four_files(folder, skip=()):
    """An examination of FLAIR and T2w on one grid, T1w and T1gd on another."""
    folder.mkdir()
    for name, shape in (("flair", (6, 8, 5)), ("t1", (8, 7, 5)), ("t1gd", (8, 7, 5)), ("t2", (6, 8, 5))):
        if name not in skip:
            write_volume(folder / f"DOE_JANE_{name}.nii.gz", np.ones(shape, np.int16))
    return folder


def test_four_files_are_one_case_and_its_mask_lies_on_the_grid_of_their_reference(tmp_path):
    folder = four_files(tmp_path / "DOE_JANE")
    (case,) = inputs(folder, "MR", "brain_tumour")
    assert case["case"] == "examination"
    original = LoadImage(reader=SequenceReader(quiet=True), ensure_channel_first=True)(case["image"])
    write_mask(np.ones((8, 7, 5), np.uint8), original, tmp_path / "mask.nii.gz")
    same_grid(folder / "DOE_JANE_t1gd.nii.gz", tmp_path / "mask.nii.gz")


def test_an_incomplete_examination_is_not_taken_for_loose_volumes(tmp_path):
    with pytest.raises(DataError, match="expected a T1w sequence"):
        inputs(four_files(tmp_path / "a", skip=["t1"]), "MR", "brain_tumour")
    also = four_files(tmp_path / "b")
    write_volume(also / "other.nii.gz", np.ones((4, 4, 4), np.int16))
    with pytest.raises(DataError, match=r"found both, such as .*other\.nii\.gz"):
        inputs(also, "MR", "brain_tumour")


def test_what_cannot_be_segmented_is_named(tmp_path):
    (tmp_path / "x.png").touch()
    with pytest.raises(DataError, match=r"expected a NIfTI file .* found .*x.png; for DICOM give the folder"):
        inputs(tmp_path / "x.png", "CT", "lits")
    with pytest.raises(DataError, match="found nothing there; see --dataset_dir"):
        inputs(tmp_path / "none", "CT", "lits")
    with pytest.raises(DataError, match="found no series"):
        inputs(tmp_path, "CT", "lits")
    with pytest.raises(DataError, match=r"a series of modality CT in .*mr, found MR"):
        inputs(write_series(tmp_path / "mr", modality="MR"), "CT", "lits")
    with pytest.raises(DataError, match=r"evenly spaced slices in .*gap, found steps from 2.50 to 5.00 mm"):
        inputs(write_series(tmp_path / "gap", skip=[2]), "CT", "lits")
    two = write_series(tmp_path / "two")
    for path in list(two.iterdir()):
        path.rename(path.with_name(f"a{path.name}"))
    with pytest.raises(DataError, match="found 2 series; put each series into a folder of its own"):
        inputs(write_series(two), "CT", "lits")
    for name in ("a.nii", "a.nii.gz"):
        write_volume(tmp_path / name, np.zeros((4, 4, 4), np.int16))
    with pytest.raises(DataError, match=r"once, found some as .nii and as .nii.gz"):
        inputs(tmp_path, "CT", "lits")


def same_grid(one, other):
    """SimpleITK reads both files by its own code."""
    one, other = sitk.ReadImage(str(one)), sitk.ReadImage(str(other))
    assert one.GetSize() == other.GetSize()
    for get in ("GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(one, get)() == getattr(other, get)()


@pytest.mark.parametrize("codes", [(1, 1), (0, 1), (1, 0), (0, 0)])
def test_a_mask_has_the_geometry_of_its_nifti_image_to_the_bit(tmp_path, codes):
    turn = np.array([[0.8, -0.6, 0, 3], [0.6, 0.8, 0, -7], [0, 0, -1, 11], [0, 0, 0, 1]])
    image = nib.Nifti1Image(np.zeros((5, 6, 7), np.float32), turn @ np.diag([0.7, 0.9, 2.5, 1]))
    image.set_qform(image.affine, codes[0])
    image.set_sform(image.affine, codes[1])
    image.header["descrip"] = b"Doe^Jane"
    nib.save(image, tmp_path / "volume.nii.gz")
    original = LoadImage(reader=READERS, ensure_channel_first=True)(tmp_path / "volume.nii.gz")
    mask = np.zeros((5, 6, 7), np.uint8)
    mask[1, 2, 3] = 1
    write_mask(mask, original, tmp_path / "mask.nii.gz")
    same_grid(tmp_path / "volume.nii.gz", tmp_path / "mask.nii.gz")
    written = nib.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(np.asarray(written.dataobj), mask)
    assert written.get_data_dtype() == np.uint8
    assert b"Doe" not in gzip.decompress((tmp_path / "mask.nii.gz").read_bytes())
    with pytest.raises(DataError, match=r"expected a mask of shape \(5, 6, 7\), found \(5, 6, 8\)"):
        write_mask(np.zeros((5, 6, 8), np.uint8), original, tmp_path / "mask.nii.gz")


def test_a_mask_lies_on_the_grid_of_its_dicom_series(tmp_path):
    folder = write_series(tmp_path / "DOE_JANE")
    original = LoadImage(reader=READERS, ensure_channel_first=True)(str(folder))
    mask = np.zeros(original.shape[1:], np.uint8)
    mask[9, 0, 5] = 1
    engine = SimpleNamespace(
        state=SimpleNamespace(
            batch=[{"case": "series", "original": original}],
            output=[{"pred": torch.from_numpy(mask[None].astype(np.float32))}],
        )
    )
    MaskWriter(tmp_path / "out", display_range=(-1024, 0))(engine)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "series_mask.nii.gz",
        "series_mask.png",
    ]
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    series = reader.Execute()
    written = sitk.ReadImage(str(tmp_path / "out" / "series_mask.nii.gz"))
    assert written.GetSize() == series.GetSize()
    for get in ("GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(written, get)() == pytest.approx(getattr(series, get)(), abs=1e-5)
    # The voxel that was set is the last column of the first row of the last slice: read both by SimpleITK.
    found = np.argwhere(sitk.GetArrayFromImage(written))
    assert found.tolist() == [[5, 0, 9]]
    assert sitk.GetArrayFromImage(series)[5, 0, 9] == 500 - 1024
    assert pydicom.dcmread(folder / "IM5").PatientName == "Doe^Jane"
    assert b"Doe" not in gzip.decompress((tmp_path / "out" / "series_mask.nii.gz").read_bytes())

import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from monai.transforms import LoadImage

from pipelines.dicom_source import read_source
from pipelines.errors import DataError
from tests.pipelines import mammogram_files
from tests.pipelines.dicom_pictures import PATIENT as ULTRASOUND_PATIENT
from tests.pipelines.dicom_pictures import colours, write_dicom
from tests.pipelines.dicom_volumes import AXIAL, SECRETS, oblique, write_series

STORED = np.arange(6 * 8 * 10, dtype=np.int16).reshape(6, 8, 10)
UIDS = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"}
FLIPPED = ((1, 0, 0), (0, -1, 0))  # stacked from head to feet


@pytest.mark.parametrize("directions", [AXIAL, FLIPPED, ((0, 1, 0), (0, 0, -1)), oblique()])
def test_a_series_has_the_order_and_the_affine_that_readers_of_volumes_give_it(tmp_path, directions):
    folder = write_series(tmp_path / "a", STORED, directions=directions)
    found = read_source(folder)
    assert found.size == (10, 8, 6)
    volume = LoadImage(reader="ITKReader")(folder)
    assert np.allclose(found.affine, volume.affine, atol=1e-5)
    for place, file in enumerate(found.files):
        assert np.array_equal(pydicom.dcmread(file).pixel_array.T - 1024, volume[..., place])
    shuffled = read_source(sorted(folder.iterdir(), key=lambda file: file.name[::-1]))
    assert shuffled.files == found.files


def test_uneven_steps_and_a_tilted_gantry_have_the_affine_of_itk(tmp_path):
    folder = write_series(tmp_path / "a", STORED)
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        z = dataset.ImagePositionPatient[2]
        dataset.ImagePositionPatient = [-30, 12 + 0.3 * z, z + (0.4 if z == 7.5 else 0)]
        dataset.save_as(file)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    found = read_source(folder)
    assert np.linalg.norm(found.affine[:3, 2]) == pytest.approx(reader.Execute().GetSpacing()[2])


def test_pictures_and_clips_lie_nowhere_in_space(tmp_path):
    write_dicom(tmp_path / "us.dcm", colours(24, 32), **UIDS)
    assert read_source(tmp_path / "us.dcm").size == (32, 24)
    clip = np.stack([colours(24, 32)] * 5)
    write_dicom(tmp_path / "clip.dcm", clip, NumberOfFrames=5, ImagePositionPatient=[0, 0, 0], **UIDS)
    assert read_source(tmp_path / "clip.dcm").size == (32, 24, 5)
    mammogram_files.write(tmp_path / "mg.dcm", **UIDS)
    found = read_source(tmp_path / "mg.dcm")
    assert (found.size, found.affine) == ((mammogram_files.WIDTH, mammogram_files.HEIGHT), None)


def test_hidden_files_and_others_in_a_folder_do_not_count(tmp_path):
    folder = write_series(tmp_path / "a", STORED)
    shutil.copy(folder / "IM000", folder / ".IM000")
    shutil.copy(folder / "IM000", folder / "DICOMDIR")
    (folder / "notes.txt").write_text("none of it")
    assert len(read_source(folder).files) == 6


def test_nothing_of_the_patient_is_read(tmp_path):
    found = read_source(write_series(tmp_path / "a", STORED))
    text = "".join(map(str, found.headers))
    assert not [value for value in SECRETS if value in text]


def changed(file, **elements):
    dataset = pydicom.dcmread(file)
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Modality": None}, "expected images of modality CT, MR, MG, US, found None"),
        ({"Modality": "PT"}, "expected images of modality CT, MR, MG, US, found PT"),
        (
            {"SeriesInstanceUID": "1.2.9"},
            "expected the images of one series, found 2; put each series into a",
        ),
        ({"StudyInstanceUID": "1.2.9"}, "expected the images of one study, found 2"),
        ({"StudyInstanceUID": None}, "expected StudyInstanceUID, by which DICOM objects refer to an image"),
        ({"Rows": 9}, "the slices of a series alike, found 2 sizes; export it without its localizer"),
        ({"FrameOfReferenceUID": "1.2.9"}, "alike, found 2 frames of reference"),
        ({"FrameOfReferenceUID": None}, "says where it lies, found none with FrameOfReferenceUID"),
        ({"ImagePositionPatient": None}, "says where it lies, found none with ImagePositionPatient"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, 1]}, "alike, found several orientations"),
        ({"NumberOfFrames": 3}, "says where it lies, found 3 frames in one"),
        ({"ImagePositionPatient": [-30, 12, 5.1]}, "expected evenly spaced slices in .*, found steps from"),
    ],
)
def test_what_is_no_series_is_told_in_one_line(tmp_path, change, message):
    folder = write_series(tmp_path / "a", STORED)
    files = read_source(folder).files
    for file in files if "Modality" in change else files[1:2]:
        changed(file, **change)
    with pytest.raises(DataError, match=message) as error:
        read_source(folder)
    assert "\n" not in str(error.value)
    assert not [value for value in SECRETS if value in str(error.value)]


def test_missing_slices_two_pictures_and_no_files_are_told(tmp_path):
    with pytest.raises(
        DataError, match=r"found steps from 2.50 to 5.00 mm; a slice is missing or there twice"
    ):
        read_source(write_series(tmp_path / "gap", STORED, skip=[2]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"expected the DICOM files of a series in .*empty, found none"):
        read_source(tmp_path / "empty")
    with pytest.raises(DataError, match="found no such file"):
        read_source(tmp_path / "none.dcm")
    (tmp_path / "text.dcm").write_text("no DICOM")
    with pytest.raises(DataError, match="expected a whole DICOM file, found one that is not"):
        read_source(tmp_path / "text.dcm")
    for name in ("a", "b"):
        write_dicom(tmp_path / f"{name}.dcm", colours(24, 32), **UIDS)
    with pytest.raises(DataError, match="expected one file of modality US, found 2; give them one by one"):
        read_source([tmp_path / "a.dcm", tmp_path / "b.dcm"])
    with pytest.raises(DataError, match="expected one mammogram, found 3 frames; give a plain or a syn"):
        read_source(mammogram_files.write(tmp_path / "tomo.dcm", NumberOfFrames=3, **UIDS))
    with pytest.raises(DataError, match="expected StudyInstanceUID") as error:
        read_source(write_dicom(tmp_path / "c.dcm", colours(24, 32)))
    assert not [value for value in ULTRASOUND_PATIENT if value in str(error.value)]

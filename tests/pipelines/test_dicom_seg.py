import logging
import shutil
import subprocess
import warnings

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from monai.transforms import LoadImage, Orientation
from monai.utils import optional_import
from pydicom import uid
from pydicom.pixels import pixel_array

from pipelines import dicom_encoding
from pipelines.dicom_encoding import Segment
from pipelines.dicom_seg import read_seg, write_seg
from pipelines.errors import DataError
from pipelines.mammogram_reader import MammogramReader
from pipelines.picture_reader import PictureReader
from tests.conftest import SHARED
from tests.pipelines import mammogram_files
from tests.pipelines.dicom_pictures import PATIENT as ULTRASOUND_PATIENT
from tests.pipelines.dicom_pictures import colours, write_dicom
from tests.pipelines.dicom_volumes import AXIAL, SECRETS, oblique, write_series

TUMOUR = Segment(
    "tumour",
    ("49755003", "SCT", "Morphologically Altered Structure"),
    ("108369006", "SCT", "Neoplasm"),
    "FeatherSeg LiTS",
    "0.1.0",
    anatomy=("10200004", "SCT", "Liver"),
    weights="0123456789ab",
)
UIDS = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "StudyDate": "20240229"}


def ball(slices=7, rows=16, columns=20):
    """Stored values of a CT that are high within a ball, off its centre and not in every slice."""
    z, y, x = np.mgrid[:slices, :rows, :columns]
    inside = ((z - 2) / 1.7) ** 2 + ((y - 6) / 4) ** 2 + ((x - 12) / 3) ** 2 < 1
    inside[2, 0, 1] = True
    return np.where(inside, 1000, 3 * x + y).astype(np.int16)


def bits(seg, number):
    """A frame of a SEG, unpacked from its bytes here: (rows, columns), bool."""
    size = seg.Rows * seg.Columns
    every = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    return every[number * size : (number + 1) * size].reshape(seg.Rows, seg.Columns).astype(bool)


def sources_of(seg):
    """The UID of the image that each frame says it was made of, and the frame in it."""
    images = [
        group.DerivationImageSequence[0].SourceImageSequence[0]
        for group in seg.PerFrameFunctionalGroupsSequence
    ]
    return [(one.ReferencedSOPInstanceUID, one.get("ReferencedFrameNumber")) for one in images]


@pytest.mark.parametrize(
    ("modality", "directions"),
    [("CT", AXIAL), ("CT", oblique()), ("CT", ((1, 0, 0), (0, -1, 0))), ("MR", ((0, 1, 0), (0, 0, -1)))],
)
def test_a_seg_lies_on_the_slices_that_it_names_and_on_their_voxels(tmp_path, modality, directions):
    folder = write_series(tmp_path / "series", ball(), modality, directions)
    volume = LoadImage(reader="ITKReader")(folder)  # as inference reads it
    mask = (volume.numpy() > (900 if modality == "MR" else -100)).astype(np.uint8)
    assert 20 < mask.sum() < 200
    write_seg(mask, folder, tmp_path / "seg.dcm", TUMOUR)

    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    files = {pydicom.dcmread(file).SOPInstanceUID: pydicom.dcmread(file) for file in folder.iterdir()}
    assert seg.NumberOfFrames == int(mask.any((0, 1)).sum()) < len(files)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    expected = {
        tuple(np.round(image.TransformIndexToPhysicalPoint(at.tolist()), 3)) for at in np.argwhere(mask)
    }
    found = set()
    shared = seg.SharedFunctionalGroupsSequence[0]
    down, right = shared.PixelMeasuresSequence[0].PixelSpacing
    row, column = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3))
    for number, (instance, _) in enumerate(sources_of(seg)):
        frame, source = bits(seg, number), files[instance]
        assert np.array_equal(frame, source.pixel_array == 1000)
        position = seg.PerFrameFunctionalGroupsSequence[number].PlanePositionSequence[0].ImagePositionPatient
        assert position == source.ImagePositionPatient
        for y, x in np.argwhere(frame):
            found.add(tuple(np.round(np.asarray(position, float) + x * right * row + y * down * column, 3)))
    assert found == expected

    read = highdicom.seg.segread(tmp_path / "seg.dcm")
    ordered = [uid for uid, _ in sorted(sources_of(seg), key=lambda one: files[one[0]].InstanceNumber)]
    frames = read.get_pixels_by_source_instance(ordered, segment_numbers=[1])[..., 0]
    assert all(
        (frame == (files[one].pixel_array == 1000)).all() for frame, one in zip(frames, ordered, strict=True)
    )
    assert np.array_equal(read_seg(tmp_path / "seg.dcm", folder), mask)


def test_a_mask_of_other_axes_is_placed_by_its_affine(tmp_path):
    folder = write_series(tmp_path / "series", ball(), directions=oblique())
    volume = LoadImage(reader="ITKReader", ensure_channel_first=True)(folder)
    mask = volume > -100
    for codes in ("LPS", "RAI", "SAR", "PIR"):
        turned = Orientation(axcodes=codes, labels=None)(mask.float())
        write_seg(
            turned[0].numpy().astype(np.uint8), folder, tmp_path / "seg.dcm", TUMOUR, turned.affine.numpy()
        )
        assert np.array_equal(read_seg(tmp_path / "seg.dcm", folder), mask[0].numpy())
    beside = mask.affine.numpy().copy()
    beside[:3, 3] += 3
    with pytest.raises(DataError, match="expected a mask that lies on its images, found one beside those of"):
        write_seg(mask[0].numpy(), folder, tmp_path / "beside.dcm", TUMOUR, beside)
    with pytest.raises(
        DataError, match="expected a mask of its images' size, 20 x 16 x 7, found 20 x 16 x 6"
    ):
        write_seg(mask[0, ..., 1:].numpy(), folder, tmp_path / "beside.dcm", TUMOUR, mask.affine.numpy())
    assert not list(tmp_path.glob("*beside*"))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A CT series with private elements, and its SEG."""
    folder = tmp_path_factory.mktemp("written")
    series = write_series(folder / "series", ball())
    for file in series.iterdir():
        dataset = pydicom.dcmread(file)
        block = dataset.private_block(0x0009, "SCANNER 1.0", create=True)
        block.add_new(1, "LO", "private words")
        dataset.save_as(file)
    mask = LoadImage(reader="ITKReader")(series).numpy() > -100
    write_seg(mask, series, folder / "seg.dcm", TUMOUR)
    return series, mask, folder / "seg.dcm"


def test_what_a_seg_says_of_its_segment_and_of_the_algorithm(written):
    seg = pydicom.dcmread(written[2])
    assert (seg.Modality, seg.SegmentationType, seg.SOPClassUID) == ("SEG", "BINARY", uid.SegmentationStorage)
    assert (seg.SeriesDescription, seg.SeriesNumber) == ("FeatherSeg LiTS: tumour", 1003)
    (segment,) = seg.SegmentSequence
    assert (segment.SegmentLabel, segment.SegmentAlgorithmType) == ("tumour", "AUTOMATIC")
    for sequence, code in (
        (segment.SegmentedPropertyCategoryCodeSequence, TUMOUR.category),
        (segment.SegmentedPropertyTypeCodeSequence, TUMOUR.type),
        (segment.AnatomicRegionSequence, TUMOUR.anatomy),
    ):
        assert (sequence[0].CodeValue, sequence[0].CodingSchemeDesignator, sequence[0].CodeMeaning) == code
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("FeatherSeg LiTS", "0.1.0")
    assert algorithm.AlgorithmParameters == "weights=0123456789ab"
    images = [pydicom.dcmread(file) for file in written[0].iterdir()]
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == images[0].SeriesInstanceUID
    assert {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence} == {
        image.SOPInstanceUID for image in images
    }
    assert seg.FrameOfReferenceUID == images[0].FrameOfReferenceUID


def test_patient_and_study_are_those_of_the_images_and_nothing_private_is_taken_along(written):
    seg, image = pydicom.dcmread(written[2]), pydicom.dcmread(next(written[0].iterdir()))
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID"):
        assert seg[keyword].value == image[keyword].value
    for keyword in ("StudyDate", "StudyID", "AccessionNumber", "SpecificCharacterSet"):
        assert seg[keyword].value == image[keyword].value
    assert b"private words" not in written[2].read_bytes()
    assert not [element for element in seg.iterall() if element.tag.is_private]


def test_a_corrected_segment_says_that_somebody_looked_at_it(written, tmp_path):
    series, mask, _ = written
    corrected = Segment(**{**vars(TUMOUR), "corrected": True, "anatomy": None})
    write_seg(mask, series, tmp_path / "seg.dcm", corrected)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert seg.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert seg.ContentDescription == "tumour, corrected"


def test_an_empty_mask_gives_one_empty_frame_and_names_all_images(written, tmp_path, caplog):
    series, mask, _ = written
    write_seg(np.zeros_like(mask), series, tmp_path / "seg.dcm", TUMOUR)
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert seg.NumberOfFrames == 1
    assert not seg.pixel_array.any()
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 7
    assert read_seg(tmp_path / "seg.dcm", series).shape == mask.shape
    assert not read_seg(tmp_path / "seg.dcm", series).any()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_a_mammogram_has_no_place_in_space(tmp_path, photometric):
    place = (
        {"FrameOfReferenceUID": "1.2.3.5"} if photometric == "MONOCHROME1" else {"PixelSpacing": [0.07, 0.07]}
    )
    file = mammogram_files.write(tmp_path / "mg.dcm", photometric=photometric, **UIDS, **place)
    mask = LoadImage(reader=MammogramReader())(file).numpy() > 3000
    assert 0 < mask.sum() < mask.size / 2
    write_seg(mask, file, tmp_path / "seg.dcm", TUMOUR)
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    image = pydicom.dcmread(file)
    stored = pixel_array(image)
    dense = stored > 3000 if photometric == "MONOCHROME2" else stored < 4095 - 3000
    assert np.array_equal(bits(seg, 0), dense)
    assert sources_of(seg) == [(image.SOPInstanceUID, None)]
    assert np.array_equal(seg.get_pixels_by_source_instance([image.SOPInstanceUID])[0, ..., 0], dense)
    assert np.array_equal(read_seg(tmp_path / "seg.dcm", file), mask)
    write_seg(np.zeros_like(mask), file, tmp_path / "empty.dcm", TUMOUR)
    assert not read_seg(tmp_path / "empty.dcm", file).any()
    other = mammogram_files.write(tmp_path / "mlo.dcm", stored + 1, view="MLO", **UIDS)  # of the same series
    with pytest.raises(DataError, match="found one of other images"):
        read_seg(tmp_path / "seg.dcm", other)


def test_an_ultrasound_picture_in_colours(tmp_path):
    file = write_dicom(tmp_path / "us.dcm", colours(24, 30), **UIDS)
    mask = LoadImage(reader=PictureReader())(file).numpy()[..., 0] > 180  # an odd number of bits a row
    write_seg(mask, file, tmp_path / "seg.dcm", TUMOUR)
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert np.array_equal(bits(seg, 0), pydicom.dcmread(file).pixel_array[..., 0] > 180)
    assert np.array_equal(read_seg(tmp_path / "seg.dcm", file), mask)


@pytest.fixture
def clip(tmp_path):
    """Five frames of 17 x 13 pixels, so that frames do not end with a byte, and their mask, (13, 17, 5)."""
    frames = np.zeros((5, 17, 13, 3), np.uint8)
    frames[1, 3:9, 2:5] = frames[3, 8:12, 6:13] = frames[4, 0, 0] = 255
    multi = uid.UltrasoundMultiFrameImageStorage
    file = write_dicom(
        tmp_path / "clip.dcm", frames, NumberOfFrames=5, SOPClassUID=multi, FrameTime=40, **UIDS
    )
    return file, frames[..., 0].transpose(2, 1, 0) == 255


def test_a_clip_has_a_frame_for_each_of_its_frames_with_something_in_it(tmp_path, clip):
    file, mask = clip
    write_seg(mask, file, tmp_path / "seg.dcm", TUMOUR)
    seg, image = highdicom.seg.segread(tmp_path / "seg.dcm"), pydicom.dcmread(file)
    assert sources_of(seg) == [(image.SOPInstanceUID, number) for number in (2, 4, 5)]
    for number, frame in enumerate((1, 3, 4)):
        assert np.array_equal(bits(seg, number), image.pixel_array[frame, ..., 0] == 255)
    frames = seg.get_pixels_by_source_frame(image.SOPInstanceUID, [4, 2], segment_numbers=[1])[..., 0]
    assert np.array_equal(frames, image.pixel_array[[3, 1], ..., 0] == 255)
    indices = [
        group.FrameContentSequence[0].DimensionIndexValues for group in seg.PerFrameFunctionalGroupsSequence
    ]
    assert indices == [[1, 1], [1, 2], [1, 3]]
    assert np.array_equal(read_seg(tmp_path / "seg.dcm", file), mask)
    write_seg(mask[..., 1], file, tmp_path / "one.dcm", TUMOUR, frame=1)
    assert sources_of(pydicom.dcmread(tmp_path / "one.dcm")) == [(image.SOPInstanceUID, 2)]
    assert np.array_equal(read_seg(tmp_path / "one.dcm", file)[..., 1], mask[..., 1])
    assert read_seg(tmp_path / "one.dcm", file).sum() == mask[..., 1].sum()
    write_seg(np.zeros_like(mask), file, tmp_path / "empty.dcm", TUMOUR)
    assert sources_of(pydicom.dcmread(tmp_path / "empty.dcm")) == [(image.SOPInstanceUID, 3)]
    assert not read_seg(tmp_path / "empty.dcm", file).any()
    with pytest.raises(DataError, match="expected a frame from 0 to 4, found 5"):
        write_seg(mask[..., 1], file, tmp_path / "six.dcm", TUMOUR, frame=5)


def test_frames_are_placed_by_their_positions_whatever_order_they_have(written, tmp_path):
    """As SEGs of other programs are: without references of frames, and in another order."""
    series, mask, path = written
    seg = pydicom.dcmread(path)
    frames = [bits(seg, number) for number in range(seg.NumberOfFrames)]
    groups = list(seg.PerFrameFunctionalGroupsSequence)
    for group in groups:
        del group.DerivationImageSequence
    seg.PerFrameFunctionalGroupsSequence = groups[::-1]
    packed = np.packbits(np.stack(frames[::-1]).reshape(-1), bitorder="little").tobytes()
    seg.PixelData = packed + bytes(len(packed) % 2)
    seg.save_as(tmp_path / "seg.dcm")
    assert np.array_equal(read_seg(tmp_path / "seg.dcm", series), mask)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="no dciodvfy (apt-get install dicom3tools)")
def test_an_independent_validator_finds_no_error(tmp_path, clip, written):
    masks = {tmp_path / "clip.dcm": clip[1], written[0]: written[1]}
    masks[write_series(tmp_path / "mr", ball(), "MR", oblique())] = ball().T == 1000
    masks[mammogram_files.write(tmp_path / "mg.dcm", **UIDS)] = np.ones((40, 51), np.uint8)
    masks[write_dicom(tmp_path / "us.dcm", colours(24, 30), **UIDS)] = np.ones((30, 24), np.uint8)
    for source, mask in masks.items():
        for name, one in (("seg", mask), ("empty", np.zeros_like(mask))):
            path = tmp_path / f"{name}_{source.name}"
            write_seg(one, source, path, TUMOUR)
            done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
            assert "Segmentation" in done.stderr
            assert "Error" not in done.stderr


@pytest.mark.skipif(not (SHARED / "ct").is_dir(), reason="no real CT in ../shared/data/ct")
def test_a_real_ct_series(tmp_path):
    """Its slices as they are, in JPEG 2000, but for the identifiers, which were taken out of them."""
    with pytest.raises(DataError, match="expected SOPClassUID, by which DICOM objects refer to an image"):
        write_seg(np.zeros((512, 512, 20)), SHARED / "ct/dicom_series", tmp_path / "seg.dcm", TUMOUR)
    folder = tmp_path / "series"
    folder.mkdir()
    for file in (SHARED / "ct/dicom_series").iterdir():
        dataset = pydicom.dcmread(file)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = (
            UIDS["StudyInstanceUID"],
            UIDS["SeriesInstanceUID"],
        )
        dataset.save_as(folder / file.name)
    volume = LoadImage(reader="ITKReader")(folder)
    mask = volume.numpy() > 300
    mask[..., ::3] = False
    write_seg(mask, folder, tmp_path / "seg.dcm", TUMOUR, volume.affine.numpy())
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    files = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, folder.iterdir())}
    assert 1 < seg.NumberOfFrames < len(files)
    for number, (instance, _) in enumerate(sources_of(seg)):
        source = files[instance]
        values = source.pixel_array * float(source.RescaleSlope) + float(source.RescaleIntercept)
        assert np.array_equal(bits(seg, number), values > 300)
    assert np.array_equal(read_seg(tmp_path / "seg.dcm", folder), mask)


def test_nothing_of_the_patient_reaches_a_log_a_warning_or_a_file_name(tmp_path, caplog):
    """Nor where what the file says is not as DICOM wants it, which libraries like to quote."""
    strange = {"PatientName": "Muellerin", "PatientSex": "W", "PatientBirthDate": "1956", "StudyTime": "noon"}
    with pydicom.config.disable_value_validation():
        folder = write_series(tmp_path / "series", ball(), **strange)
    with warnings.catch_warnings(record=True) as told, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        write_seg(ball().T == 1000, folder, tmp_path / "out" / "seg.dcm", TUMOUR)
        read_seg(tmp_path / "out" / "seg.dcm", folder)
    seg = pydicom.dcmread(tmp_path / "out" / "seg.dcm")
    assert (seg.PatientName, seg.PatientSex, seg["PatientBirthDate"].value) == ("Muellerin", "W", "1956")
    text = caplog.text + "".join(str(one.message) for one in told)
    for secret in (*SECRETS, "Muellerin", "1956", "noon"):
        assert secret not in text
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["seg.dcm"]


def test_an_element_that_cannot_be_copied_is_not_quoted(tmp_path):
    folder = write_series(tmp_path / "series", ball(), PregnancyStatus=0x3733)
    whole, cut = (b"\x10\x00\xc0\x21" + kind + b"\x02\x00\x33\x37" for kind in (b"US", b"UL"))
    for file in folder.iterdir():
        assert whole in file.read_bytes()
        file.write_bytes(file.read_bytes().replace(whole, cut))  # a number of 4 bytes of which 2 are there
    with pytest.raises(DataError, match="an element that cannot be read; correct it in the PACS") as error:
        write_seg(ball().T == 1000, folder, tmp_path / "seg.dcm", TUMOUR)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__
    assert "37" not in str(error.value).replace(str(tmp_path), "")
    assert not (tmp_path / "seg.dcm").exists()


def test_a_mask_that_does_not_belong_to_its_images_is_refused(written, tmp_path):
    series, mask, _ = written
    out = tmp_path / "seg.dcm"
    with pytest.raises(
        DataError, match="expected a mask of its images' size, 20 x 16 x 7, found 16 x 20 x 7"
    ):
        write_seg(mask.transpose(1, 0, 2), series, out, TUMOUR)
    with pytest.raises(DataError, match="expected a mask of 0 and 1, found values up to 2"):
        write_seg(mask.astype(np.uint8) * 2, series, out, TUMOUR)
    files = list(series.iterdir())
    with pytest.raises(DataError, match="slice is missing"):
        write_seg(
            mask, [file for file in files if pydicom.dcmread(file).ImagePositionPatient[2] != 10], out, TUMOUR
        )
    retired = uid.UID("1.2.840.10008.5.1.4.1.1.6")
    file = write_dicom(tmp_path / "us.dcm", colours(24, 32), SOPClassUID=retired, **UIDS)
    with pytest.raises(DataError, match="of a class that highdicom knows, found Ultrasound Image Storage"):
        write_seg(np.ones((32, 24), np.uint8), file, out, TUMOUR)
    (tmp_path / "locked").write_text("a file, no folder")
    with pytest.raises(DataError, match="expected a folder that can be written to"):
        write_seg(mask, series, tmp_path / "locked" / "seg.dcm", TUMOUR)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["locked", "us.dcm"]


def test_a_seg_that_is_cut_off_is_told_wherever_it_ends(written, tmp_path):
    series, _, path = written
    whole = path.read_bytes()
    cut = tmp_path / "cut.dcm"
    for length in (0, 100, 200, len(whole) // 4, len(whole) // 2, len(whole) - 60, len(whole) - 1):
        cut.write_bytes(whole[:length])
        with pytest.raises(
            DataError, match=r"cut.dcm: expected a whole DICOM SEG, found one that cannot be read"
        ):
            read_seg(cut, series)


def test_what_is_no_seg_of_these_images_is_told(written, tmp_path):
    series, _, path = written
    with pytest.raises(DataError, match="found no such file"):
        read_seg(tmp_path / "none.dcm", series)
    with pytest.raises(DataError, match="expected a BINARY DICOM SEG of one segment, found CT; export it"):
        read_seg(next(series.iterdir()), series)
    other = write_series(tmp_path / "other", ball())
    with pytest.raises(DataError, match=r"expected a SEG of .*, found one of other images"):
        read_seg(path, other)
    for change, message in (
        (lambda seg: setattr(seg, "SegmentationType", "FRACTIONAL"), "of one segment, found FRACTIONAL"),
        (lambda seg: seg.SegmentSequence.append(seg.SegmentSequence[0]), "of one segment, found 2 segments"),
        (moved, "expected a SEG that lies on its images, found a frame beside those of"),
        (widened, "expected a SEG that lies on its images, found a frame beside those of"),
        (turned, "expected a SEG that lies on its images, found a frame beside those of"),
    ):
        seg = pydicom.dcmread(path)
        change(seg)
        seg.save_as(tmp_path / "seg.dcm")
        with pytest.raises(DataError, match=message) as error:
            read_seg(tmp_path / "seg.dcm", series)
        assert not [secret for secret in SECRETS if secret in str(error.value)]
    fewer = [file for file in series.iterdir() if pydicom.dcmread(file).ImagePositionPatient[2] > 10]
    with pytest.raises(DataError, match="found a frame beside those of"):
        read_seg(path, fewer)


def moved(seg):
    position = seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    position.ImagePositionPatient = [-29.9, 12, 5]


def widened(seg):
    seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0.8, 0.75]


def turned(seg):
    orientation = seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    orientation.ImageOrientationPatient = [0, 1, 0, 1, 0, 0]


def test_without_highdicom_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(dicom_encoding, "optional_import", lambda name: optional_import(f"{name}_absent"))
    with pytest.raises(DataError, match=r"pip install highdicom, or featherseg\[dicom\]"):
        dicom_encoding.require_highdicom()


def test_ultrasound_names_its_patient_in_the_seg_alone(tmp_path, caplog):
    file = write_dicom(tmp_path / "us.dcm", colours(24, 32), **UIDS)
    with caplog.at_level(logging.DEBUG):
        write_seg(np.ones((32, 24), np.uint8), file, tmp_path / "seg.dcm", TUMOUR)
    assert pydicom.dcmread(tmp_path / "seg.dcm").PatientName == ULTRASOUND_PATIENT[0]
    assert not [secret for secret in ULTRASOUND_PATIENT if secret in caplog.text]

from __future__ import annotations

import math
import warnings

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate

from pipelines.errors import DataError
from pipelines.mammograms import OtherModality, read_header, read_mammogram
from tests.pipelines.mammogram_files import HEIGHT, PATIENT, WIDTH, levels, write

FORMS = ("plain", "implicit", "jpeg", "jpeg2000", "rle")
WINDOWS = [(2000.0, 1000.0, "NORMAL"), (2000.0, 500.0, "HARDER")]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bits", [12, 14, 16])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_dense_is_bright_whatever_the_bits_the_syntax_and_the_photometric(tmp_path, form, bits, photometric):
    path = write(tmp_path / "a.dcm", bits=bits, form=form, photometric=photometric)
    stored = pydicom.dcmread(path)
    assert stored.PhotometricInterpretation == photometric
    assert stored.file_meta.TransferSyntaxUID.is_compressed == (form not in ("plain", "implicit"))
    values, header = read_mammogram(path)
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    np.testing.assert_array_equal(values, levels(bits))
    assert header == read_header(path)
    assert header.size == (HEIGHT, WIDTH)


def test_what_a_file_says_of_itself(tmp_path):
    header = read_header(write(tmp_path / "a", side="R", view="ML", windows=WINDOWS))
    assert header == ((HEIGHT, WIDTH), (0.07, 0.07), "R", "MLO", False, ("NORMAL", "HARDER"))
    bare = {"ImageLaterality": None, "ViewPosition": None, "PresentationIntentType": "FOR PROCESSING"}
    header = read_header(write(tmp_path / "b", spacing=math.nan, **bare))
    assert header[2:] == ("", "", True, ())
    assert np.isnan(header.spacing).all()
    assert read_header(write(tmp_path / "c", ImageLaterality=None, Laterality="R")).side == "R"


def test_the_calibrated_spacing_goes_before_the_detectors_and_x_before_y(tmp_path):
    path = write(tmp_path / "a", PixelSpacing=["0.05", "0.06"])
    assert read_header(path).spacing == (0.06, 0.05)
    assert read_header(write(tmp_path / "b", ImagerPixelSpacing=["0.1", "0.2"])).spacing == (0.2, 0.1)
    assert read_header(write(tmp_path / "c", PixelSpacing=["0", "0"])).spacing == (0.07, 0.07)
    assert read_header(write(tmp_path / "d", PixelSpacing="0.05")).spacing == (0.07, 0.07)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_rescaled_image_keeps_its_scale(tmp_path, photometric):
    """Stored s is 0.5 s - 100: from -100 to 1947.5, within which MONOCHROME1 is reflected."""
    path = write(
        tmp_path / "a", photometric=photometric, RescaleSlope="0.5", RescaleIntercept="-100", RescaleType="US"
    )
    np.testing.assert_allclose(read_mammogram(path)[0], 0.5 * levels() - 100, atol=1e-3)


def test_signed_values_and_a_table_of_values(tmp_path):
    signed = (levels().astype(int) - 2048).astype(np.int16)
    path = write(tmp_path / "a", PixelRepresentation=1, PixelData=signed.tobytes())
    np.testing.assert_array_equal(read_mammogram(path)[0], levels().astype(int) - 2048.0)
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, 16], np.arange(0, 3 * 4096, 3, "<u2").tobytes()
    table.ModalityLUTType = "US"
    path = write(tmp_path / "b", ModalityLUTSequence=[table])
    np.testing.assert_array_equal(read_mammogram(path)[0], 3.0 * levels())


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("window", "width"), [(0, 1000), ("NORMAL", 1000), (1, 500), ("HARDER", 500)])
def test_a_window_by_its_number_or_name(tmp_path, photometric, window, width):
    path = write(tmp_path / "a", photometric=photometric, windows=WINDOWS)
    values, _ = read_mammogram(path, window)
    stored = levels() if photometric == "MONOCHROME2" else 4095.0 - levels()
    expected = np.clip((stored - 1999.5) / (width - 1) + 0.5, 0, 1)  # PS3.3 C.11.2.1.2.1
    expected = expected if photometric == "MONOCHROME2" else 1 - expected
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert (values.min(), values.max()) == (0, 1)


def test_the_only_window_of_a_file_that_is_rescaled(tmp_path):
    rescaled = {"RescaleSlope": "0.5", "RescaleIntercept": "-100", "RescaleType": "US"}
    path = write(tmp_path / "a", windows=[(900.0, 401.0, "")], **rescaled)
    expected = np.clip((0.5 * levels() - 100 - 899.5) / 400 + 0.5, 0, 1)
    np.testing.assert_allclose(read_mammogram(path, 0)[0], expected, atol=1e-6)


def test_a_window_that_a_file_does_not_have_is_an_error_that_lists_them(tmp_path):
    path = write(tmp_path / "a", windows=WINDOWS)
    for window in (2, -1, "SOFTER", ""):
        with pytest.raises(DataError, match=rf"a: expected a window {window!r}, found 0 NORMAL, 1 HARDER; "):
            read_mammogram(path, window)
    with pytest.raises(DataError, match=r"expected a window 0, found none; .* or null for all values"):
        read_mammogram(write(tmp_path / "b"), 0)
    with pytest.raises(DataError, match=r"expected a window of a centre and a width above 0"):
        read_mammogram(write(tmp_path / "c", windows=[(9.0, 0.0, "")]), 0)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"NumberOfFrames": 12}, "expected one mammogram, found 12 frames, as of a tomosynthesis"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "found 12 bits of RGB"),
        ({"BitsStored": 7}, "expected 8 to 16 bits of MONOCHROME1 or MONOCHROME2, found 7 bits"),
        ({"Rows": HEIGHT + 9}, "expected a whole DICOM file of a mammogram, found one that is cut off"),
        ({"PixelData": None}, "expected an image, found a DICOM file without pixels"),
        ({"Rows": None}, "expected a whole DICOM file of a mammogram"),
    ],
)
def test_what_is_no_mammogram_of_one_frame_is_refused(tmp_path, elements, message):
    path = write(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(path)
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)
    with pytest.raises(DataError, match=message) as caught:
        read_mammogram(path)
    assert str(caught.value).startswith(f"{path}: expected")
    assert "\n" not in str(caught.value)


def test_another_modality_is_refused_as_such(tmp_path):
    with pytest.raises(OtherModality, match=r"expected a mammogram \(modality MG\), found modality CR"):
        read_header(write(tmp_path / "a", Modality="CR"))


def test_a_syntax_that_cannot_be_decoded_is_named(tmp_path):
    path = write(tmp_path / "a")
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = uid.MPEG2MPML
    dataset.PixelData = encapsulate([b"some bytes"])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path)
    with pytest.raises(DataError, match=r"a transfer syntax that pydicom decodes, found MPEG2"):
        read_header(path)


@pytest.mark.parametrize("form", FORMS)
def test_a_file_cut_off_anywhere_is_an_error(tmp_path, form):
    """Decoders may fill the rest of a JPEG that is cut off without a word."""
    path = write(tmp_path / "a.dcm", form=form)
    whole = path.read_bytes()
    compressed = form not in ("plain", "implicit")
    start = whole.index(b"\xe0\x7f\x10\x00")  # the tag of the pixels
    for kept in (0, 100, 132, 200, start, start + 2, start + 20, (start + len(whole)) // 2, len(whole) - 20):
        path.write_bytes(whole[:kept])
        with (
            warnings.catch_warnings(record=True) as caught,
            pytest.raises(DataError, match=r"a\.dcm: expected"),
        ):
            read_mammogram(path)
        assert not caught
    path.write_bytes(whole[:-1])
    if compressed:  # the last bytes delimit the sequence of fragments, which are whole
        np.testing.assert_array_equal(read_mammogram(path)[0], levels())
    else:
        with pytest.raises(DataError, match="cut off or damaged"):
            read_mammogram(path)


def test_a_missing_file_and_one_of_another_kind(tmp_path):
    with pytest.raises(DataError, match=r"expected a mammogram at .*none\.dcm, found no such file"):
        read_header(tmp_path / "none.dcm")
    (tmp_path / "a.dcm").write_text("no DICOM\n" * 100)
    with pytest.raises(
        DataError, match=r"a\.dcm: expected a whole DICOM file of a mammogram, found one that is not"
    ):
        read_header(tmp_path / "a.dcm")


def test_nothing_of_the_patient_is_in_what_is_read_warned_of_or_refused(tmp_path, capfd, caplog):
    """Also where the elements about the patient are malformed, of which pydicom warns with their values."""
    odd = {"PatientBirthDate": "1956 April", "PatientAge": "SECRET-years", "PatientName": "Müller" * 40}
    broken = (
        {},
        {"Modality": "CR"},
        {"NumberOfFrames": 3},
        {"Rows": 999},
        {"PhotometricInterpretation": "RGB"},
    )
    said = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number, elements in enumerate(broken):
            path = tmp_path / f"{number}.dcm"
            with pydicom.config.disable_value_validation():
                write(path, **odd, **elements)
            try:
                said.append(repr(read_mammogram(path)[1]))
            except DataError as error:
                said.append(f"{error} {error.__cause__}")
    out = capfd.readouterr()
    said += [str(one.message) for one in caught] + [caplog.text, out.out, out.err]
    assert len(said) >= len(broken)
    for secret in (*PATIENT.values(), *odd.values(), "Müller", "SECRET"):
        assert not any(secret in text for text in said)

from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from pipelines.errors import DataError
from pipelines.label import patients


def found(folder, *names):
    return patients.of_studies(
        [(name.split(".")[0], folder / name) for name in names], patients.listed(folder)
    )


def test_names_that_tell_the_patient(tmp_path):
    names = ("Patient001_img1.png", "Patient001_img2.png", "Patient002_img1.png")
    assert list(found(tmp_path, *names).values()) == ["Patient001", "Patient001", "Patient002"]
    inbreast = "20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm"
    assert list(found(tmp_path, inbreast).values()) == ["6c613a14b80a8591"]


def test_other_names_are_patients_of_their_own(tmp_path):
    assert found(tmp_path, "volume-1.nii.gz", "volume-2.nii.gz") == {
        "volume-1": "volume-1",
        "volume-2": "volume-2",
    }


def test_a_dicom_file_says_who_it_is_without_giving_the_id_away(tmp_path):
    source = get_testdata_file("CT_small.dcm")  # Patient ID 1CT1
    for name in ("one.dcm", "two.dcm"):
        (tmp_path / name).write_bytes(Path(source).read_bytes())
    one, two = found(tmp_path, "one.dcm", "two.dcm").values()
    assert one == two and "1CT1" not in one and len(one) == 12


def test_names_that_tell_the_patient_come_before_an_id_that_is_the_same_in_all_files(tmp_path):
    source = Path(get_testdata_file("CT_small.dcm")).read_bytes()
    names = [f"2058690{number}_{patient}_MG_R_CC_ANON.dcm" for number, patient in enumerate("aab")]
    for name in names:
        (tmp_path / name).write_bytes(source)
    assert list(found(tmp_path, *names).values()) == ["a", "a", "b"]


def test_the_listing_comes_first(tmp_path):
    (tmp_path / "patients.csv").write_text("image,patient\nPatient001_img1,a\nvolume-1.nii.gz,a\n")
    names = ("Patient001_img1.png", "volume-1.nii.gz", "Patient001_img2.png")
    assert list(found(tmp_path, *names).values()) == ["a", "a", "Patient001"]


@pytest.mark.parametrize(
    "text, message",
    [("image,group\na,b\n", "columns image and patient"), ("image,patient\na,1\na,2\n", "found a twice")],
)
def test_a_listing_that_is_none_is_refused(tmp_path, text, message):
    (tmp_path / "patients.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        patients.listed(tmp_path)

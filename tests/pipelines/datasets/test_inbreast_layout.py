from __future__ import annotations

import pytest

from pipelines.datasets.inbreast_layout import Row, discover, read_table, release, table_file
from pipelines.errors import DataError

HEADER = "Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads"
IMAGES = (
    "20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm",
    "20586934_6c613a14b80a8591_MG_L_CC_ANON.dcm",
    "20586960_6c613a14b80a8591_MG_R_ML_ANON.dcm",
    "22427705_aa5f3a14b80a0001_MG_L_MLO_ANON.dcm",
)


@pytest.fixture
def root(tmp_path):
    """Four images of two patients; the second one is normal."""
    for folder in ("AllDICOMs", "AllXML", "AllROI"):
        (tmp_path / folder).mkdir()
    for name in IMAGES:
        (tmp_path / "AllDICOMs" / name).touch()
    for number in (0, 2, 3):
        (tmp_path / "AllXML" / f"{IMAGES[number][:8]}.xml").touch()
    return tmp_path


def findings(root):
    return [(f.severity, f.kind, f.case, f.file) for f in discover(root)[1]]


def test_files_are_joined_by_the_id_and_not_by_their_order(root):
    cases, found = discover(root)
    assert found == []
    assert [case[:4] for case in cases] == [
        ("20586908", "6c613a14b80a8591", "R", "CC"),
        ("20586934", "6c613a14b80a8591", "L", "CC"),
        ("20586960", "6c613a14b80a8591", "R", "MLO"),
        ("22427705", "aa5f3a14b80a0001", "L", "MLO"),
    ]
    assert [case.image.name for case in cases] == list(IMAGES)
    assert [case.contours and case.contours.stem for case in cases] == [
        "20586908",
        None,
        "20586960",
        "22427705",
    ]


def test_the_release_is_found_in_its_own_folder(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("download")
    (other / "INbreast Release 1.0").symlink_to(root)
    assert release(other) == other / "INbreast Release 1.0"
    assert len(discover(other)[0]) == 4
    (other / "INbreast.csv").write_text(HEADER)
    assert table_file(other) == other / "INbreast.csv"
    (root / "INbreast.csv").write_text(HEADER)
    assert table_file(other) == other / "INbreast Release 1.0/INbreast.csv"


def test_what_macos_and_the_release_leave_beside_is_not_looked_at(root):
    for name in ("AllDICOMs/._20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm", "AllXML/._20586908.xml"):
        (root / name).touch()
    for name in ("AllDICOMs/.DS_Store", "AllROI/20586908.roi", "AllXML/notes.txt", "README.TXT"):
        (root / name).touch()
    assert len(discover(root)[0]) == 4
    assert findings(root) == []


def test_endings_and_letters_of_any_case(root):
    (root / "AllDICOMs" / "1_ABC1_MG_r_ml_anon.DCM").touch()
    (root / "AllXML" / "1.XML").touch()
    case = discover(root)[0][0]
    assert case[:4] == ("1", "abc1", "R", "MLO")
    assert case.contours.name == "1.XML"


@pytest.mark.parametrize(
    "name", ["mammogram.dcm", "1_ab_CT_R_CC_ANON.dcm", "1_ab_MG_B_CC_ANON.dcm", "1_MG_R_CC_ANON.dcm"]
)
def test_a_name_that_does_not_tell_is_an_error(root, name):
    (root / "AllDICOMs" / name).touch()
    assert findings(root) == [("error", "name", name[:-4], f"AllDICOMs/{name}")]
    assert len(discover(root)[0]) == 4


def test_an_id_that_is_there_twice_is_an_error(root):
    (root / "AllDICOMs" / "20586908_ffff3a14b80a8591_MG_L_CC_ANON.dcm").touch()
    assert findings(root) == [("error", "twice", "20586908", f"AllDICOMs/{IMAGES[0]}")]


def test_contours_without_an_image_are_an_error(root):
    (root / "AllXML" / "99.xml").touch()
    assert findings(root) == [("error", "missing", "99", "AllXML/99.xml")]
    assert discover(root)[0][0] == ("99", "", "", "", None, root / "AllXML/99.xml")


def test_without_the_folder_of_contours_all_would_pass_for_normal(root):
    (root / "AllXML").rename(root / "AllXMLs")
    assert findings(root) == [("error", "missing", "", "AllXML")]
    assert len(discover(root)[0]) == 4


def test_no_data(tmp_path):
    with pytest.raises(
        DataError, match=r"AllDICOMs and AllXML .*, found no such folder; .* featherseg phantom"
    ):
        discover(tmp_path / "none")
    with pytest.raises(DataError, match="found no folder AllDICOMs"):
        discover(tmp_path)
    (tmp_path / "AllDICOMs").mkdir()
    with pytest.raises(DataError, match=r"found no \.dcm file in AllDICOMs"):
        discover(tmp_path)


ROWS = """removed;removed;R;CC;201001;20586908;4;4c
removed;removed;L;CC;201001/02;20586934;     ;1
 removed ; removed ; r ; MLO ; 200805 ; 20586960 ; 2 ;4A
;;;;;;;
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_table_with_its_blanks_letters_and_dates(tmp_path, encoding, newline):
    text = (HEADER + "\n" + ROWS).replace("\n", newline).replace("removed;removed;L", "é;removed;L")
    (tmp_path / "INbreast.csv").write_bytes(text.encode(encoding))
    assert read_table(tmp_path / "INbreast.csv") == {
        "20586908": Row("R", "CC", "4", "4c"),
        "20586934": Row("L", "CC", "", "1"),
        "20586960": Row("R", "MLO", "2", "4a"),
    }


def test_a_table_that_cannot_be_used_is_an_error(tmp_path):
    path = tmp_path / "INbreast.csv"
    with pytest.raises(DataError, match=r"INbreast\.csv: expected a table, found one that cannot be read"):
        read_table(path)
    path.write_text("")
    with pytest.raises(DataError, match="found no File Name, Laterality, View, ACR, Bi-Rads"):
        read_table(path)
    path.write_text(HEADER.replace(";", ","))
    with pytest.raises(DataError, match="separated by semicolons"):
        read_table(path)
    path.write_text(HEADER + "\n" + ROWS.replace("20586934", "20586908"))
    with pytest.raises(DataError, match="expected image 20586908 once, found it twice"):
        read_table(path)
    path.write_text(HEADER + "\nremoved;removed;R;CC;201001;20586908")
    assert read_table(path) == {"20586908": Row("R", "CC", "", "")}

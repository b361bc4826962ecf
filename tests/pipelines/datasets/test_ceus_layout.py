from __future__ import annotations

import unicodedata

import pytest

from pipelines.datasets.ceus_layout import discover, is_clip, is_picture
from pipelines.errors import DataError

DICM = bytes(128) + b"DICM"


def write(path, content=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def root(tmp_path):
    """Patients with a DICOM file without an ending, a video, and pictures."""
    for name in ("P10/IM_0001", "P2/1.2.840.113"):
        write(tmp_path / name, DICM)
    for number in (1, 2, 10):
        write(tmp_path / f"P1达峰/ceus-{number}.PNG")
    write(tmp_path / "P3/loop.MP4")
    for patient in ("P10", "P1达峰", "P2", "P3"):
        write(tmp_path / patient / "mask.png")
    return tmp_path


def kinds(findings):
    return [(f.severity, f.kind, f.case, f.file) for f in findings]


def test_patients_and_their_files_are_in_natural_order(root):
    patients, findings = discover(root)
    assert [patient.name for patient in patients] == ["P1达峰", "P2", "P3", "P10"]
    assert [patient.folder.name for patient in patients] == ["P1达峰", "P2", "P3", "P10"]
    assert patients[0].clip == tuple(root / "P1达峰" / f"ceus-{n}.PNG" for n in (1, 2, 10))
    assert patients[1].clip == root / "P2/1.2.840.113"
    assert patients[2].clip == root / "P3/loop.MP4"
    assert all(patient.labels == (patient.folder / "mask.png",) for patient in patients)
    assert findings == []


def test_several_masks_and_panels_belong_to_a_patient(root):
    for name in ("mask_10.png", "Mask_2.PNG", "panels.json"):
        write(root / "P2" / name)
    patient = discover(root)[0][1]
    assert [path.name for path in patient.labels] == ["Mask_2.PNG", "mask.png", "mask_10.png"]
    assert patient.panels == root / "P2/panels.json"
    assert patient.clip == root / "P2/1.2.840.113"


def test_what_archives_and_systems_leave_is_ignored(root):
    for name in ("P2/._mask_1.png", "P2/.DS_Store", "P2/notes.txt", "._P9/a.png", "__MACOSX/P2/a.png"):
        write(root / name)
    write(root / "P2/DICOMDIR", DICM)
    write(root / "groups.csv")
    patients, findings = discover(root)
    assert len(patients) == 4
    assert findings == []


def test_what_is_missing_or_there_twice_is_found(root):
    (root / "P10/mask.png").unlink()
    (root / "P2/1.2.840.113").unlink()
    write(root / "P3/still.jpg")
    write(root / "P4/a.avi")
    write(root / "P4/b.avi")
    write(root / "P4/mask.png")
    assert kinds(discover(root)[1]) == [
        ("error", "missing", "P2", "P2"),
        ("error", "clips", "P3", "P3"),
        ("error", "clips", "P4", "P4"),
        ("error", "unlabelled", "P10", "P10"),
    ]


def test_a_name_is_composed_and_one_spelt_both_ways_is_an_error(tmp_path):
    for form in ("NFC", "NFD"):
        write(tmp_path / unicodedata.normalize(form, "Müller") / "a.avi")
        write(tmp_path / unicodedata.normalize(form, "Müller") / "mask.png")
    patients, findings = discover(tmp_path)
    assert [patient.name for patient in patients] == [unicodedata.normalize("NFC", "Müller")]
    assert [(f.severity, f.kind) for f in findings] == [("error", "twice")]


@pytest.mark.parametrize(
    ("files", "found"),
    [([], "found none"), (["P1/mask.png", "P2/mask.png"], "found 2 folders without a clip")],
)
def test_no_data_is_an_error_that_says_what_is_expected(tmp_path, files, found):
    for name in files:
        write(tmp_path / name)
    with pytest.raises(DataError, match=rf"expected a folder for each patient .*{found}.* phantom ceus"):
        discover(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        discover(tmp_path / "absent")


def test_clips_are_told_by_ending_or_first_bytes(tmp_path):
    assert is_clip(write(tmp_path / "a.AVI"))
    assert is_clip(write(tmp_path / "b", DICM))
    assert not is_clip(write(tmp_path / "c.dcm", b"short"))
    assert not is_clip(write(tmp_path / "d.png", DICM))
    assert is_picture(tmp_path / "d.JPEG")
    assert not is_picture(tmp_path / "d.gif")

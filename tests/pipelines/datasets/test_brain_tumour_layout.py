from __future__ import annotations

import json

import pytest

from pipelines.datasets.brain_tumour_layout import discover, patient_of
from pipelines.errors import DataError, NoDataError

ENDINGS = ("_flair", "_t1", "_t1ce", "_t2", "_seg")


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def raw(folder, stem, endings=ENDINGS, suffix=".nii.gz"):
    touch(folder, *(f"{stem}{ending}{suffix}" for ending in endings))


def kinds(root):
    return [(f.severity, f.kind, f.case, f.file) for f in discover(root)[1]]


@pytest.mark.parametrize(
    "endings",
    [
        ("_flair", "_t1", "_t1ce", "_t2", "_seg"),
        ("-t2f", "-t1n", "-t1c", "-t2w", "-seg"),
        ("_FLAIR", "_T1w", "_T1Gd", "_T2w", "_seg"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_four_files_are_put_in_the_order_of_the_channels(tmp_path, endings, suffix):
    raw(tmp_path / "HGG/CASE_t1_7", "CASE_t1_7", endings, suffix)
    touch(tmp_path, "HGG/CASE_t1_7/._CASE_t1_7_t1.nii.gz", "HGG/CASE_t1_7/CASE_t1_7_adc.nii.gz", "names.csv")
    (case,), findings = discover(tmp_path)
    assert findings == []
    names = [path.name for path in (*case.images, case.label)]
    assert names == [f"CASE_t1_7{ending}{suffix}" for ending in endings]
    assert (case.name, case.patient, case.test) == ("CASE_t1_7", "CASE_t1_7", False)


def test_folders_in_natural_order_and_many_stems_in_one_folder(tmp_path):
    for number in (10, 9):
        raw(tmp_path / f"case{number}", "x")
    for stem in ("b", "a"):
        raw(tmp_path / "flat", stem)
    cases, findings = discover(tmp_path)
    assert [case.name for case in cases] == ["a", "b", "case9", "case10"]
    assert findings == []


@pytest.mark.parametrize("stem", ["DOE_JANE", ""])
def test_an_examination_on_its_own_is_not_called_after_its_files(tmp_path, stem):
    raw(tmp_path, stem, [ending if stem else ending[1:] for ending in ENDINGS[:4]])
    (case,), findings = discover(tmp_path)
    assert (case.name, case.patient, len(case.images)) == ("examination", "examination", 4)
    assert [f.kind for f in findings] == ["unlabelled"]


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("BraTS-GLI-00005-101", "BraTS-GLI-00005"),
        ("BraTS-MET-00005-000", "BraTS-MET-00005"),
        ("Brats18_TCIA01_429_1", "Brats18_TCIA01_429"),
        ("BraTS20_Training_001", "BraTS20_Training_001"),
        ("BraTS2021_00495", "BraTS2021_00495"),
        ("TCGA-02-0006_1996.08.23", "TCGA-02-0006"),
        ("TCGA-02-0006", "TCGA-02-0006"),
        ("subject_12", "subject_12"),
    ],
)
def test_examinations_of_one_patient_at_several_times_stay_together(case, patient):
    assert patient_of(case) == patient


@pytest.mark.parametrize("lacks", ["_flair", "_t1", "_t1ce", "_t2"])
def test_a_missing_sequence_names_folder_and_sequence(tmp_path, lacks):
    raw(tmp_path / "P1", "P1", [ending for ending in ENDINGS if ending != lacks])
    (case,), (finding,) = discover(tmp_path)
    sequence = {"_flair": "FLAIR", "_t1": "T1w", "_t1ce": "T1gd", "_t2": "T2w"}[lacks]
    assert (finding.kind, finding.file) == ("sequence", "P1")
    assert f"expected a {sequence} sequence" in finding.message
    assert case.images == ()


@pytest.mark.parametrize("also", ["P1_t1.nii", "P1_t1n.nii.gz", "P1-t1.nii.gz", "P1_seg.nii"])
def test_a_doubled_file_is_named_with_its_twin(tmp_path, also):
    raw(tmp_path / "P1", "P1")
    touch(tmp_path / "P1", also)
    (finding,) = discover(tmp_path)[1]
    assert (finding.severity, finding.kind, finding.case, finding.file) == ("error", "doubled", "P1", "P1")
    assert also in finding.message


def test_a_case_in_two_places_is_one_error(tmp_path):
    raw(tmp_path / "HGG/P1", "P1")
    raw(tmp_path / "LGG/P1", "P1")
    assert kinds(tmp_path) == [("error", "twice", "P1", "LGG/P1")]


@pytest.mark.parametrize("below", ["", "Task01_BrainTumour"])
@pytest.mark.parametrize("listing", [True, False])
@pytest.mark.parametrize("as_dict", [True, False])
def test_the_decathlons_layout(tmp_path, below, listing, as_dict):
    folder = tmp_path / below
    for number in ("457", "003"):
        touch(folder, f"imagesTr/BRATS_{number}.nii.gz", f"labelsTr/BRATS_{number}.nii.gz")
        touch(folder, f"imagesTr/._BRATS_{number}.nii.gz", f"labelsTr/._BRATS_{number}.nii.gz")
    touch(folder, "imagesTs/BRATS_485.nii.gz", "imagesTs/._BRATS_485.nii.gz")
    if listing:
        pairs = [
            {"image": f"./imagesTr/BRATS_{n}.nii.gz", "label": f"./labelsTr/BRATS_{n}.nii.gz"}
            for n in ("457", "003")
        ]
        test = "./imagesTs/BRATS_485.nii.gz"
        content = {"training": pairs, "test": [{"image": test} if as_dict else test]}
        (folder / "dataset.json").write_text(json.dumps(content))
    cases, findings = discover(tmp_path)
    assert findings == []
    assert [(case.name, case.patient, case.test) for case in cases] == [
        ("BRATS_003", "003", False),
        ("BRATS_457", "457", False),
        ("BRATS_485", "485", True),
    ]
    assert cases[0].images == (folder / "imagesTr/BRATS_003.nii.gz",)
    assert cases[0].label == folder / "labelsTr/BRATS_003.nii.gz"


@pytest.mark.parametrize("there", [True, False])
def test_no_data_tells_what_was_looked_for_and_where_to_get_it(tmp_path, there):
    root = tmp_path / "data"
    if there:
        touch(root, "image.png", "volume.nii.gz")
    with pytest.raises(NoDataError) as error:
        discover(root)
    message = str(error.value)
    for part in ("imagesTr", "X_t1ce", "X-t1c", str(root), "featherseg phantom", "featherseg download"):
        assert part in message
    assert "\n" not in message


def test_a_broken_listing_is_not_taken_for_no_data(tmp_path):
    touch(tmp_path, "imagesTr/BRATS_001.nii.gz")
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset\.json") as error:
        discover(tmp_path)
    assert not isinstance(error.value, NoDataError)

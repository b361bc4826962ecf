from __future__ import annotations

import unicodedata

import pytest

from pipelines.datasets.dce_us_layout import discover
from pipelines.errors import DataError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root):
    cases, findings = discover(root)
    return cases, [(f.severity, f.kind, f.case, f.file) for f in findings]


class TestPaired:
    def test_views_are_cases_and_share_their_patient(self, tmp_path):
        for folder in ("images", "masks"):
            touch(
                tmp_path, *(f"{folder}/Patient{n}_img{view}.png" for n in ("010", "009") for view in (2, 1))
            )
        cases, findings = found(tmp_path)
        assert findings == []
        assert [(case.name, case.patient, case.kind) for case in cases] == [
            ("Patient009_img1", "Patient009", ""),
            ("Patient009_img2", "Patient009", ""),
            ("Patient010_img1", "Patient010", ""),
            ("Patient010_img2", "Patient010", ""),
        ]
        assert cases[0].image == tmp_path / "images/Patient009_img1.png"
        assert cases[0].labels == (tmp_path / "masks/Patient009_img1.png",)

    def test_a_mask_may_be_of_another_format_and_other_files_are_let_be(self, tmp_path):
        touch(tmp_path, "images/P_img1.JPG", "masks/P_img1.png", "images/._P_img1.png", "images/Thumbs.db")
        cases, findings = found(tmp_path)
        assert findings == []
        assert [(case.name, case.image.suffix) for case in cases] == [("P_img1", ".JPG")]

    def test_a_view_may_have_several_masks(self, tmp_path):
        names = ("P_img1_2", "P_img1", "P_img1_10", "P_img1_1")
        touch(tmp_path, "images/P_img1.png", *(f"masks/{name}.png" for name in names))
        (case,), findings = found(tmp_path)
        assert findings == []
        assert [path.stem for path in case.labels] == ["P_img1", "P_img1_1", "P_img1_2", "P_img1_10"]

    def test_a_name_is_the_same_composed_and_decomposed(self, tmp_path):
        name = "Zoé_img1.png"
        touch(
            tmp_path,
            "images/" + unicodedata.normalize("NFC", name),
            "masks/" + unicodedata.normalize("NFD", name),
        )
        cases, findings = found(tmp_path)
        assert findings == []
        assert [(case.name, case.patient) for case in cases] == [("Zoé_img1", "Zoé")]

    def test_missing_partners_and_names_without_a_patient(self, tmp_path):
        touch(tmp_path, "images/P1_img1.png", "masks/P1_img2.png", "images/scan.png", "masks/scan.png")
        assert found(tmp_path)[1] == [
            ("error", "missing", "P1_img1", "images/P1_img1.png"),
            ("error", "name", "scan", "images/scan.png"),
            ("error", "missing", "P1_img2", "masks/P1_img2.png"),
        ]

    def test_one_name_in_two_formats(self, tmp_path):
        touch(tmp_path, "images/P_img1.png", "images/P_img1.jpg", "masks/P_img1.png")
        assert found(tmp_path)[1] == [("error", "twice", "P_img1", "images/P_img1.jpg")]


class TestBusi:
    def test_masks_are_gathered_in_their_order_and_cases_sorted_by_number(self, tmp_path):
        folder = tmp_path / "Dataset_BUSI_with_GT"
        touch(
            folder,
            "benign/benign (10).png",
            *(f"benign/benign (10)_mask{n}.png" for n in ("_2", "", "_1", "_10")),
        )
        touch(folder, "benign/benign (9).png", "benign/benign (9)_mask.png")
        touch(folder, "normal/normal (1).png", "normal/normal (1)_mask.png", "malignant/readme.txt")
        cases, findings = found(tmp_path)
        assert findings == []
        assert [(c.name, c.patient, c.kind) for c in cases] == [
            ("benign (9)", "", "benign"),
            ("benign (10)", "", "benign"),
            ("normal (1)", "", "normal"),
        ]
        assert [path.stem for path in cases[1].labels] == [
            f"benign (10)_mask{n}" for n in ("", "_1", "_2", "_10")
        ]

    def test_equal_names_in_two_classes_are_two_cases(self, tmp_path):
        touch(
            tmp_path, *(f"{kind}/1{part}.png" for kind in ("benign", "malignant") for part in ("", "_mask"))
        )
        cases, findings = found(tmp_path)
        assert findings == []
        assert [case.name for case in cases] == ["benign 1", "malignant 1"]

    def test_missing_partners(self, tmp_path):
        touch(tmp_path, "benign/benign (1).png", "benign/benign (2)_mask_1.png")
        assert found(tmp_path)[1] == [
            ("error", "missing", "benign (1)", "benign/benign (1).png"),
            ("error", "missing", "benign (2)", "benign/benign (2)_mask_1.png"),
        ]

    def test_a_mask_in_two_formats(self, tmp_path):
        touch(tmp_path, "benign/benign (1).png", "benign/benign (1)_mask.bmp", "benign/benign (1)_mask.png")
        assert found(tmp_path)[1] == [("error", "twice", "benign (1)", "benign/benign (1)_mask.bmp")]


class TestGroups:
    @pytest.fixture
    def root(self, tmp_path):
        touch(tmp_path, *(f"benign/benign ({n}){part}.png" for n in (1, 2, 10) for part in ("", "_mask")))
        return tmp_path

    def test_the_list_beside_the_folders_is_honoured(self, root):
        (root / "groups.csv").write_text(
            "image,group\n" + "".join(f"benign/benign ({n}).png,g{g}\n" for n, g in ((1, 7), (2, 3), (10, 7)))
        )
        cases, findings = found(root)
        assert findings == []
        assert [(case.name, case.patient) for case in cases] == [
            ("benign (1)", "g7"),
            ("benign (2)", "g3"),
            ("benign (10)", "g7"),
        ]

    def test_an_image_that_it_lacks_is_an_error_and_one_that_is_absent_a_note(self, root):
        (root / "groups.csv").write_text(
            "image,group\nbenign/benign (1).png,g1\nbenign/benign (2).png,g1\nbenign/benign (3).png,g1\n"
        )
        assert found(root)[1] == [
            ("error", "group", "benign (10)", "groups.csv"),
            ("note", "absent", "", "groups.csv"),
        ]

    def test_a_file_that_is_no_such_list_is_named(self, root):
        (root / "groups.csv").write_text("a;b\n")
        (root / "groups.csv").write_text("a;b\n1;2\n")
        with pytest.raises(DataError, match=r"groups\.csv"):
            discover(root)


class TestBothLayouts:
    @pytest.mark.parametrize("folder", ["", "Dataset_BUSI_with_GT/"])
    def test_both_are_named_and_neither_is_taken(self, tmp_path, folder):
        touch(tmp_path, "images/P_img1.png", "masks/P_img1.png", f"{folder}malignant/malignant (1).png")
        with pytest.raises(
            DataError, match=rf"with images and with {folder}malignant; put each into a folder"
        ):
            discover(tmp_path)

    def test_two_of_one_layout(self, tmp_path):
        touch(tmp_path, "b/images/P_img1.png", "a/images/P_img1.png")
        with pytest.raises(DataError, match="found two, with a/images and with b/images"):
            discover(tmp_path)

    def test_an_empty_folder_is_no_dataset(self, tmp_path):
        touch(tmp_path, "images/readme.txt", "benign/benign (1).png", "benign/benign (1)_mask.png")
        (tmp_path / "groups.csv").write_text("image,group\nbenign/benign (1).png,g1\n")
        cases, findings = found(tmp_path)
        assert findings == []
        assert [(case.name, case.patient) for case in cases] == [("benign (1)", "g1")]


@pytest.mark.parametrize(
    ("names", "said"),
    [(None, "no such folder"), (["a.png"], "neither"), (["images/readme.txt"], "no picture")],
)
def test_no_data_tells_what_was_looked_for_and_where_to_get_it(tmp_path, names, said):
    root = tmp_path / "data"
    touch(root, *(names or []))
    with pytest.raises(DataError) as error:
        discover(root)
    message = str(error.value)
    for part in (said, "PatientNNN_img1.png", "benign", str(root), "featherseg phantom dce_us"):
        assert part in message
    assert "\n" not in message

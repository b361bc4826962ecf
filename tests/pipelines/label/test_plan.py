import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from pipelines.errors import DataError
from pipelines.label.plan import plan
from pipelines.label.project import Project
from tests.conftest import write_volume

AFFINE = np.diag([-0.7, 0.7, 2.5, 1.0])


@pytest.fixture
def project(tmp_path):
    (tmp_path / "studies").mkdir()
    found = Project(tmp_path / "app")
    found.begin(tmp_path / "studies", {"lits": {"experiment": "lits"}})
    return found


def labelled(project, *names, checked=True):
    """Studies with their labels, as the store lists them."""
    folder, found = project.folder.parent / "studies", []
    for name in names:
        mask = np.zeros((8, 9, 6), np.uint8)
        mask[2:4, 3:6, 1:3] = 1
        image = write_volume(folder / f"{name}.nii.gz", np.zeros((8, 9, 6), np.int16), AFFINE)
        label = write_volume(folder / f"{name}-label.nii.gz", mask, AFFINE)
        found.append({"study": name, "image": image, "label": label, "checked": checked})
    return found


def names(cases):
    return {case["case"] for case in cases}


def test_each_study_has_one_role_and_keeps_it(project):
    first = plan(project, "lits", labelled(project, *"abcdefghij"), True)
    assert names(first.training) | names(first.validation) | names(first.test) == set("abcdefghij")
    assert (len(first.training), len(first.validation), len(first.test)) == (6, 2, 2)
    later = plan(project, "lits", labelled(project, *"abcdefghijklmnopqrst"), True, share=0.5)
    assert names(first.test) < names(later.test)
    assert names(first.training) <= names(later.training)


def test_images_of_a_patient_stay_together(project):
    (project.folder.parent / "studies" / "patients.csv").write_text(
        "image,patient\n" + "".join(f"{name},{'one' if name < 'f' else 'two'}\n" for name in "abcdefghij")
    )
    found = plan(project, "lits", labelled(project, *"abcdefghij"), True)
    assert {frozenset(names(found.training)), frozenset(names(found.test))} == {
        frozenset("abcde"),
        frozenset("fghij"),
    }
    assert {case["patient"] for case in found.test} in ({"one"}, {"two"})


def test_of_few_the_epoch_is_chosen_on_what_is_learned_from_never_on_what_is_tested(project):
    found = plan(project, "lits", labelled(project, "a", "b", "c"), True)
    assert names(found.validation) == names(found.training) and len(found.test) == 1
    assert not names(found.test) & names(found.training)


def test_studies_of_the_other_kind_are_not_a_bundles_own(project):
    volumes = labelled(project, "a", "b")
    Image.new("L", (8, 9)).save(project.folder.parent / "studies" / "p.png")
    pictures = [{"study": "p", "image": "p.png", "label": "p.png", "checked": True}]
    found = plan(project, "lits", volumes + pictures, True)
    assert names(found.training) | names(found.test) == {"a", "b"}
    with pytest.raises(DataError, match="found 1"):
        plan(project, "lits", volumes + pictures, False)


def test_asked_beforehand_nothing_is_written(project):
    plan(project, "lits", labelled(project, "a", "b"), True, keep=False)
    assert not project.roles("lits").exists()


@pytest.mark.parametrize("share", ["0.2", True, None])
def test_a_share_that_is_no_number_is_refused(project, share):
    with pytest.raises(DataError, match="expected val_split to be a number"):
        plan(project, "lits", labelled(project, "a", "b"), True, share=share)


def test_a_label_put_there_by_hand_is_checked_and_named_where_it_does_not_fit(project):
    found = labelled(project, "a", "b", checked=False)
    write_volume(found[1]["label"], np.zeros((4, 4, 4), np.uint8), AFFINE)
    with pytest.raises(DataError, match=r"b-label\.nii\.gz: expected a label of its image's size, 8 x 9 x 6"):
        plan(project, "lits", found, True)


def test_the_slices_of_a_dicom_seg_are_learned_from_where_they_belong(project):
    # Else the training would silently take them for the first slices of the volume.
    found = labelled(project, "a", "b", checked=False)
    whole = nib.load(found[0]["label"]).get_fdata().astype(np.uint8)
    part = AFFINE.copy()
    part[:3, 3] = (AFFINE @ [0, 0, 1, 1])[:3]
    write_volume(found[0]["label"], whole[:, :, 1:3], part)
    cases = plan(project, "lits", found, True)
    (label,) = [case["label"] for case in (*cases.training, *cases.test) if case["case"] == "a"]
    assert label != found[0]["label"]
    assert np.array_equal(np.asarray(nib.load(label).dataobj), whole)
    (other,) = [case["label"] for case in (*cases.training, *cases.test) if case["case"] == "b"]
    assert other == found[1]["label"]

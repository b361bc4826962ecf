import pytest

from pipelines.errors import DataError
from pipelines.label import project
from pipelines.label.project import Project


def test_a_project_knows_its_studies_and_bundles(tmp_path):
    one = Project(tmp_path / "app")
    one.begin(tmp_path / "studies", {"lits": {"experiment": "lits"}})
    one.begin(tmp_path / "studies" / ".." / "studies", {"dce_us": {"experiment": "dce_us"}})
    assert one.bundles == ["lits", "dce_us"]
    assert one.note["studies"] == str(tmp_path / "studies")
    assert one.images == tmp_path / "studies"


def test_what_is_fetched_from_a_pacs_lies_in_the_project(tmp_path):
    one = Project(tmp_path / "app")
    one.begin("http://127.0.0.1:8042/dicom-web/", {})
    assert one.note["studies"] == "http://127.0.0.1:8042/dicom-web"
    assert one.images == tmp_path / "app" / "pacs"


def test_other_studies_are_refused(tmp_path):
    one = Project(tmp_path / "app")
    one.begin(tmp_path / "studies", {})
    with pytest.raises(DataError, match=r"expected the studies of the project.*give these another --app-dir"):
        one.begin(tmp_path / "others", {})


def test_where_there_is_none_it_says_how_to_start_one(tmp_path):
    with pytest.raises(DataError, match=r"expected an annotation project.*featherseg label --bundles"):
        _ = Project(tmp_path).note


@pytest.mark.parametrize(
    "studies, name",
    [
        ("data/lits", "lits"),
        ("data/lits/", "lits"),
        ("http://127.0.0.1:8042/dicom-web/", "dicom-web"),
        ("/", "studies"),
    ],
)
def test_the_folder_is_called_after_the_studies(studies, name):
    assert project.default_folder(studies).as_posix() == f"runs/label/{name}"
    assert project.is_remote(studies) == studies.startswith("http")

import hashlib
import json

import pytest

from pipelines.errors import DataError
from pipelines.label.project import Project
from pipelines.label.segments import by_modality, of

CODES = {"category": ["49755003", "SCT", "Morphologically Abnormal Structure"]}


@pytest.fixture
def project(tmp_path):
    """Three packaged bundles, two of them for ultrasound, each with weights that are served."""
    made = Project(tmp_path / "app")
    for bundle, modality, labels in (("lits", "CT", [2]), ("dce_us", "US", [1]), ("ceus", "US", [1])):
        configs = made.package(bundle) / "configs"
        configs.mkdir(parents=True)
        image = {"modality": modality}
        metadata = {"network_data_format": {"inputs": {"image": image}}}
        segment = {**CODES, "labels": labels, "label": f"of {bundle}", "type": ["1", "SCT", "Lesion"]}
        inference = {"segments": [segment], "target_labels": labels, "algorithm": f"FeatherSeg {bundle}"}
        (configs / "metadata.json").write_text(json.dumps(metadata))
        (configs / "inference.json").write_text(json.dumps(inference))
        (tmp_path / bundle).write_bytes(bundle.encode())
        made.versions(bundle).publish(tmp_path / bundle, {})
    return made


def test_each_modality_has_the_description_of_its_first_bundle(project):
    found = by_modality(project, ["lits", "dce_us", "ceus"])
    assert found.keys() == {"CT", "US"}
    assert (found["CT"](True).label, found["US"](True).label) == ("of lits", "of dce_us")
    assert (found["CT"](True).corrected, found["CT"](False).corrected) == (True, False)


def test_the_weights_are_those_that_are_served_at_the_moment(project, tmp_path):
    describe = by_modality(project, ["lits"])["CT"]
    assert describe(False).weights == hashlib.sha256(b"lits").hexdigest()[:12]
    (tmp_path / "better").write_bytes(b"better")
    project.versions("lits").publish(tmp_path / "better", {})
    assert describe(False).weights == hashlib.sha256(b"better").hexdigest()[:12]


def test_other_labels_than_those_described_are_asked_for(project):
    file = project.package("lits") / "configs" / "inference.json"
    file.write_text(file.read_text().replace('"target_labels": [2]', '"target_labels": [1]'))
    with pytest.raises(DataError, match=r"expected a description of the labels \[1\] for DICOM SEG"):
        of(project, "lits", corrected=True)

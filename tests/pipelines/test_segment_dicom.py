import hashlib

import pytest

from pipelines.dicom_encoding import Segment
from pipelines.errors import DataError
from pipelines.runs import code_version
from pipelines.segment_dicom import SegWriter, described

TUMOUR = {
    "labels": [2],
    "label": "tumour",
    "category": ["49755003", "SCT", "Morphologically Abnormal Structure"],
    "type": ["108369006", "SCT", "Neoplasm"],
    "anatomy": ["10200004", "SCT", "Liver"],
}
LIVER = {**TUMOUR, "labels": [1, 2], "label": "liver"}


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    return tmp_path / "model.pt"


def test_a_segment_is_described_by_the_labels_that_the_network_was_trained_for(weights):
    found = described([TUMOUR, LIVER], [2], "FeatherSeg LiTS", weights)
    assert found == Segment(
        "tumour",
        ("49755003", "SCT", "Morphologically Abnormal Structure"),
        ("108369006", "SCT", "Neoplasm"),
        "FeatherSeg LiTS",
        code_version(),
        anatomy=("10200004", "SCT", "Liver"),
        weights=hashlib.sha256(b"weights").hexdigest()[:12],
    )
    assert described([TUMOUR, LIVER], [2, 1], "FeatherSeg LiTS", weights, corrected=True).label == "liver"
    assert "labels" in TUMOUR


def test_what_nobody_described_is_asked_for_before_anything_is_segmented(weights, tmp_path):
    message = r"expected a description of the labels \[1\] for DICOM SEG, found none; add one to `segments`"
    with pytest.raises(DataError, match=message):
        SegWriter(tmp_path / "out", [TUMOUR, LIVER], [1], "FeatherSeg LiTS", weights)
    assert not (tmp_path / "out").exists()

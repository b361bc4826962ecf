import json

import pytest

from pipelines.errors import DataError
from pipelines.panels import read_panels

BOXES = {"contrast": [8, 0, 100, 120], "bmode": [8, 130, 100, 120]}


def test_panels_are_read(tmp_path):
    file = tmp_path / "panels.json"
    file.write_text(json.dumps({**BOXES, "note": "of the whole clip"}))
    assert read_panels(file) == BOXES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected JSON in"),
        ("[]", r"panels.json: expected {\"contrast\": \[top, left, height, width\]"),
        (json.dumps({**BOXES, "bmode": [8, 130, 100, 119]}), "panels.json: expected panels of equal height"),
        (json.dumps({**BOXES, "bmode": [8, 30, 100, 120]}), "panels.json: .* do not overlap"),
    ],
)
def test_what_is_wrong_with_them_is_said(tmp_path, content, message):
    file = tmp_path / "panels.json"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        read_panels(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"panels.json, found none"):
        read_panels(tmp_path / "panels.json")

"""What `lits` and `brain_tumour` do not show of it."""

from __future__ import annotations

import json

import pytest

from pipelines.datasets import decathlon
from pipelines.errors import DataError


@pytest.mark.parametrize("below", ["", "Task03_Liver"])
def test_a_task_is_found_where_it_was_unpacked_and_by_its_own_name_only(tmp_path, below):
    (tmp_path / below / "imagesTr").mkdir(parents=True)
    assert decathlon.find(tmp_path, "Task03_Liver") == tmp_path / below
    assert (decathlon.find(tmp_path, "Task01_BrainTumour") is None) == bool(below)


def test_channels_are_in_the_order_of_their_numbers(tmp_path):
    content = {"modality": {"10": "k", "0": "FLAIR", "2": "t1gd", "1": "T1w"}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert decathlon.modalities(tmp_path) == ("FLAIR", "T1w", "t1gd", "k")


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_listing_may_say_nothing_of_channels(tmp_path, content):
    if content:
        (tmp_path / "dataset.json").write_text(content)
    assert decathlon.modalities(tmp_path) == ()


@pytest.mark.parametrize("content", ["[]", "{", '{"modality": 3}', '{"modality": {"a": "FLAIR"}}'])
def test_a_broken_listing_is_named(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DataError, match=r"\"modality\" with a name .*dataset\.json"):
        decathlon.modalities(tmp_path)


def test_a_listed_name_of_another_form_is_named(tmp_path):
    pair = {"image": "imagesTr/liver_1.nii.gz", "label": "labelsTr/liver_1.nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [pair]}))
    with pytest.raises(DataError, match=r"names such as BRATS_12\.nii\.gz in .*, found liver_1\.nii\.gz"):
        decathlon.files(tmp_path, tmp_path, "BRATS")

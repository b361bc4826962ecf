from __future__ import annotations

import pytest

from pipelines.datasets.options import options
from pipelines.errors import DataError


def check(root, workers=2, split=None, label_coding="msd", layout="raw"):
    """As a dataset has it."""


@pytest.mark.parametrize(
    "words", [["--label-coding", "brats"], ["--label-coding=brats"], ["--label_coding", "brats"]]
)
def test_an_option_becomes_an_argument_however_it_is_spelt(words):
    assert options(check, words, {"workers", "split"}) == {"label_coding": "brats"}


def test_several_and_none():
    words = ["--layout", "decathlon", "--label-coding=a=b"]
    assert options(check, words, ()) == {"layout": "decathlon", "label_coding": "a=b"}
    assert options(check, [], ()) == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--coding", "brats"],
            "only --label-coding, --layout as a further option of this dataset, found --coding",
        ),
        (["--workers", "3"], "found --workers"),
        (["data"], "found data; see --help"),
        (["--layout"], "a value after --layout, found none"),
    ],
)
def test_another_word_is_one_error(words, message):
    with pytest.raises(DataError, match=message):
        options(check, words, {"workers", "split"})


def test_a_dataset_without_options_says_so():
    with pytest.raises(DataError, match="expected no further option of this dataset, found --label-coding"):
        options(lambda root, split=None: None, ["--label-coding", "brats"], {"split"})

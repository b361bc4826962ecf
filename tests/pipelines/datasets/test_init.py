from __future__ import annotations

import subprocess
import sys

import pytest

from pipelines import datasets
from pipelines.datasets.reading import Levels
from pipelines.errors import DataError


@pytest.mark.parametrize("name", sorted(datasets.MODULES))
def test_every_dataset_has_what_is_promised_and_no_more(name):
    module = datasets.get(name)
    functions = {"index", "check", "phantom", "read"}
    assert set(module.__all__) - {"entries"} == functions | {"LEVELS"}
    assert all(callable(getattr(module, function)) for function in functions)
    assert isinstance(module.LEVELS, Levels)
    assert all(f"`{part}" in datasets.__doc__ for part in module.__all__)


def test_a_clip_is_not_just_one_image():
    assert [name for name in datasets.MODULES if hasattr(datasets.get(name), "entries")] == ["ceus"]


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(DataError, match=r"expected one of the datasets .*lits.*, found 'litz'"):
        datasets.get("litz")


def test_a_dataset_that_did_not_travel_is_not_offered(monkeypatch):
    monkeypatch.setattr(datasets, "find_spec", lambda name: name.endswith(".lits") or None)
    assert datasets.get("lits").__name__ == "pipelines.datasets.lits"
    with pytest.raises(DataError, match="expected one of the datasets lits, found 'ceus'"):
        datasets.get("ceus")


def test_a_dataset_is_imported_when_it_is_asked_for():
    code = "import sys, pipelines.datasets; sys.exit('pipelines.datasets.lits' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

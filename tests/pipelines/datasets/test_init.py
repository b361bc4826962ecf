from __future__ import annotations

import subprocess
import sys

import pytest

from pipelines import datasets
from pipelines.errors import DataError


@pytest.mark.parametrize("name", sorted(datasets.MODULES))
def test_every_dataset_has_the_three_functions(name):
    module = datasets.get(name)
    assert all(callable(getattr(module, verb)) for verb in ("index", "check", "phantom"))


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(DataError, match=r"expected one of the datasets .*lits.*, found 'litz'"):
        datasets.get("litz")


def test_a_dataset_is_imported_when_it_is_asked_for():
    code = "import sys, pipelines.datasets; sys.exit('pipelines.datasets.lits' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

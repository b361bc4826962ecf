import ast
import sys

import pytest

from pipelines.errors import DataError
from pipelines.package_modules import ROOT, Trace, is_module, renamed

TOP = """from __future__ import annotations

import json
from typing import TYPE_CHECKING

import networks
from pipelines import low

if TYPE_CHECKING:
    from pipelines.checked import Kind


def use():
    import skimage
    from pipelines.late import thing

    return networks.count()
"""
NAMES = '''"""Names."""

from networks.big import Big
from networks.small import Small, count

__all__ = ["Big", "Small", "count"]
'''
PROJECT = {
    "networks/__init__.py": NAMES,
    "networks/big.py": "import scipy\n\n\nclass Big: ...\n",
    "networks/small.py": "import torch\n\n\nclass Small: ...\n\n\ndef count(): ...\n",
    "transforms/__init__.py": "from .near import Near\n",
    "transforms/near.py": "from .far import reach\n\n\nclass Near: ...\n",
    "transforms/far.py": "import numpy as np\n\n\ndef reach(): ...\n",
    "pipelines/__init__.py": "import warnings\n",
    "pipelines/top.py": TOP,
    "pipelines/low.py": "import PIL\n",
    "pipelines/late.py": "thing = 0\n",
    "pipelines/checked.py": "import pandas\n\n\nclass Kind: ...\n",
    "pipelines/aside.py": "import yaml\n",
}


@pytest.fixture
def project(tmp_path):
    for path, text in PROJECT.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_what_is_imported_anywhere_but_for_type_checkers_travels(project):
    trace = Trace(["pipelines.top"], project)
    pipelines = {name for name in trace.modules if name.startswith("pipelines")}
    assert pipelines == {"pipelines", "pipelines.top", "pipelines.low", "pipelines.late"}
    assert trace.libraries == {"torch", "PIL", "skimage"}


def test_of_a_package_that_passes_names_on_only_those_that_are_used_travel(project):
    trace = Trace(["pipelines.top"], project)
    assert {name for name in trace.modules if name.startswith("networks")} == {"networks", "networks.small"}
    text = trace.texts("own", "About.", "v1")["own/networks/__init__.py"]
    assert text == '"""Names."""\n\nfrom own.networks.small import count\n\n__all__ = [\n    "count",\n]\n'
    assert set(Trace(["networks.Big"], project).modules) == {"networks", "networks.big"}
    assert set(Trace(["transforms.Near"], project).modules) == {
        "transforms",
        "transforms.near",
        "transforms.far",
    }


def test_the_package_has_each_module_under_its_new_name(project):
    texts = Trace(["pipelines.top", "networks.Small"], project).texts("own", "About.", "v1")
    assert texts["own/__init__.py"] == '"""About."""\n\n__version__ = "v1"\n'
    top = texts["own/pipelines/top.py"]
    assert "from own import networks\nfrom own.pipelines import low\n" in top
    assert "    from own.pipelines.late import thing\n" in top
    before = top.replace("from own import networks", "import networks").replace("own.", "")
    assert before == TOP  # and nothing else is changed
    assert texts["own/pipelines/low.py"] == PROJECT["pipelines/low.py"]


def test_a_target_that_is_not_there_is_told(project):
    with pytest.raises(DataError, match=r"expected a module of networks, .*, found networkz\.Big"):
        Trace(["networkz.Big"], project)
    with pytest.raises(DataError, match="expected a name in networks, found Huge"):
        Trace(["networks.Huge"], project)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import networks", "from own import networks"),
        ("import networks as n", "from own import networks as n"),
        ("import pipelines.runs as r", "import own.pipelines.runs as r"),
        ("from pipelines import a, b", "from own.pipelines import a, b"),
        ("from pipelines.a import (\n    b,\n)", "from own.pipelines.a import (\n    b,\n)"),
        ("from .a import b", "from .a import b"),
        ("import pipelinesque.a", "import pipelinesque.a"),
        ("'''from pipelines import a'''", "'''from pipelines import a'''"),
        ("if 'é':  from pipelines import a  # ü", "if 'é':  from own.pipelines import a  # ü"),
    ],
)
def test_imports_are_renamed_and_nothing_else(before, after):
    assert renamed(before, "own") == after


@pytest.mark.parametrize("line", ["import pipelines.runs", "import networks, transforms"])
def test_an_import_that_binds_another_name_is_refused(line):
    with pytest.raises(ValueError, match="expected `from"):
        renamed(line, "own")


def test_every_module_of_the_project_can_be_renamed():
    files = [file for name in ("networks", "transforms", "pipelines") for file in (ROOT / name).rglob("*.py")]
    assert len(files) > 100
    for file in files:
        tree = ast.parse(renamed(file.read_text(encoding="utf-8"), "own"))
        named = {
            alias.name if isinstance(node, ast.Import) else f"{node.module}"
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom)) and not getattr(node, "level", 0)
            for alias in node.names
        }
        assert not any(name.split(".")[0] in ("networks", "transforms", "pipelines") for name in named), file


def test_requirements_are_packages_with_the_versions_that_are_installed(project, monkeypatch):
    (project / "pipelines/low.py").write_text("import PIL\nimport pydicom\nimport itk\nimport monai\n")
    found = Trace(["pipelines.low"], project).requirements(["nibabel"])
    assert {"pillow", "pydicom", "pylibjpeg", "itk", "nibabel", "fire", "jsonschema"} <= found.keys()
    assert not {"monai", "torch", "numpy", "itk-core", "scipy"} & found.keys()
    assert found["pillow"] == sys.modules["PIL"].__version__


def test_what_is_a_module():
    assert is_module("pipelines.runs")
    assert is_module("networks")
    assert not is_module("pipelines.runs.flag")
    assert not is_module("monai.data")

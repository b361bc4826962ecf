import importlib
import json
import sys

import pytest

from pipelines import sources


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of ours with a module that leans on others; gives a function that hashes it afresh."""
    files = {
        "__init__": "",
        "top": "import numpy\nfrom .middle import LIMIT, shape\n",
        "middle": "from cottage import low\nLIMIT = 3\ndef shape(): return low.DEEP\n",
        "low": "DEEP = 1\n",
        "aside": "from cottage import top\n",
    }
    for name, text in files.items():
        (tmp_path / "cottage").mkdir(exist_ok=True)
        (tmp_path / "cottage" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sources, "OWN", ("cottage",))

    def digest(module="cottage.top"):
        sources.digest.cache_clear()
        return sources.digest(module)

    yield tmp_path / "cottage", digest
    sources.digest.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "cottage"]:
        del sys.modules[name]


@pytest.mark.parametrize("changed", ["top", "middle", "low"])
def test_a_change_in_any_module_that_is_imported_shows(package, changed):
    folder, digest = package
    before = digest()
    assert digest() == before
    path = folder / f"{changed}.py"
    path.write_text(path.read_text() + "# another constant\n")
    assert digest() != before


def test_a_change_elsewhere_does_not(package):
    folder, digest = package
    before = digest()
    (folder / "aside.py").write_text("nothing = 0\n")
    assert digest() == before
    assert digest("cottage.aside") != before


def test_nothing_is_imported_for_it(package):
    _, digest = package
    digest("cottage.top")
    assert not any(name.split(".")[0] == "cottage" for name in sys.modules)


def test_what_is_ours():
    assert sources.is_own("transforms.panels")
    assert not sources.is_own("transformers.panels")
    assert not sources.is_own("monai.transforms")


def test_a_name_of_ours_is_known_wherever_it_was_written(monkeypatch):
    config = {
        "network_def": {
            "_target_": "featherseg_lits.networks.LighterUNet",
            "a": ["transforms.Slicewised", 1],
        },
        "code": "$@code::path or @code::load('featherseg_dce_us.pipelines.runs')",
        "others": ["monai.networks.nets.UNet", "data/networks.old/x", "featherseg_lits.configs"],
    }
    here = {
        "network_def": {"_target_": "networks.LighterUNet", "a": ["transforms.Slicewised", 1]},
        "code": "$@code::path or @code::load('pipelines.runs')",
        "others": config["others"],
    }
    assert sources.localized(config) == here
    monkeypatch.setattr(sources, "HOME", "featherseg_ceus.")
    in_a_package = json.dumps(sources.localized(config))
    assert in_a_package == json.dumps(sources.localized(here))
    assert '"featherseg_ceus.networks.LighterUNet"' in in_a_package
    assert "'featherseg_ceus.pipelines.runs'" in in_a_package


def test_what_is_loaded_is_hashed_and_nothing_else(package):
    folder, _ = package
    importlib.import_module("cottage.low")
    before = sources.loaded()
    (folder / "aside.py").write_text("# not imported\n")
    assert sources.loaded() == before
    (folder / "low.py").write_text("DEEP = 2\n")
    assert sources.loaded() != before
    importlib.import_module("cottage.aside")
    assert len(sources.loaded()) == 12

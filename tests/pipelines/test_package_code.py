import json
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, create_workflow, verify_net_in_out

import networks
from pipelines.package_code import BUNDLE_ROOT, NEEDED, CodeInBundle, strings
from tests.conftest import ROOT

PACKAGES = ("featherseg_one", "featherseg_two")
CONFIG = {
    "imports": ["$import os", "$import pipelines.runs as runs", "$from pipelines.cases import CaseDataset"],
    "more": ["$import transforms"],
    "runs": {"keys": ["runs.flag"]},
    "a": "$runs.flag(@runs#keys) and [runs.folder(x, 'runs.flag') for x in @runs]",
    "b": "$lambda é: (é, transforms.breast, runs)",
    "c": {"_target_": "networks.LighterUNet", "in_channels": "@a", "_disabled_": "$not runs.flag(@b)"},
    "d": {"_target_": "Resized", "reader": "$CaseDataset"},
    "e": "runs.flag",
    "f": "@runs",
}


def test_expressions_and_targets_refer_to_the_bundles_own_code():
    code = CodeInBundle("own", CONFIG)
    assert code.turned(CONFIG) == {
        "imports": ["$import os"],
        "runs": {"keys": ["runs.flag"]},
        "a": "$@code::runs.flag(@runs::keys) and [@code::runs.folder(x, 'runs.flag') for x in @runs]",
        "b": "$lambda é: (é, @code::transforms.breast, @code::runs)",
        "c": {
            "_target_": "own.networks.LighterUNet",
            "_requires_": "@code::path",
            "in_channels": "@a",
            "_disabled_": "$not @code::runs.flag(@b)",
        },
        "d": {"_target_": "Resized", "reader": "$@code::CaseDataset"},
        "e": "runs.flag",
        "f": "@runs",
    }
    assert code.targets == {
        *("pipelines.runs.flag", "pipelines.runs.folder", "pipelines.runs", "transforms.breast"),
        *("pipelines.cases.CaseDataset", "networks.LighterUNet"),
    }
    found = code.code()
    assert found.keys() == {"path", "load", "runs", "transforms", "CaseDataset"}
    assert found["runs"] == "$@code::path or @code::load('own.pipelines.runs')"
    assert found["CaseDataset"] == "$@code::path or @code::load('own.pipelines.cases').CaseDataset"
    assert code.code().keys() == {"path", "load"}  # each configuration has what itself uses


def test_all_texts_are_found():
    assert list(strings({"a": ["b", {"c": "d"}, 1, None], "e": "f"})) == ["b", "d", "f"]


@pytest.fixture
def bundles(tmp_path, monkeypatch):
    """Two folders of bundles, each with code of its own under the same names, and nothing on the path."""
    for package in PACKAGES:
        folder = tmp_path / package
        (folder / package / "pipelines").mkdir(parents=True)
        (folder / package / "networks").mkdir()
        (folder / package / "__init__.py").touch()
        (folder / package / "pipelines/__init__.py").touch()
        (folder / package / "pipelines/runs.py").write_text(f"def name(): return {package!r}\n")
        (folder / package / "networks/__init__.py").write_text(
            "import torch\n\n\nclass Net(torch.nn.Conv2d):\n    def __init__(self):\n"
            "        super().__init__(1, 1, 3)\n"
        )
        source = {
            "imports": ["$import pipelines.runs as runs"],
            "network_def": {"_target_": "networks.Net"},
            "name": "$runs.name()",
            "initialize": ["$print('in', runs.name())"],
            "run": ["$[@name, type(@network_def).__module__]"],
        }
        code = CodeInBundle(package, source)
        turned = code.turned(source)
        imports = [f"$import {module}" for module in NEEDED]
        turned |= {"imports": imports, "bundle_root": BUNDLE_ROOT, "code": code.code()}
        (folder / "configs").mkdir()
        (folder / "configs/inference.json").write_text(json.dumps(turned))
        tensor = {"num_channels": 1, "spatial_shape": [8, 8], "dtype": "float32"}
        metadata = {"network_data_format": {"inputs": {"image": tensor}, "outputs": {"pred": tensor}}}
        (folder / "configs/metadata.json").write_text(json.dumps(metadata))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
        del sys.modules[name]


def test_a_workflow_finds_its_code_from_anywhere_and_not_that_of_another(bundles):
    for package in PACKAGES:
        workflow = create_workflow(config_file=str(bundles / package / "configs/inference.json"))
        assert workflow.run() == [[package, f"{package}.networks"]]
        assert workflow.parser.get_parsed_content("bundle_root") == str(bundles / package)
    assert Path(networks.__file__).parent == ROOT / "networks"  # the project's own, beside them


def test_a_relative_path_and_the_bundles_own_folder_do_too(bundles, monkeypatch):
    first, second = PACKAGES
    assert create_workflow(config_file=f"../{first}/configs/inference.json").run()[0][0] == first
    monkeypatch.chdir(bundles / second / "configs")
    assert create_workflow(config_file="inference.json").run()[0][0] == second


@pytest.mark.parametrize("listed", [False, True])
def test_commands_without_a_workflow_find_it(bundles, listed):
    package = PACKAGES[listed]
    file, meta = (str(bundles / package / f"configs/{name}.json") for name in ("inference", "metadata"))
    verify_net_in_out("network_def", meta_file=meta, config_file=[file] if listed else file, device="cpu")
    assert f"{package}.networks" in sys.modules


def test_a_tool_may_say_where_the_bundle_is(bundles):
    package = PACKAGES[0]
    parser = ConfigParser()
    parser.read_config(str(bundles / package / "configs/inference.json"))
    parser.config["bundle_root"] = str(bundles / package)  # as MONAI Label does
    sys.path.insert(0, str(bundles / package))
    assert type(parser.get_parsed_content("network_def")).__module__ == f"{package}.networks"
    sys.path.remove(str(bundles / package))
    assert str(bundles / package) in sys.path  # ours is still there, for processes to come
    assert parser.get_parsed_content("name") == package


def test_properties_are_asked_for_without_running(bundles):
    package = PACKAGES[1]
    workflow = ConfigWorkflow(
        str(bundles / package / "configs/inference.json"), workflow_type="infer", init_id="none"
    )
    workflow.initialize()
    assert type(workflow.network_def).__module__ == f"{package}.networks"
    assert workflow.bundle_root == str(bundles / package)


def test_the_network_is_exported(bundles, tmp_path):
    package = PACKAGES[0]
    file = bundles / package / "configs/inference.json"
    torch.save(torch.nn.Conv2d(1, 1, 3).state_dict(), tmp_path / "model.pt")
    out = tmp_path / "model.ts"
    ckpt_export(config_file=str(file), ckpt_file=str(tmp_path / "model.pt"), filepath=str(out))
    assert torch.jit.load(out)(torch.zeros(1, 1, 8, 8)).shape == (1, 1, 6, 6)

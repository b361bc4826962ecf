import getpass
import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, verify_net_in_out
from typer.testing import CliRunner

from pipelines import package as packaging
from pipelines.cli import app
from pipelines.errors import DataError
from pipelines.files import PARTIAL, read_json
from pipelines.package import package
from tests.bundles.running import BUNDLES
from tests.conftest import ROOT
from tests.pipelines.package_runs import SECRET, make_run

LAYOUT = {
    *(f"configs/{name}.json" for name in ("train", "inference", "evaluate", "multi_gpu_train", "metadata")),
    *("configs/logging.conf", "models/model.pt", "docs/README.md", "LICENSE", "requirements.txt"),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder as the project's, with a run of lits in it."""
    folder = tmp_path_factory.mktemp("package") / "workspace"
    folder.mkdir()
    (folder / "bundles").symlink_to(ROOT / "bundles")
    before = Path.cwd()
    os.chdir(folder)
    make_run(Path("runs/lits/mine"), "lits")
    os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def inside(project, monkeypatch):
    monkeypatch.chdir(project)


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_package_has_the_zoos_layout_and_its_zip_the_same(project):
    done = package("lits", torchscript=True, out="layout")  # of the newest finished run
    assert done == packaging.Packaged(Path("layout/lits"), Path("layout/lits.zip"), "run mine")
    files = files_of(done.folder)
    own = {path for path in files if path.startswith("featherseg_lits/")}
    assert files.keys() == LAYOUT | {"models/model.ts"} | own
    assert {"featherseg_lits/networks/summary.py", "featherseg_lits/pipelines/datasets/lits.py"} <= own
    assert not any("ceus" in path or "dce_us" in path or path.endswith(".pyc") for path in own)
    with zipfile.ZipFile(done.archive) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            f"lits/{path}": content for path, content in files.items()
        }
    assert files["LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert {path.name for path in Path("layout").iterdir()} == {"lits", "lits.zip"}
    # Nothing says where, by whom or on what machine it was made.
    secrets = {str(ROOT), str(project), str(Path.home()), SECRET, platform.node(), sys.prefix}
    secrets |= {name for name in {getpass.getuser(), os.environ.get("SUDO_USER", "")} if len(name) > 4}
    everything = b"\n".join((*(path.encode() for path in files), *files.values()))
    assert [one for one in secrets if len(one) > 4 and one.encode() in everything] == []
    assert all(json.loads(files[path]) for path in files if path.endswith(".json"))


def test_the_same_input_gives_the_same_zip(project):
    first = package("lits", out="first").archive.read_bytes()
    # Elsewhere, later, and in a process whose hashes are seeded otherwise.
    shutil.copytree("runs/lits/mine", "elsewhere/mine")
    code = "import sys; from pipelines.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", code, "package", "lits", "--checkpoint", "elsewhere/mine/model.pt"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [*words, "--out", "second"], env=environment, capture_output=True, text=True, check=True
    )
    assert Path("second/lits.zip").read_bytes() == first
    *told, command = done.stdout.splitlines()
    assert told == ["weights: run mine", "bundle: second/lits", "zip: second/lits.zip"]
    assert "run inferring --config_file second/lits/configs/inference.json" in command


def test_an_earlier_package_is_replaced_whole(project):
    folder = package("lits", out="replaced").folder
    (folder / "models/old.pt").touch()
    leftover = folder.with_name(f"{PARTIAL}999999999@{platform.node()}@new@lits")
    (leftover / "configs").mkdir(parents=True)
    make_run(Path("runs/lits/other"), "lits", learning_rate=0.5)
    assert package("lits", checkpoint="runs/lits/other/model.pt", out="replaced").weights == "run other"
    shutil.rmtree("runs/lits/other")
    assert not (folder / "models/old.pt").exists()
    assert read_json(folder / "configs/train.json")["learning_rate"] == 0.5
    assert {path.name for path in Path("replaced").iterdir()} == {"lits", "lits.zip"}


def test_a_failure_leaves_what_was_there(project, monkeypatch):
    done = package("lits", out="kept")
    before = files_of(done.folder), done.archive.read_bytes()

    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="expected room to write kept/lits, found the disk full"):
        package("lits", out="kept")
    monkeypatch.undo()
    os.chdir(project)
    assert (files_of(done.folder), done.archive.read_bytes()) == before
    assert {path.name for path in Path("kept").iterdir()} == {"lits", "lits.zip"}


def test_what_is_no_package_is_not_replaced(project):
    Path("mine/lits").mkdir(parents=True)
    Path("mine/lits/thesis.txt").touch()
    with pytest.raises(
        DataError, match="expected a packaged bundle to replace in mine/lits, found something"
    ):
        package("lits", out="mine")
    assert Path("mine/lits/thesis.txt").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nope"], r"expected one of the bundles in bundles/, .*ceus, dce_us.*lits.*, found 'nope'"),
        (["ceus"], r"expected a finished run of ceus in runs/ceus, found none; train one with"),
        (
            ["lits", "--checkpoint", "a", "--experiment", "b"],
            "expected --checkpoint or --experiment, found both",
        ),
        (
            ["ceus", "--checkpoint", "runs/lits/mine/model.pt"],
            "expected weights of ceus, found those of lits",
        ),
        (["lits", "--checkpoint", "bare.pt"], "expected weights of ReducedUNet as configured, found others"),
    ],
)
def test_bad_input_is_one_line(project, words, message):
    torch.save(torch.nn.Conv2d(1, 1, 3).state_dict(), "bare.pt")
    result = CliRunner().invoke(app, ["package", *words])
    assert isinstance(result.exception, DataError)
    with pytest.raises(DataError, match=message) as told:
        raise result.exception
    assert "\n" not in str(told.value)
    assert not Path("dist").exists()


def test_outside_of_the_project_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match="of which there is none here; type the command in the project's folder"
    ):
        package("lits")


def test_a_packaged_run_becomes_a_package_again(project):
    """A training within a packaged bundle names its modules otherwise; its record is read all the same."""
    ours = {"_target_": "networks.ReducedUNet", "in_channels": 1, "out_channels": 1}
    file = make_run(Path("runs/lits/ours"), "lits", network_def=ours)
    folder = package("lits", checkpoint=str(file), out="again").folder
    config = read_json(folder / "configs/train.json")
    assert config["network_def"]["_target_"] == "featherseg_lits.networks.ReducedUNet"
    shutil.copytree("runs/lits/ours", "runs/lits/inner")
    Path("runs/lits/inner/config.json").write_text(json.dumps({**config, "seed": 5}))
    again = package("lits", checkpoint="runs/lits/inner/model.pt", out="again")
    told = read_json(again.folder / "configs/train.json")
    assert told["network_def"] == config["network_def"]
    assert told["seed"] == 5
    for name in ("ours", "inner"):
        shutil.rmtree(f"runs/lits/{name}")


@pytest.mark.parametrize("bundle", BUNDLES)
def test_monais_commands_take_a_package_of_every_bundle(project, monkeypatch, bundle):
    fitted = (
        {"whitening": {"mean": [0.0] * 4, "matrix": np.eye(4).tolist()}} if bundle == "brain_tumour" else {}
    )
    file = make_run(Path(f"runs/{bundle}/every"), bundle, **fitted)
    folder = package(bundle, checkpoint=str(file), out="every").folder.resolve()
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir("/")
    config, meta = (str(folder / f"configs/{name}.json") for name in ("inference", "metadata"))
    verify_net_in_out("network_def", config_file=config, meta_file=meta, device="cpu")
    script, weights = folder / "models/exported.ts", folder / "models/model.pt"
    ckpt_export(config_file=config, meta_file=meta, ckpt_file=str(weights), filepath=str(script))
    assert script.is_file()
    workflow = ConfigWorkflow(
        config, workflow_type="infer", logging_file=False, init_id="none", dataset_dir=str(project / "none")
    )
    workflow.initialize()
    assert workflow.bundle_root == str(folder)
    assert workflow.parser.get_parsed_content("model_settings")["image_size"] == [32, 32]
    # What reads and prepares images is the bundle's own, beside that of the project.
    transforms = workflow.preprocessing.flatten().transforms
    assert any(type(one).__module__.startswith(f"featherseg_{bundle}.") for one in transforms)
    assert not any(type(one).__module__.startswith(("pipelines", "transforms")) for one in transforms)
    os.chdir(project)
    shutil.rmtree(f"runs/{bundle}/every")

"""What takes minutes: the model zoo's own checks, and fresh environments of a bundle's requirements alone."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import datasets
from pipelines.files import read_json
from tests.bundles import isolated
from tests.bundles.running import BUNDLES

pytestmark = pytest.mark.slow
ZOO = Path(os.environ.get("FEATHERSEG_ZOO", "nowhere"))
SCHEMA = os.environ.get("FEATHERSEG_SCHEMA")  # of metadata.json; without it, the zoo's script downloads it
every_bundle = pytest.mark.parametrize("bundle", BUNDLES)


@pytest.mark.skipif(not (ZOO / "ci").is_dir(), reason="no copy of the model zoo: see `make package-checks`")
@every_bundle
def test_the_zoos_own_checks_pass(packages, tmp_path, bundle):
    models = tmp_path / "models"
    shutil.copytree(packages(bundle), models / bundle)
    (models / "model_info.json").write_text("{}")
    if SCHEMA:
        (models / bundle / "eval").mkdir()
        shutil.copy(SCHEMA, models / bundle / "eval/schema.json")
    else:
        _zoo("prepare_schema.py", "-l", bundle, "-p", models)
    # It lists what it would install, which is what the bundle says that it requires.
    _zoo("get_bundle_requirements.py", "-b", bundle, "-p", models, cwd=tmp_path)
    listed = (tmp_path / f"requirements_{bundle}.txt").read_text().split()
    assert sorted(listed) == sorted((models / bundle / "requirements.txt").read_text().split())
    python = isolated.environment(tmp_path / "python", models / bundle / "requirements.txt")
    _zoo("verify_bundle.py", "-b", bundle, "-p", models, "-m", "min", python=python)
    out = _zoo("verify_bundle.py", "-b", bundle, "-p", models, "-m", "full", python=python)
    assert "data shape is verified correctly" in out
    assert "export weights into TorchScript module successfully" in out


def _zoo(script, *words, python=sys.executable, cwd=None):
    """What a script of the zoo's prints."""
    command = [python, "-W", "ignore", ZOO.resolve() / "ci" / script, *words]
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=isolated.clean(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("bundle", ["dce_us", "lits"])
def test_a_fresh_environment_with_what_is_required_runs_the_cards_commands(packages, tmp_path, bundle):
    shutil.copytree(packages(bundle), tmp_path / bundle)
    card = (tmp_path / bundle / "docs/README.md").read_text()
    install, *commands = re.search(r"```\n(.*?)\n```", card, re.DOTALL)[1].splitlines()
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "fresh"], check=True)
    binaries = tmp_path / "fresh" / "bin"
    environment = {**isolated.clean(), "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}

    def type_in(line):
        done = subprocess.run(
            shlex.split(line), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    type_in(f"{install} --quiet --constraint {_constraints()}")
    assert "featherseg" not in type_in("python -m pip list")
    size = {"lits": 64, "dce_us": 96}[bundle]
    datasets.get(bundle).phantom(tmp_path / "DATA", cases=6, seed=3, size=size)
    image = next((tmp_path / "DATA").rglob({"lits": "volume-*.nii", "dce_us": "images/*_img1.png"}[bundle]))
    (tmp_path / "IN").mkdir()
    shutil.copy(image, tmp_path / "IN")
    inferring, training, evaluating, several = commands
    type_in(inferring)
    assert len(list((tmp_path / "OUT").glob("*_mask.*"))) >= 1
    small = " --max_epochs 1 --num_workers 0 --batch_size 4 --num_folds 3"
    type_in(f"{training}{small} --run_name new")
    assert read_json(tmp_path / f"runs/{bundle}/new/run.json")["status"] == "finished"
    type_in(f"{evaluating} --unseen true")
    type_in(f"{evaluating} --run_name new --num_folds 3")
    type_in(f"{several}{small} --run_name two")
    for place in ("packaged", "new"):
        assert (tmp_path / f"runs/{bundle}/{place}/evaluation/cases.csv").is_file()
    assert read_json(tmp_path / f"runs/{bundle}/two/run.json")["status"] == "finished"


def _constraints():
    """The project's versions, for what the requirements require in turn."""
    return Path(__file__).resolve().parents[2] / "constraints.txt"

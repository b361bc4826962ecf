"""A Python that has what a packaged bundle requires and nothing else: no project, no other package."""

import importlib.metadata
import json
import os
import re
import subprocess
import venv
from pathlib import Path

from packaging.requirements import Requirement

# Carried out in one process, since each imports PyTorch and MONAI anew.
DRIVER = """
import json, sys, warnings
warnings.simplefilter("ignore")
import monai.bundle
for name, keywords in json.load(sys.stdin):
    print("COMMAND", name, flush=True)
    getattr(monai.bundle, name)(**keywords)
    if keywords.get("run_id") and "evaluate" not in str(keywords["config_file"]):
        kind = "train" if keywords["run_id"] == "training" else "infer"
        options = {key: value for key, value in keywords.items() if key not in ("run_id", "run_name")}
        workflow = monai.bundle.ConfigWorkflow(**options, workflow_type=kind, init_id="none")
        workflow.initialize()
        print("MISSING", workflow.check_properties(), flush=True)
assert not {"networks", "pipelines", "transforms"} & set(sys.modules), sorted(sys.modules)
"""


def _with_what_they_require(names):
    """The installed distributions of these names, and of all that they require."""
    wanted, found = list(names), {}
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform
        for line in found[name].requires or ():
            required = Requirement(line)
            if required.marker is None or required.marker.evaluate({"extra": ""}):
                wanted.append(required.name)
    return found


def environment(folder, requirements):
    """Make a virtual environment of what is installed here; returns its interpreter.

    Args:
        folder: that it is made in.
        requirements: the requirements.txt of a packaged bundle.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(Path(folder).glob("lib/python*/site-packages"))
    names = [line.split("==")[0] for line in Path(requirements).read_text().split()]
    for distribution in _with_what_they_require(names).values():
        for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))
    return Path(folder) / "bin" / "python"


def clean():
    """The environment of a process that knows nothing of the project."""
    kept = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")
    }
    return {**kept, "OMP_NUM_THREADS": "2"}


def carry_out(python, folder, commands):
    """Carry out commands of `monai.bundle` in a folder; returns what they printed, command by command.

    Args:
        commands: name and arguments of each.
    """
    done = subprocess.run(
        [python, "-I", "-c", DRIVER],
        input=json.dumps(commands),
        cwd=folder,
        env=clean(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout.split("COMMAND ")[1:]

import subprocess
import sys

import pytest

from pipelines.label import shims

START = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("shims", {shims.__file__!r})
shims = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shims)
shims.install()
"""


def run(code, path="", env=None):
    """What Python prints that loads the file as the label environment does, with `path` before all others."""
    script = f"import sys\nsys.path.insert(0, {str(path)!r})\n{START}{code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_uid_that_pydicom_seg_takes_is_the_standards():
    code = "import pydicom._storage_sopclass_uids as uids; print(uids.SegmentationStorage)"
    assert run(code) == ["1.2.840.10008.5.1.4.1.1.66.4"]  # DICOM PS3.4, table B.5-1


def test_without_torchvision_its_functions_are_there_and_say_why_they_do_nothing():
    code = """
from torchvision.utils import make_grid, save_image
try:
    make_grid(1)
except RuntimeError as error:
    print("torchvision" in str(error))
"""
    assert run(code) == ["True"]


def write_torchvision(folder, init):
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(init)
    (folder / "torchvision" / "utils.py").write_text("make_grid = save_image = 'real'\n")


def test_a_torchvision_that_works_is_not_hidden(tmp_path):
    write_torchvision(tmp_path, "from torchvision import utils\nversion = 'real'\n")
    assert run("import torchvision; print(torchvision.version, torchvision.utils.make_grid)", tmp_path) == [
        "real",
        "real",
    ]


def test_a_torchvision_that_does_not_fit_its_torch_is_replaced(tmp_path):
    broken = "from torchvision import utils\nraise RuntimeError('operator torchvision::nms does not exist')\n"
    write_torchvision(tmp_path, broken)
    code = "from torchvision.utils import make_grid; import torchvision; print(callable(make_grid))"
    assert run(code, tmp_path) == ["True"]


@pytest.mark.parametrize("name", ["no_such_module", "pydicom.no_such_module"])
def test_other_modules_stay_missing(name):
    code = f"""
try:
    import {name}
except ModuleNotFoundError:
    print("missing")
"""
    assert run(code) == ["missing"]


def test_installed_twice_it_is_there_once():
    code = "shims.install(); print(sum(type(one).__name__ == 'Missing' for one in sys.meta_path))"
    assert run(code) == ["1"]

"""What many tests share: small volumes on disk, and a folder to run bundles in."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


def write_volume(path, array, affine=None):
    """Write an array as NIfTI; returns its path as text."""
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return str(path)


def pytest_collection_modifyitems(items):
    """Tests that share what is costly to make, a bundle's runs or a file's fixtures, go to one process."""
    for item in items:
        values = item.callspec.params if hasattr(item, "callspec") else {}
        name = values.get("bundle") or item.path.stem.removeprefix("test_")
        item.add_marker(pytest.mark.xdist_group(str(name)))


@pytest.fixture
def cases(tmp_path):
    """Three small CT-like cases with their labels: 8, 9 and 10 slices, the last one without a lesion."""
    random = np.random.default_rng(0)
    found = []
    for number in range(3):
        shape = (24, 20, 8 + number)
        image = random.normal(40, 60, shape).astype(np.int16)
        label = np.ones(shape, np.uint8)
        if number < 2:
            label[8:14, 6:12, 2:5] = 2
            image[label == 2] += 80
        found.append(
            {
                "case": f"volume-{number}",
                "patient": str(number),
                "image": write_volume(tmp_path / f"volume-{number}.nii.gz", image),
                "label": write_volume(tmp_path / f"segmentation-{number}.nii.gz", label),
            }
        )
    return found


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """An empty working directory with the bundles in it, as in the repo's root."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "bundles").symlink_to(ROOT / "bundles")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "2"))
    return folder

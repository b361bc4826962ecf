"""The datasets: one file each, which knows how its data lies on disk.

    from pipelines import datasets

    cases = datasets.get("lits").index("data/lits")

A dataset's module has

- `index(root)`: its cases as a MONAI datalist;
- `check(root)`: what is wrong with the data;
- `phantom(root)`: writes data in the same layout (what either takes as text beyond what all take is an option
  of the command line, see `options`);
- `read(case, targets)`: a case's values, the mask of its lesions and the spacing, for a plain threshold;
- `LEVELS`: the values that such a threshold is looked for in, see `reading.Levels`;
- optionally `entries(file)`: what a file gives to segment, where that is not just the one image it holds.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from pipelines.errors import DataError

MODULES = ("brain_tumour", "ceus", "dce_us", "inbreast", "lits")


def get(name: str) -> ModuleType:
    """The module of a dataset, imported now.

    Raises:
        DataError: for an unknown name, or one whose module did not travel with a packaged bundle.
    """
    known = [one for one in MODULES if find_spec(f"{__name__}.{one}")]
    if name not in known:
        raise DataError(f"expected one of the datasets {', '.join(known)}, found {name!r}")
    return import_module(f"{__name__}.{name}")

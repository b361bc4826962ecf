"""Two modules that MONAI Label asks for and that its environment lacks; a copy of this file lies there.

It is loaded as every interpreter of that environment starts, so that what the server starts has them too. It
needs nothing but Python itself. Modules that are there and work always come first.
"""

from __future__ import annotations

import importlib.machinery
import sys
from types import ModuleType

PYDICOM = "pydicom._storage_sopclass_uids"
TORCHVISION = "torchvision"


def _pydicom(module: ModuleType) -> None:
    """pydicom-seg 0.4.1 takes one UID from a module that pydicom 3 no longer has."""
    from pydicom.uid import SegmentationStorage

    module.SegmentationStorage = SegmentationStorage


def _torchvision(module: ModuleType) -> None:
    """MONAI Label imports two functions that draw pictures of its own training, which is not used here."""

    def missing(*arguments: object, **options: object) -> None:
        raise RuntimeError("expected torchvision to draw pictures, found none that works beside this torch")

    utils = ModuleType(f"{TORCHVISION}.utils")
    utils.make_grid = utils.save_image = missing
    module.utils = sys.modules[utils.__name__] = utils
    module.__path__ = []


class Missing:
    """A finder that stands after all others, for modules that nobody has found."""

    contents = {PYDICOM: _pydicom, TORCHVISION: _torchvision}  # noqa: RUF012 - it is never changed

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        """Python's way to ask for a module."""
        return importlib.machinery.ModuleSpec(name, self) if name in self.contents else None

    def create_module(self, spec: object) -> None:
        """An ordinary module will do."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module."""
        self.contents[module.__name__](module)


class Unsure:
    """A finder that stands before all others, for a torchvision that is there but may not fit its torch."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        """Find the real one, whose loader then falls back to what `Missing` has."""
        if name != TORCHVISION:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            self.real, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: object) -> None:
        """An ordinary module will do."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the real one; where it fails, forget what it has loaded."""
        try:
            self.real.exec_module(module)
        except Exception:
            for name in [name for name in sys.modules if name.startswith(f"{TORCHVISION}.")]:
                del sys.modules[name]
            _torchvision(module)


def install() -> None:
    """Put both finders in place; a second time does nothing."""
    if not any(isinstance(finder, Missing) for finder in sys.meta_path):
        sys.meta_path.insert(0, Unsure())
        sys.meta_path.append(Missing())

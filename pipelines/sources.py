"""Our own code: which modules are ours, and what they looked like when something was made with them."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

# In a packaged bundle our packages are parts of one called after it, such as "featherseg_lits.".
HOME = __name__.removesuffix("pipelines.sources")
OWN = tuple(f"{HOME}{name}" for name in ("networks", "pipelines", "transforms"))
ANYWHERE = re.compile(r"(?<![\w./])(?:featherseg_\w+\.)?(?=(?:networks|pipelines|transforms)\.\w)")


def is_own(module: str) -> bool:
    """Whether a module belongs to this project, whose releases do not tell one state of it from another."""
    return any(module == own or module.startswith(f"{own}.") for own in OWN)


def localized(content: Any) -> Any:
    """JSON whose texts name our modules as they are called here, wherever they were written.

    A working copy has `networks.LighterUNet`, a packaged bundle `featherseg_lits.networks.LighterUNet`.
    """
    return json.loads(ANYWHERE.sub(HOME, json.dumps(content)))


@functools.cache
def digest(module: str) -> str:
    """A hash of the source of one of our modules and of all of ours that it imports, directly or not.

    Args:
        module: its full name, such as "transforms.panels".
    """
    known: dict[str, bytes] = {}
    _collect(module, known)
    return hashlib.sha256(repr(sorted(known.items())).encode()).hexdigest()


def loaded() -> str:
    """A hash of the source of all of our modules that this process has imported: 12 hexadecimal digits."""
    own = sorted((name, module) for name, module in list(sys.modules.items()) if is_own(name))
    files = [(name, Path(module.__file__)) for name, module in own if getattr(module, "__file__", None)]
    content = [(name, hashlib.sha256(file.read_bytes()).hexdigest()) for name, file in files]
    return hashlib.sha256(repr(content).encode()).hexdigest()[:12]


def _collect(module: str, known: dict[str, bytes]) -> None:
    if module in known:
        return
    spec = _found(module)
    if spec is None or not spec.origin:  # what is imported from a module may be a class or a function in it
        return
    known[module] = Path(spec.origin).read_bytes()
    package = module if spec.submodule_search_locations else module.rpartition(".")[0]
    for name in _imports(ast.parse(known[module]), package):
        _collect(name, known)


def _found(module: str) -> ModuleSpec | None:
    """As `importlib.util.find_spec`, which imports the packages that a module is in: ours import PyTorch."""
    top, *parts = module.split(".")
    spec = importlib.util.find_spec(top)
    for part in parts:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    return spec


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    """The modules that a source names in its imports; of `from a import b`, both `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if is_own(alias.name))
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            named = (base, *(f"{base}.{alias.name}" for alias in node.names))
            yield from filter(is_own, named)

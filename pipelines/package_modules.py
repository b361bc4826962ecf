"""The modules of ours that travel with a packaged bundle: found by their imports, renamed, written as text.

They become parts of one package called after the bundle, `featherseg_lits.pipelines.runs`, so that several
packaged bundles, and a working copy of this project, live in one process without taking each other's modules.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions, requires, version
from pathlib import Path

from pipelines import sources
from pipelines.errors import DataError

ROOT = Path(__file__).resolve().parents[1]
# What `python -m monai.bundle` itself imports where it is installed: its command line, and verify_metadata.
TOOLS = ("fire", "jsonschema")
# What a package finds where it is installed, without being told: pydicom its decoders.
PLUGINS = {"pydicom": ("pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg")}
# What metadata.json names in places of their own.
BASE = ("monai", "torch", "numpy")


class Trace:
    """All modules that some names need, followed through their imports without importing anything.

    A package that only gives names of its modules on, as `networks` does, travels with the names that are
    used, and so do the modules that these come from. What is imported for type checkers alone does not.

    Args:
        targets: full names of what is used, such as "networks.LighterUNet" or "pipelines.runs".
        root: the folder with our packages.

    Attributes:
        modules: name -> file, of all that travels.
        libraries: the top-level names of what they import of others, but for the standard library.

    Raises:
        DataError: a target that is no module of ours, or no name in one of our packages that pass names on.
    """

    def __init__(self, targets: Iterable[str], root: Path = ROOT) -> None:
        self.root = root
        self.modules: dict[str, Path] = {}
        self.libraries: set[str] = set()
        self._names: dict[str, set[str]] = {}  # of a package that passes names on: those that are used
        for target in sorted(targets):
            self._follow(target)

    def _follow(self, target: str) -> None:
        parts = target.split(".")
        found = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
        found = [name for name in found if _file(self.root, name)]
        if not found:
            raise DataError(f"expected a module of {', '.join(sources.OWN)}, found {target}")
        for name in found:
            if name not in self.modules:
                self._take(name)
        if found[-1] in self._names and len(found) < len(parts):
            self._pass_on(found[-1], parts[len(found)])

    def _take(self, name: str) -> None:
        file = self.modules[name] = _file(self.root, name)
        tree = ast.parse(file.read_bytes())
        if _passed_on(tree, name):
            self._names[name] = set()
            return
        for imported in _imports(tree, _package(name, file)):
            if sources.is_own(imported):
                self._follow(imported)
            elif imported.split(".")[0] not in sys.stdlib_module_names:
                self.libraries.add(imported.split(".")[0])

    def _pass_on(self, package: str, name: str) -> None:
        if name in self._names[package]:
            return
        origin = _passed_on(ast.parse(self.modules[package].read_bytes()), package).get(name)
        if origin is None:
            raise DataError(f"expected a name in {package}, found {name}; see {self.modules[package]}")
        self._names[package].add(name)
        self._follow(f"{origin}.{name}")

    def texts(self, package: str, about: str, code_version: str) -> dict[str, str]:
        """The text of each file of the package, by its path: our modules, renamed, below `package`.

        Args:
            package: the name that ours get in front, such as "featherseg_lits".
            about: what the package says that it is.
            code_version: what `runs.code_version` says in it.
        """
        texts = {f"{package}/__init__.py": f'"""{about}"""\n\n__version__ = "{code_version}"\n'}
        for name, file in sorted(self.modules.items()):
            path = f"{package}/{file.relative_to(self.root).as_posix()}"
            text = file.read_text(encoding="utf-8")
            if name in self._names:
                texts[path] = renamed(_only(text, name, self._names[name]), package)
            else:
                texts[path] = renamed(text, package)
        return texts

    def requirements(self, also: Iterable[str] = ()) -> dict[str, str]:
        """What has to be installed beside MONAI, PyTorch and NumPy: package -> the version installed here.

        Args:
            also: packages that MONAI needs for what a bundle asks of it.
        """
        asked = requires("featherseg") or []
        preferred = {_canonical(re.split(r"[^\w.-]", line)[0]) for line in asked}
        known, names = packages_distributions(), {*also, *TOOLS}
        for library in self.libraries - set(BASE):
            # A name may come from several packages, as itk does; ours asks for the one that has them all.
            choices = [library, *sorted(known.get(library, ()))]
            chosen = next((one for one in choices if _canonical(one) in preferred), choices[-1])
            names |= {chosen, *PLUGINS.get(chosen, ())}
        names = {_canonical(name) for name in names} - set(BASE)
        return {name: version(name).split("+")[0] for name in sorted(names)}


def is_module(name: str, root: Path = ROOT) -> bool:
    """Whether a full name is that of a module or a package of ours."""
    return _file(root, name) is not None


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-")


def _file(root: Path, module: str) -> Path | None:
    if not sources.is_own(module):
        return None
    path = root.joinpath(*module.split("."))
    choices = (path / "__init__.py", path.with_suffix(".py"))
    return next((one for one in choices if one.is_file()), None)


def _package(module: str, file: Path) -> str:
    """What a relative import in a module is relative to."""
    return module if file.name == "__init__.py" else module.rpartition(".")[0]


def _base(node: ast.ImportFrom, package: str) -> str:
    """The full name of the module that `from ... import` names."""
    if not node.level:
        return str(node.module)
    above = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    """The full name of all that a module imports, at any place in it, but not for type checkers alone."""
    for_checkers: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for_checkers |= {inner for line in node.body for inner in ast.walk(line)}
    used = [
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    for node in ast.walk(tree):
        if node in for_checkers:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
                # Of a whole package, what is taken from it.
                name = alias.asname or alias.name
                yield from (f"{alias.name}.{attribute}" for owner, attribute in used if owner == name)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{_base(node, package)}.{alias.name}" for alias in node.names)


def _passed_on(tree: ast.Module, name: str) -> dict[str, str]:
    """Of a package that only passes names on: name -> the module it comes from; else empty."""
    origins: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            base = _base(node, name)
            if not sources.is_own(base) or any(alias.asname for alias in node.names):
                return {}
            origins |= {alias.name: base for alias in node.names}
        elif not (_is_docstring(node) or _is_list_of_names(node) or isinstance(node, ast.ImportFrom)):
            return {}
    return origins


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_list_of_names(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"


def _only(text: str, name: str, names: set[str]) -> str:
    """The source of a package that passes names on, with these alone."""
    tree = ast.parse(text)
    parts = [ast.get_source_segment(text, node) for node in tree.body if _is_docstring(node)]
    lines = [
        f"from {_base(node, name)} import {', '.join(kept)}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        and (kept := sorted(alias.name for alias in node.names if alias.name in names))
    ]
    listed = "".join(f'    "{one}",\n' for one in sorted(names))
    return "\n\n".join([*parts, "\n".join(lines), f"__all__ = [\n{listed}]"]) + "\n"


def renamed(text: str, package: str) -> str:
    """A source whose imports of our modules name them as parts of `package`; all else stays as it is.

    Raises:
        ValueError: an import that cannot be renamed where it stands, such as `import pipelines.runs`, which
            binds another name then.
    """
    lines = text.splitlines(keepends=True)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and not node.level and sources.is_own(str(node.module)):
            before, after = f"from {node.module}", f"from {package}.{node.module}"
        elif isinstance(node, ast.Import) and any(sources.is_own(alias.name) for alias in node.names):
            alias = node.names[0]
            if len(node.names) > 1 or ("." in alias.name and alias.asname is None):
                raise ValueError(f"expected `from ... import` of our modules, found: {ast.unparse(node)}")
            before, after = f"import {alias.name}", f"import {package}.{alias.name}"
            if "." not in alias.name:
                after = f"from {package} import {alias.name}"
        else:
            continue
        line = lines[node.lineno - 1]
        start = len(line.encode()[: node.col_offset].decode())
        if not line.startswith(before, start):
            raise ValueError(f"expected an import on a line as Python writes it, found: {line.strip()}")
        lines[node.lineno - 1] = line[:start] + after + line[start + len(before) :]
    return "".join(lines)

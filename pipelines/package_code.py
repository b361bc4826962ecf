"""How a packaged bundle's configurations reach the code in the bundle's folder, wherever that lies.

`$import` in a configuration is carried out before anything else, when nobody has yet told Python where the
bundle is: MONAI puts its folder on the path later, and some of its commands never do. So our modules are
items of the configuration: what needs one refers to it, by `@code::runs` in an expression or by `_requires_`
beside a `_target_`, and MONAI then puts the bundle's folder on the path and imports it first.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from monai.bundle import ConfigExpression
from monai.bundle.reference_resolver import ReferenceResolver

from pipelines import sources
from pipelines.package_modules import is_module

# The folder above that of the configuration which one of MONAI's commands or workflows is carrying out.
BUNDLE_ROOT = (
    "$next((os.path.dirname(os.path.abspath(configs)) for configs in ("
    "getattr(names.get('self'), '__dict__', {}).get('config_root_path', os.path.dirname(str("
    "monai.utils.ensure_tuple(names['config_file_'])[0]).split(',')[0]) if 'config_file_' in names else None)"
    " for names in (caller.frame.f_locals for caller in inspect.stack(0))) if configs is not None), '.')"
)
NEEDED = ("importlib", "inspect", "os", "sys")  # by BUNDLE_ROOT, and to import
CODE = "code"
PATH = f"@{CODE}::path"


def strings(content: Any) -> Iterator[str]:
    """All texts in JSON, its keys left out."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        yield from (one for value in content.values() for one in strings(value))
    elif isinstance(content, list):
        yield from (one for value in content for one in strings(value))


def _own_import(text: Any) -> tuple[str, str] | None:
    """Of `$import pipelines.runs as runs`, or `$from pipelines import runs`, the name and what it names."""
    if isinstance(text, str) and ConfigExpression.is_import_statement(text):
        node = ast.parse(text[1:]).body[0]
        alias = node.names[0]
        full = f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
        if sources.is_own(full):
            return alias.asname or alias.name, full
    return None


class CodeInBundle:
    """Turns configurations of the project into those of one packaged bundle.

    Args:
        package: the bundle's own package, such as "featherseg_lits".
        configs: all whose expressions may use what any of them imports.

    Attributes:
        targets: the full names of all of ours that was turned: what has to travel.
    """

    def __init__(self, package: str, *configs: dict[str, Any]) -> None:
        self.package = package
        self.aliases = dict(filter(None, (_own_import(text) for one in configs for text in strings(one))))
        self.targets: set[str] = set()
        self._used: set[str] = set()

    def turned(self, content: Any) -> Any:
        """A configuration, or part of one, without imports of ours."""
        if isinstance(content, str):
            return self._expression(content) if content.startswith("$") else content
        if isinstance(content, list):
            return [self.turned(one) for one in content if not _own_import(one)]
        if not isinstance(content, dict):
            return content
        turned = {key: self.turned(value) for key, value in content.items() if not _all_own_imports(value)}
        target = content.get("_target_")
        if isinstance(target, str) and sources.is_own(target):
            self.targets.add(target)
            rest = {key: value for key, value in turned.items() if key != "_target_"}
            turned = {"_target_": f"{self.package}.{target}", "_requires_": PATH, **rest}
        return turned

    def _expression(self, text: str) -> str:
        """An expression whose names of our modules are references to them."""
        if ConfigExpression.is_import_statement(text):
            return text
        text = ReferenceResolver.normalize_id(text)
        # As long as what it stands for, so that places in the text stay.
        plain = re.sub(ReferenceResolver.id_matcher, lambda found: "_" * len(found[0]), text[1:])
        nodes = list(ast.walk(ast.parse(plain.strip(), mode="eval")))
        names = [node for node in nodes if isinstance(node, ast.Name)]
        taken = {node.value: node.attr for node in nodes if isinstance(node, ast.Attribute)}
        offset = 1 + len(plain) - len(plain.lstrip())
        for node in sorted(names, key=lambda node: -node.col_offset):
            if node.id in self.aliases:
                start = offset + len(plain.strip().encode()[: node.col_offset].decode())
                text = f"{text[:start]}@{CODE}::{node.id}{text[start + len(node.id) :]}"
                self._used.add(node.id)
                full = self.aliases[node.id]
                self.targets.add(f"{full}.{taken[node]}" if node in taken else full)
        return text

    def code(self) -> dict[str, str]:
        """The item `code` of a configuration: what was used since the last call, and where it is found."""
        # MONAI takes an expression with both `import` and a reference for Python, which it is not.
        found = {
            "path": "$sys.path.append(os.path.abspath(@bundle_root))",
            "load": "$importlib.import_module",
        }
        for name in sorted(self._used):
            full = self.aliases[name]
            module, attribute = (full, "") if is_module(full) else full.rsplit(".", 1)
            loaded = f"@{CODE}::load('{self.package}.{module}')"
            found[name] = f"${PATH} or {loaded}{attribute and '.' + attribute}"
        self._used.clear()
        return found


def _all_own_imports(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_own_import, value))

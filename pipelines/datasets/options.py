"""Options of one dataset alone on the command line, such as `--label-coding` of brain_tumour."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

from pipelines.errors import DataError


def options(function: Callable[..., Any], words: Sequence[str], known: Collection[str]) -> dict[str, str]:
    """The words of a command line that its own options leave, as arguments of a dataset's function.

    Args:
        function: of the dataset; what it takes as text beyond the known arguments may be given.
        words: `--key value` or `--key=value` each.
        known: the arguments that the command gives itself.

    Raises:
        DataError: an option that the function does not take, a word that is none, or one without a value.
    """
    own = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in known and isinstance(parameter.default, str)
    ]
    offered = f"only {', '.join(map(_spelt, own))} as a further option" if own else "no further option"
    found, rest = {}, list(words)
    while rest:
        key, equals, value = rest.pop(0).partition("=")
        name = key.removeprefix("--").replace("-", "_")
        if not key.startswith("--") or name not in own:
            raise DataError(f"expected {offered} of this dataset, found {key}; see --help")
        if not equals:
            if not rest:
                raise DataError(f"expected a value after {key}, found none")
            value = rest.pop(0)
        found[name] = value
    return found


def _spelt(name: str) -> str:
    return f"--{name.replace('_', '-')}"

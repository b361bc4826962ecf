"""What an error tells the annotator: errors of ours, and of the copies of our modules that bundles carry."""

from __future__ import annotations

import sys
from types import TracebackType

from pipelines.errors import causes

# By name, since a packaged bundle has classes of its own that are called the same.
OURS = {"DataError", "ImageError"}


def told(error: BaseException | None) -> str | None:
    """The one line that says what was expected and found; None where a bug was the cause."""
    for cause in causes(error):
        if OURS & {kind.__name__ for kind in type(cause).__mro__}:
            return str(cause)
    return None


def one_line_errors() -> None:
    """Show such an error as one line: what MONAI Label tells of a task that failed are its last lines."""

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        message = told(error)
        if message is None:
            sys.__excepthook__(kind, error, trace)
        else:
            print(f"featherseg: {message}", file=sys.stderr)

    sys.excepthook = show

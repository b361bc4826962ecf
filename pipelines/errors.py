"""The error that users see as a line of text, and the hook that shows it as such."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import TracebackType

UNKNOWN_CLASS = "Cannot locate class or function path"  # as MONAI says of a `_target_`


class DataError(ValueError):
    """Something outside the program is not as it has to be: a file, a folder, an option.

    The message is one line that says what was expected, what was found, where, and what to do.
    """


class NoDataError(DataError):
    """A folder holds no data of the layout that is looked for, so that it may hold other images."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what caused it, the last cause last; MONAI wraps what transforms and expressions raise."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def user_message(error: BaseException | None) -> str | None:
    """The message of the `DataError` that caused `error`, or None where a bug did."""
    for cause in causes(error):
        if isinstance(cause, DataError):
            return str(cause)
        if isinstance(cause, ModuleNotFoundError) and str(cause).startswith(UNKNOWN_CLASS):
            name = str(cause).removeprefix(UNKNOWN_CLASS).strip(" :'.")
            return f"expected a class that can be imported, found {name}; see `featherseg networks` for ours"
    return None


def one_line_errors() -> None:
    """Show a `DataError` that nobody caught as one line on standard error; a bug keeps its traceback."""

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        message = user_message(error)
        if message is None:
            sys.__excepthook__(kind, error, trace)
        else:
            print(f"featherseg: {message}", file=sys.stderr)

    sys.excepthook = show

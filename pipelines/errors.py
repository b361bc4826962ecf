"""The error that users see as a line of text, and the hook that shows it as such."""

from __future__ import annotations

import sys
from types import TracebackType


class DataError(ValueError):
    """Something outside the program is not as it has to be: a file, a folder, an option.

    The message is one line that says what was expected, what was found, where, and what to do.
    """


def user_message(error: BaseException | None) -> str | None:
    """The message of the `DataError` that caused `error`, or None where a bug did.

    MONAI wraps what a transform or a config expression raises, so the cause is looked for along the chain.
    """
    while error is not None:
        if isinstance(error, DataError):
            return str(error)
        error = error.__cause__ or error.__context__
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

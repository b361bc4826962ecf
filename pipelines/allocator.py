"""Memory, for programs that take and free the same large blocks again and again, or make many objects."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Iterator

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def reuse_freed_memory() -> bool:
    """Let glibc keep large freed blocks for the next request, for the rest of this process.

    By default it returns each block above 32 MiB (fewer at first) to the kernel, which clears its pages
    when they are next asked for. An eager training step on a CPU frees and asks for hundreds of such
    blocks, and can spend half of its time on that. What is kept is at most what was in use before.

    Returns:
        whether it was done; other C libraries, and programs with an allocator of their own, are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Leave cycles of objects that are no longer used where they are, until the end of the block.

    Python looks for them whenever many objects were made, and goes through all there are. With what MLflow
    or MONAI import that takes as long as to read a thousand runs from a database, which leaves few cycles.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

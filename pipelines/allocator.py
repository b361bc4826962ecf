"""The C library's allocator, set for programs that take and free the same large blocks again and again."""

from __future__ import annotations

import ctypes
import sys

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

"""Zip files that are the same, byte for byte, wherever and whenever they are made of the same content."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can tell
UNIX = 3
MODE = 0o100644 << 16  # a regular file that all may read


def zipped(files: Mapping[str, bytes], compressed: bool = True) -> bytes:
    """A zip file: entries in the order of their names, of one time, owner-less.

    Args:
        files: name in the zip -> content.
        compressed: deflate; else as they are, as PyTorch wants its own files.
    """
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system, entry.external_attr = UNIX, MODE
            entry.compress_type = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
            archive.writestr(entry, content)
    return written.getvalue()

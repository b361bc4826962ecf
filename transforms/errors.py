"""The error of the transforms that refuse an image."""

from __future__ import annotations

__all__ = ["ImageError"]


class ImageError(ValueError):
    """An image is not what the chain expects; the message names the file, what was expected and found."""

"""The error of the transforms that refuse an image."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from monai.data.meta_tensor import MetaTensor

__all__ = ["ImageError", "file_of"]


class ImageError(ValueError):
    """An image is not what the chain expects; the message names the file, what was expected and found."""


def file_of(image: torch.Tensor, key: Hashable) -> str:
    """What an error calls an image: its file, else the key that it has in the data."""
    name = image.meta.get("filename_or_obj") if isinstance(image, MetaTensor) else None
    return str(name) if name else f"the image under '{key}'"

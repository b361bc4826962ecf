"""Refuse a picture that the rest of a preprocessing chain would silently turn into nonsense."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from .errors import ImageError, file_of

__all__ = ["CheckImageD", "CheckImageDict", "CheckImaged"]


class CheckImaged(MapTransform):
    """Check freshly loaded 2D images, (C, W, H) as MONAI reads pictures, before anything changes them.

    Every image has to have its channels, two pixels or more each way, and finite values; every label has to
    have one channel, the image's size, and the expected values only.

    Args:
        keys: the image first, then its labels.
        channels: of the image.
        labels: values that a label may have, the background first.
        allow_missing_keys: labels are absent at inference.

    Raises:
        ImageError: names the file, what was expected, what was found and what to do.
    """

    def __init__(
        self,
        keys: KeysCollection,
        channels: int = 3,
        labels: Sequence[int] = (0, 1),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.channels = channels
        self.labels = labels

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        image_key = self.keys[0]
        for key in self.key_iterator(d):
            self._check(d[key], file_of(d[key], key), self.channels if key == image_key else 1)
            if key != image_key:
                image_file = file_of(d[image_key], image_key)
                _check_label(d[key], file_of(d[key], key), d[image_key], image_file, self.labels)
        return d

    @staticmethod
    def _check(image: torch.Tensor, file: str, channels: int) -> None:
        if image.ndim != 3 or image.shape[0] != channels:
            raise ImageError(
                f"{file}: expected a 2D image with {channels} channel{'s' if channels > 1 else ''}, found an "
                f"array of shape {tuple(image.shape)} (channel, width, height); check how it is loaded"
            )
        if min(image.shape[1:]) < 2:
            raise ImageError(
                f"{file}: expected 2 pixels or more each way, found {_size(image.shape[1:])}; "
                "export the image again or leave the case out"
            )
        if not torch.isfinite(image).all():
            bad = int((~torch.isfinite(image)).sum())
            raise ImageError(
                f"{file}: expected finite values, found {bad} NaN or infinite ones; "
                "export the image again or leave the case out"
            )


def _check_label(
    label: torch.Tensor, file: str, image: torch.Tensor, image_file: str, labels: Sequence[int]
) -> None:
    if label.shape[1:] != image.shape[1:]:
        raise ImageError(
            f"{file}: expected the {_size(image.shape[1:])} pixels of {image_file}, found "
            f"{_size(label.shape[1:])}; a mask is never resized, draw or export it on its image"
        )
    plain = torch.as_tensor(label)
    if not torch.isin(plain, torch.as_tensor(labels, dtype=plain.dtype)).all():
        found = [round(float(value), 3) for value in torch.unique(plain)[:6]]
        wanted = "0 for background and 1 for a lesion" if list(labels) == [0, 1] else f"labels in {labels}"
        raise ImageError(f"{file}: expected {wanted}, found {found}; recode the mask")


def _size(size: Sequence[int]) -> str:
    """(W, H) as people write it, such as "500x471"."""
    return f"{size[0]}x{size[1]}"


CheckImageD = CheckImageDict = CheckImaged

"""Refuse a volume that the rest of a preprocessing chain would silently turn into nonsense."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform

__all__ = ["CheckVolumeD", "CheckVolumeDict", "CheckVolumed", "VolumeError"]


class VolumeError(ValueError):
    """A volume is not what the chain expects; the message names the file, what was expected and found."""


def _file(volume: torch.Tensor, key: Hashable) -> str:
    name = volume.meta.get("filename_or_obj") if isinstance(volume, MetaTensor) else None
    return str(name) if name else f"the volume under '{key}'"


class CheckVolumed(MapTransform):
    """Check freshly loaded volumes, channel first, before anything changes them.

    Every volume has to be (1, X, Y, Z) and finite; every label has to have the image's shape and hold
    the expected values only.

    Args:
        keys: the image first, then its labels.
        labels: the values that a label may hold, such as (0, 1, 2).
        allow_missing_keys: labels are absent at inference.

    Raises:
        VolumeError: names the file, what was expected, what was found and what to do.
    """

    def __init__(self, keys: KeysCollection, labels: Sequence[int], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.labels = tuple(labels)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        image_key = self.keys[0]
        for key in self.key_iterator(d):
            volume = d[key]
            if volume.ndim != 4 or volume.shape[0] != 1 or min(volume.shape) < 1:
                raise VolumeError(
                    f"{_file(volume, key)}: expected one 3D volume, found an array of shape "
                    f"{tuple(volume.shape)} (channel first); give a NIfTI file with three axes"
                )
            if not torch.isfinite(volume).all():
                bad = int((~torch.isfinite(volume)).sum())
                raise VolumeError(
                    f"{_file(volume, key)}: expected finite values, found {bad} NaN or infinite voxels; "
                    "export the volume again or leave the case out"
                )
            if key != image_key:
                self._check_label(volume, d[image_key], key)
        return d

    def _check_label(self, label: torch.Tensor, image: torch.Tensor, key: Hashable) -> None:
        if label.shape != image.shape:
            raise VolumeError(
                f"{_file(label, key)}: expected the shape of its image, {tuple(image.shape[1:])}, found "
                f"{tuple(label.shape[1:])}; a label is never resized silently, export it on the image's grid"
            )
        # Labels may come as floats such as 1.9999999, so a value is compared after rounding.
        rounded = torch.round(torch.as_tensor(label))
        known = torch.zeros_like(rounded, dtype=torch.bool)
        for value in self.labels:
            known |= rounded == value
        if not known.all() or (torch.as_tensor(label) - rounded).abs().max() > 0.01:
            found = [round(float(value), 3) for value in torch.unique(torch.as_tensor(label))[:6]]
            raise VolumeError(
                f"{_file(label, key)}: expected labels {set(self.labels)}, found {found}; "
                "recode the mask to these values"
            )


CheckVolumeD = CheckVolumeDict = CheckVolumed

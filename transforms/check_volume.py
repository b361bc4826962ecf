"""Refuse a volume that the rest of a preprocessing chain would silently turn into nonsense."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform

from .errors import ImageError, file_of

__all__ = ["CheckVolumeD", "CheckVolumeDict", "CheckVolumed"]


class CheckVolumed(MapTransform):
    """Check freshly loaded volumes, channel first, before anything changes them.

    The image has to be (C, X, Y, Z) with the expected number of channels, every label (1, X, Y, Z), and all
    finite. A label has to have the image's shape, lie where the image lies, and hold the expected values
    only. Its values are rounded (1.9999999 is 2), and where its affine differs from the image's by less than
    a voxel, as some of LiTS do, it gets the image's.

    Args:
        keys: the image first, then its labels.
        labels: the values that a label may hold, such as (0, 1, 2).
        allow_missing_keys: labels are absent at inference.
        channels: of the image; 1, or more where it is made of several, such as the sequences of MRI.

    Raises:
        ImageError: names the file, what was expected, what was found and what to do.
    """

    def __init__(
        self,
        keys: KeysCollection,
        labels: Sequence[int],
        allow_missing_keys: bool = False,
        channels: int = 1,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.labels = tuple(labels)
        self.channels = channels

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        image_key = self.keys[0]
        for key in self.key_iterator(d):
            volume = d[key]
            channels = self.channels if key == image_key else 1
            if volume.ndim != 4 or volume.shape[0] != channels or min(volume.shape) < 1:
                wanted, axes = (
                    ("one 3D volume", "three axes")
                    if channels == 1
                    else (f"a 3D volume of {channels} channels", f"a fourth axis of {channels}")
                )
                raise ImageError(
                    f"{file_of(volume, key)}: expected {wanted}, found an array of shape "
                    f"{tuple(volume.shape)} (channel first); give a NIfTI file with {axes}"
                )
            if not torch.isfinite(volume).all():
                bad = int((~torch.isfinite(volume)).sum())
                raise ImageError(
                    f"{file_of(volume, key)}: expected finite values, found {bad} NaN or infinite voxels; "
                    "export the volume again or leave the case out"
                )
            if key != image_key:
                d[key] = self._checked_label(volume, d[image_key], key)
        return d

    def _checked_label(self, label: torch.Tensor, image: torch.Tensor, key: Hashable) -> torch.Tensor:
        if label.shape[1:] != image.shape[1:]:
            raise ImageError(
                f"{file_of(label, key)}: expected the shape of its image, {tuple(image.shape[1:])}, found "
                f"{tuple(label.shape[1:])}; a label is never resized silently, export it on the image's grid"
            )
        if isinstance(label, MetaTensor) and isinstance(image, MetaTensor):
            gap = _gap(label.affine, image.affine, image.shape[1:])
            if gap > 1:
                raise ImageError(
                    f"{file_of(label, key)}: expected a label where its image lies, found their affines "
                    f"{gap:.1f} voxels apart; export it on the image's grid"
                )
        rounded = torch.round(label)
        if isinstance(rounded, MetaTensor) and isinstance(image, MetaTensor):
            rounded.affine = image.affine.clone()
        plain, whole = torch.as_tensor(label), torch.as_tensor(rounded)
        known = torch.isin(whole, torch.tensor(self.labels, dtype=whole.dtype))
        if not known.all() or (plain - whole).abs().max() > 0.01:
            found = [round(float(value), 3) for value in torch.unique(plain)[:6]]
            raise ImageError(
                f"{file_of(label, key)}: expected labels {set(self.labels)}, found {found}; "
                "recode the mask to these values, or say what they mean where the bundle has label_coding"
            )
        return rounded


def _gap(one: torch.Tensor, other: torch.Tensor, shape: Sequence[int]) -> float:
    """How far two affines put the corners of a volume apart at the most, in voxels of the second."""
    corners = torch.cartesian_prod(*(torch.tensor([0.0, size - 1.0]) for size in shape)).double()
    corners = torch.cat([corners, torch.ones(len(corners), 1, dtype=torch.float64)], dim=1)
    apart = (corners @ (one.double() - other.double()).T).norm(dim=1).max()
    return float(apart / other[:3, :3].double().norm(dim=0).min())


CheckVolumeD = CheckVolumeDict = CheckVolumed

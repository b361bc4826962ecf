"""Where the breast lies in a mammogram, and mammograms that all face the same way."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.transforms import Flip, InvertibleTransform, MapTransform, get_largest_connected_component_mask

__all__ = ["NormalizeSideD", "NormalizeSideDict", "NormalizeSided", "breast", "lies_right"]

AIR = 0.05  # of an image's white; what is darker is no tissue


def breast(image: torch.Tensor) -> torch.Tensor:
    """The largest connected part of a mammogram that is brighter than air, as `CropForegroundd` takes it.

    A burned-in letter beside the breast is a part of its own. Where nothing is bright it is all of the image.

    Args:
        image: (1, W, H), from 0 for black to 1 for white.

    Returns:
        bool, of the same shape.
    """
    tissue = torch.as_tensor(image) > AIR
    return get_largest_connected_component_mask(tissue) if tissue.any() else ~tissue


def lies_right(image: torch.Tensor) -> bool:
    """Whether the breast lies at the right edge of a mammogram, as a right one does.

    It does where more of the pixels brighter than the image's mean are in the right half than in the left:
    the air beside a breast is dark, and a letter that is burned in there is small. Nothing that a file says
    of the side is asked, since not every file says it, and some were mirrored.

    Args:
        image: (1, W, H), as MONAI reads pictures; tissue is bright. One as bright on either side lies left.
    """
    bright = torch.as_tensor(image)[0] > image.mean()
    half = bright.shape[0] // 2
    return bool(bright[-half:].sum() > bright[:half].sum())


class NormalizeSided(MapTransform, InvertibleTransform):
    """Mirror mammograms whose breast lies right, so that all lie left, as left breasts do.

    The inverse gives each image its own side back, exactly.

    Args:
        keys: the image first, (1, W, H), then labels, which are mirrored with it.
        allow_missing_keys: labels are absent at inference.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.flip = Flip(spatial_axis=0)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        mirrored = lies_right(d[self.keys[0]])
        for key in self.key_iterator(d):
            if mirrored:
                d[key] = self.flip(d[key])
            self.push_transform(d[key], extra_info={"mirrored": mirrored})
        return d

    def inverse(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """Each key of the data that was mirrored, mirrored back."""
        d = dict(data)
        for key in self.key_iterator(d):
            if self.pop_transform(d[key])["extra_info"]["mirrored"]:
                d[key] = self.flip.inverse(d[key])
        return d


NormalizeSideD = NormalizeSideDict = NormalizeSided

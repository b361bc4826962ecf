"""A 2D transform over every slice of a volume."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_tensor

__all__ = ["Slicewise", "SlicewiseD", "SlicewiseDict", "Slicewised"]


class Slicewise(Transform):
    """Apply a 2D array transform to each slice of a channel-first volume, one slice at a time.

    MONAI's intensity transforms see the whole array: its `HistogramNormalize` would equalize a volume with
    one histogram. Here each slice gets its own.

    Args:
        transform: takes and returns one slice, shape (C, H, W); deterministic, and it may not change the
            size of some slices only.
        spatial_dim: the spatial axis along which the slices lie, 0 to 2; the last by default (axial in RAS).

    Raises:
        ValueError: where `spatial_dim` is no axis of a volume, or the input is not (C, X, Y, Z).

    Example:
        >>> Slicewise(HistogramNormalize(num_bins=256, min=0, max=255))(torch.rand(1, 64, 64, 10)).shape
        torch.Size([1, 64, 64, 10])
    """

    def __init__(self, transform: Callable[[torch.Tensor], torch.Tensor], spatial_dim: int = 2) -> None:
        if spatial_dim not in (0, 1, 2):
            raise ValueError(f"spatial_dim must be 0, 1 or 2, got {spatial_dim}")
        self.transform = transform
        self.spatial_dim = spatial_dim

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """(C, X, Y, Z) in, the same axes out; metadata and the record of earlier transforms are kept."""
        volume = convert_to_tensor(img, track_meta=False)
        if volume.ndim != 4:
            raise ValueError(
                f"Slicewise takes a volume of shape (C, X, Y, Z), got shape {tuple(volume.shape)}"
            )
        slices = volume.unbind(self.spatial_dim + 1)
        done = [convert_to_tensor(self.transform(one), track_meta=False) for one in slices]
        result = torch.stack(done, dim=self.spatial_dim + 1)
        if isinstance(img, MetaTensor) and get_track_meta():
            return MetaTensor(result).copy_meta_from(img)
        return result


class Slicewised(MapTransform):
    """Dictionary version of :class:`Slicewise`.

    Args:
        keys: the volumes to transform.
        transform: as in `Slicewise`.
        spatial_dim: as in `Slicewise`.
        allow_missing_keys: do not raise for a key that the data does not have.
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: Callable[[torch.Tensor], torch.Tensor],
        spatial_dim: int = 2,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.slicewise = Slicewise(transform, spatial_dim)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.slicewise(d[key])
        return d


SlicewiseD = SlicewiseDict = Slicewised

"""Channels that say different things: ZCA whitening over the channels of an image."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_tensor

__all__ = ["ChannelWhiten", "ChannelWhitenD", "ChannelWhitenDict", "ChannelWhitend", "zca"]


def zca(covariance: np.ndarray) -> np.ndarray:
    """The matrix that whitens channels of this covariance and changes them least: its inverse square root.

    Args:
        covariance: (C, C), symmetric.

    Returns:
        (C, C), float64, symmetric.

    Raises:
        ValueError: the channels have no inverse covariance: one of them is constant, or a sum of the others.

    Source:
        A. J. Bell and T. J. Sejnowski, Vision Research 37(23), 1997 ("zero-phase").
    """
    values, vectors = np.linalg.eigh(np.asarray(covariance, dtype=np.float64))
    if not values[0] > 1e-6 * values[-1]:
        raise ValueError(
            f"expected channels of which none follows from the others, got variances {values.tolist()} along "
            "the axes of their covariance"
        )
    return (vectors / np.sqrt(values)) @ vectors.T


class ChannelWhiten(Transform):
    """Decorrelate the channels of an image: subtract their means and multiply by a matrix, pixel by pixel.

    Whitening of whole images, over 144x144x4 pixels as in Laird (2019), takes a matrix of 82,944 columns,
    which neither fits in memory (55 GB) nor can be found from a few hundred patients; over the channels it
    takes C columns. Pixels in which every channel is 0 are background and stay 0, so that whitening does
    not depend on how much background there is.

    Args:
        mean: C numbers.
        matrix: C rows of C numbers; `zca` of the channels' covariance.

    Raises:
        ValueError: the matrix is not square, or has not as many rows as there are means; in use, the image
            has another number of channels.

    Example:
        >>> ChannelWhiten([0, 0], [[1, -0.5], [-0.5, 1]])(torch.ones(2, 64, 64)).shape
        torch.Size([2, 64, 64])
    """

    def __init__(self, mean: Sequence[float], matrix: Sequence[Sequence[float]]) -> None:
        shape = (len(mean), len(mean))
        if np.shape(matrix) != shape:
            raise ValueError(
                f"expected a matrix of shape {shape} for {len(mean)} means, got {np.shape(matrix)}"
            )
        # Plain numbers, so that a cache knows them and a checkpoint can hold them.
        self.mean = [float(value) for value in mean]
        self.matrix = [[float(value) for value in row] for row in matrix]

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """(C, ...) in, the same shape in float32 out; metadata and the record of transforms are kept."""
        image = convert_to_tensor(img, track_meta=False, dtype=torch.float32)
        if image.shape[0] != len(self.mean):
            raise ValueError(f"expected an image of {len(self.mean)} channels, got one of {image.shape[0]}")
        matrix = torch.tensor(self.matrix, dtype=torch.float64, device=image.device)
        mean = torch.tensor(self.mean, dtype=torch.float64, device=image.device)
        flat = image.reshape(len(self.mean), -1)
        whitened = torch.addmm((-matrix @ mean).float()[:, None], matrix.float(), flat)
        whitened = whitened.where((flat != 0).any(dim=0), 0).reshape(image.shape)
        if isinstance(img, MetaTensor) and get_track_meta():
            return MetaTensor(whitened).copy_meta_from(img)
        return whitened


class ChannelWhitend(MapTransform):
    """Dictionary version of :class:`ChannelWhiten`.

    Args:
        keys: the images to transform.
        mean, matrix: as in `ChannelWhiten`.
        allow_missing_keys: do not raise for a key that the data does not have.
    """

    def __init__(
        self,
        keys: KeysCollection,
        mean: Sequence[float],
        matrix: Sequence[Sequence[float]],
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.whiten = ChannelWhiten(mean, matrix)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.whiten(d[key])
        return d


ChannelWhitenD = ChannelWhitenDict = ChannelWhitend

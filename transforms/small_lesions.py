"""Masks brought to the size of a smaller image without losing a lesion."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_numpy
from scipy import ndimage

__all__ = ["ResizeLesionsD", "ResizeLesionsDict", "ResizeLesionsd", "resize_lesions"]


def resize_lesions(mask: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize a mask so that each of its lesions has a pixel at least.

    A pixel is what the mask is at its centre, as in the mode "nearest-exact" of PyTorch, which neither widens
    nor narrows a lesion on average, but in a smaller mask leaves out what falls between centres, such as a
    calcification of two pixels. Such a lesion gets the one pixel that its own centre lies in.

    Args:
        mask: binary, two axes.
        size: of the result.

    Returns:
        The mask in its own dtype. A lesion is a component by edges and corners.
    """
    scales = np.array(mask.shape) / size
    rows, columns = (
        np.minimum(((np.arange(count) + 0.5) * scale).astype(int), length - 1)
        for count, scale, length in zip(size, scales, mask.shape, strict=True)
    )
    lesions, count = ndimage.label(mask, np.ones((3, 3)))
    kept = lesions[np.ix_(rows, columns)]
    lost = np.setdiff1d(np.arange(1, count + 1), kept)
    for centre in ndimage.center_of_mass(lesions > 0, lesions, lost) if len(lost) else ():
        kept[tuple(((np.array(centre) + 0.5) / scales).astype(int))] = count
    return (kept > 0).astype(mask.dtype)


class ResizeLesionsd(MapTransform):
    """Give masks the size that their image was resized to: :func:`resize_lesions` of each.

    There is no inverse: what is brought back to an image's own size is a prediction.

    Args:
        keys: masks, (1, W, H), 0 and 1.
        like_key: where the resized image is, (C, w, h).
        allow_missing_keys: labels are absent at inference.
    """

    def __init__(
        self, keys: KeysCollection, like_key: Hashable = "image", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.like_key = like_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        size = d[self.like_key].shape[1:]
        for key in self.key_iterator(d):
            resized = resize_lesions(convert_to_numpy(d[key][0]), size)
            d[key] = convert_to_dst_type(resized[None], d[key])[0]
        return d


ResizeLesionsD = ResizeLesionsDict = ResizeLesionsd

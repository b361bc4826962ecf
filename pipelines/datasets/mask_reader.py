"""Masks drawn as pictures, in a chain of MONAI; `masks` itself does without, since a check needs none."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from monai.data import PILReader
from monai.utils import MetaKeys, ensure_tuple
from PIL import Image

from pipelines.datasets import masks


class MaskReader(PILReader):
    """Reads masks by the rule of `masks`: `LoadImaged(keys="label", reader=MaskReader())`.

    Several files of a case are joined. Gives 0 and 1 in uint8, in the axes of `PILReader`, that
    is (width, height), or (height, width) with `reverse_indexing=False`.
    """

    def get_data(self, img: Image.Image | Sequence[Image.Image]) -> tuple[np.ndarray, dict]:
        """Decode here and not in `read`: after an error there, `LoadImage` would try its next reader.

        Raises:
            DataError: where a mask is coded in no known way, or one of several has another size.
        """
        mask = masks.join({one.filename: masks.decode(one) for one in ensure_tuple(img)}).astype(np.uint8)
        if self.reverse_indexing:
            mask = mask.T
        return mask, {MetaKeys.SPATIAL_SHAPE: np.array(mask.shape), MetaKeys.ORIGINAL_CHANNEL_DIM: math.nan}

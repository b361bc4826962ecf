"""Split a contrast-enhanced ultrasound frame that shows contrast and B-mode image beside each other."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Crop, InvertibleTransform, MapTransform, Transform
from monai.utils import convert_to_tensor

from .errors import file_of
from .panel_search import Box, PanelError, Panels, find_panels

__all__ = [
    "PanelError",
    "Panels",
    "SplitDualPanel",
    "SplitDualPanelD",
    "SplitDualPanelDict",
    "SplitDualPaneld",
    "find_panels",
    "given_panels",
]

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def given_panels(content: Any) -> Panels:
    """Panels that a person gave: `{"contrast": [top, left, height, width], "bmode": [...]}`, or `Panels`.

    Raises:
        PanelError: they have another form, unlike sizes, or overlap.
    """
    boxes = content._asdict() if isinstance(content, Panels) else content
    form = isinstance(boxes, Mapping) and {"contrast", "bmode"} <= boxes.keys()
    pair = [np.array(boxes[name], dtype=object) for name in ("contrast", "bmode")] if form else []
    if not form or not all(box.shape == (4,) and all(map(_whole, box)) and min(box[2:]) > 0 for box in pair):
        raise PanelError(
            'expected {"contrast": [top, left, height, width], "bmode": [top, left, height, width]} in whole '
            f"pixels, found {content}; write both boxes so"
        )
    contrast, bmode = (tuple(int(value) for value in box) for box in pair)
    overlap = all(abs(contrast[axis] - bmode[axis]) < contrast[axis + 2] for axis in (0, 1))
    if contrast[2:] != bmode[2:] or overlap:
        raise PanelError(
            "expected panels of equal height and width that do not overlap, found contrast "
            f"{list(contrast)} and bmode {list(bmode)} (top, left, height, width); mend the boxes"
        )
    return Panels(contrast, bmode)


def _whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 0


class SplitDualPanel(Transform):
    """Crop the contrast and the B-mode image out of a frame, as one grey channel each.

    Colour becomes grey by its luminance, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), so that a grey image
    stays as it is and a brighter amber becomes a brighter grey.

    Args:
        panels: the boxes, where they are known, as `Panels` or as `given_panels` takes them; None finds them.
        columns_first: frames are (C, W, H), as MONAI's readers of pictures give them by default.

    Raises:
        PanelError: the panels are not found for sure, or those given do not fit the frame.

    Example:
        >>> boxes = {"contrast": [8, 0, 100, 120], "bmode": [8, 130, 100, 120]}
        >>> [tuple(image.shape) for image in SplitDualPanel(boxes)(torch.rand(3, 120, 256))]
        [(1, 100, 120), (1, 100, 120)]
    """

    def __init__(self, panels: Panels | Mapping[str, Any] | None = None, columns_first: bool = False) -> None:
        self.panels = None if panels is None else given_panels(panels)
        self.columns_first = columns_first
        self.crop = Crop()  # one for all, since an inverse asks for the very transform that was applied

    def __call__(
        self, frame: torch.Tensor, panels: Panels | Mapping[str, Any] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(C, H, W) with 1, 3 or 4 channels in, contrast and B-mode out: float32, each (1, height, width).

        Args:
            frame: with columns first, it and what comes out have the last two axes exchanged.
            panels: boxes of this frame, instead of those of the constructor.
        """
        known = self.boxes(frame, panels)
        grey = _luminance(frame)
        return self.cropped(grey, known.contrast), self.cropped(grey, known.bmode)

    def boxes(self, frame: torch.Tensor, panels: Panels | Mapping[str, Any] | None = None) -> Panels:
        """The panels of a frame: those given, else those of the constructor, else those found."""
        known = self.panels if panels is None else given_panels(panels)
        upright = frame.transpose(1, 2) if self.columns_first else frame
        known = find_panels(upright) if known is None else known
        size = upright.shape[1:]
        for top, left, height, width in known[:2]:
            if top + height > size[0] or left + width > size[1]:
                raise PanelError(
                    f"expected panels within the frame of {size[0]} rows and {size[1]} columns, found "
                    f"{[top, left, height, width]} (top, left, height, width); give the boxes of this frame"
                )
        return known

    def cropped(self, image: torch.Tensor, box: Box) -> torch.Tensor:
        """The part of an image within a box; MONAI's `Crop`, which can be inverted."""
        top, left, height, width = box
        parts = (slice(top, top + height), slice(left, left + width))
        return self.crop(image, parts[::-1] if self.columns_first else parts)


def _luminance(frame: torch.Tensor) -> torch.Tensor:
    frame = convert_to_tensor(frame, dtype=torch.float32, track_meta=isinstance(frame, MetaTensor))
    if len(frame) == 1:
        return frame
    return sum(weight * frame[channel : channel + 1] for channel, weight in enumerate(LUMA))


class SplitDualPaneld(MapTransform, InvertibleTransform):
    """Dictionary version of :class:`SplitDualPanel`: two new images, labels cropped like the first.

    The inverse puts what has the size of a panel, such as a prediction for the contrast image, back to its
    place in a frame of zeros, so that `Invertd(..., orig_keys=ceus_key)` gives a mask of the frame's size.

    Args:
        keys: the frame first, (C, H, W), then labels drawn on it, of its height and width; these are replaced
            by the part of them that lies on the contrast panel.
        ceus_key: where the contrast image goes.
        us_key: where the B-mode image goes.
        panels_key: where a case may have its boxes, as `given_panels` takes them; without, they are found.
        columns_first: as in `SplitDualPanel`.
        allow_missing_keys: labels are absent at inference.

    Raises:
        PanelError: the panels are not found for sure, those given do not fit the frame, or a label has
            another size than the frame. The message names the file.
    """

    def __init__(
        self,
        keys: KeysCollection,
        ceus_key: str = "ceus",
        us_key: str = "us",
        panels_key: str = "panels",
        columns_first: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.ceus_key, self.us_key, self.panels_key = ceus_key, us_key, panels_key
        self.split = SplitDualPanel(columns_first=columns_first)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        frame = d[self.keys[0]]
        try:
            panels = self.split.boxes(frame, d.get(self.panels_key))
        except PanelError as error:
            raise PanelError(f"{file_of(frame, self.keys[0])}: {error}") from error
        for key in self.key_iterator(d):
            if key == self.keys[0]:
                d[self.ceus_key], d[self.us_key] = self.split(frame, panels)
                continue
            if d[key].shape[1:] != frame.shape[1:]:
                order = "columns, rows" if self.split.columns_first else "rows, columns"
                size = f"{tuple(frame.shape[1:])} ({order})"
                raise PanelError(
                    f"{file_of(d[key], key)}: expected the size of its frame, {size}, "
                    f"found {tuple(d[key].shape[1:])}; a mask is never resized, draw it anew"
                )
            d[key] = self.split.cropped(d[key], panels.contrast)
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in (self.ceus_key, self.us_key, *self.keys[1:]):
            if key in d:
                d[key] = self.split.crop.inverse(d[key])
        return d


SplitDualPanelD = SplitDualPanelDict = SplitDualPaneld

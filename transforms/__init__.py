"""MONAI transforms that MONAI does not have. Imports nothing of ours."""

from __future__ import annotations

from .calipers import RemoveCalipers, RemoveCalipersd, find_calipers
from .check_image import CheckImaged
from .check_volume import CheckVolumed
from .contours import ContoursToMask, contour_mask
from .errors import ImageError
from .panels import PanelError, Panels, SplitDualPanel, SplitDualPaneld, find_panels, given_panels
from .side import NormalizeSided, breast
from .slicewise import Slicewise, Slicewised
from .small_lesions import ResizeLesionsd, resize_lesions
from .whitening import ChannelWhiten, ChannelWhitend

__all__ = [
    "ChannelWhiten",
    "ChannelWhitend",
    "CheckImaged",
    "CheckVolumed",
    "ContoursToMask",
    "ImageError",
    "NormalizeSided",
    "PanelError",
    "Panels",
    "RemoveCalipers",
    "RemoveCalipersd",
    "ResizeLesionsd",
    "Slicewise",
    "Slicewised",
    "SplitDualPanel",
    "SplitDualPaneld",
    "breast",
    "contour_mask",
    "find_calipers",
    "find_panels",
    "given_panels",
    "resize_lesions",
]

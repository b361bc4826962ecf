"""MONAI transforms that MONAI does not have. Imports `monai.transforms` only."""

from __future__ import annotations

from .check_volume import CheckVolumed, VolumeError
from .panels import PanelError, Panels, SplitDualPanel, SplitDualPaneld, find_panels, given_panels
from .slicewise import Slicewise, Slicewised

__all__ = [
    "CheckVolumed",
    "PanelError",
    "Panels",
    "Slicewise",
    "Slicewised",
    "SplitDualPanel",
    "SplitDualPaneld",
    "VolumeError",
    "find_panels",
    "given_panels",
]

"""MONAI transforms that MONAI does not have. Imports `monai.transforms` only."""

from __future__ import annotations

from .check_volume import CheckVolumed, VolumeError
from .slicewise import Slicewise, Slicewised

__all__ = ["CheckVolumed", "Slicewise", "Slicewised", "VolumeError"]

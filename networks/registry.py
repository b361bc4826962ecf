"""The registry: each network of this package, by its name."""

from __future__ import annotations

from monai.utils import ComponentStore

NETWORKS = ComponentStore("networks", "2D segmentation networks: name -> class, logits out")

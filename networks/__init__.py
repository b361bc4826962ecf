"""2D segmentation networks, each from its paper. Imports `torch` and `monai` only.

Every network takes images (B, in_channels, H, W) and returns logits (B, out_channels, H, W). `NETWORKS`
holds them all by name.
"""

from networks.light_unet import PlainUNet
from networks.reduced_unet import ReducedUNet
from networks.registry import NETWORKS
from networks.skeleton import UNetSkeleton
from networks.summary import count_gmacs, count_parameters

__all__ = ["NETWORKS", "PlainUNet", "ReducedUNet", "UNetSkeleton", "count_gmacs", "count_parameters"]

"""2D segmentation networks, each from its paper. Imports `torch` and `monai` only.

Every network takes images (B, image_channels, H, W), H and W of at least `least_size` pixels, and returns
logits (B, out_channels, H, W). Exported by `torch.export` for any size, it needs twice `least_size`: one
pixel at the bottom is a program of its own there. `NETWORKS` holds them all by name.
"""

from networks.ceusegnet import CEUSegNet
from networks.checkpointing import checkpoint_activations
from networks.deeplab import DeepLabV3Plus
from networks.fcn import FCN8s, FCN16s, FCN32s
from networks.highres_unet import HighResUNet
from networks.inference import optimize_for_inference
from networks.light_unet import LighterUNet, LightUNet, PlainUNet
from networks.modular_unet import ModularUNet
from networks.reduced_unet import ReducedUNet
from networks.registry import NETWORKS
from networks.skeleton import UNetSkeleton
from networks.summary import Summary, count_gmacs, count_parameters, summarize

__all__ = [
    "NETWORKS",
    "CEUSegNet",
    "DeepLabV3Plus",
    "FCN8s",
    "FCN16s",
    "FCN32s",
    "HighResUNet",
    "LightUNet",
    "LighterUNet",
    "ModularUNet",
    "PlainUNet",
    "ReducedUNet",
    "Summary",
    "UNetSkeleton",
    "checkpoint_activations",
    "count_gmacs",
    "count_parameters",
    "optimize_for_inference",
    "summarize",
]

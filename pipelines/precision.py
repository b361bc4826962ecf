"""Training in bfloat16, on a GPU or on a processor that computes in it."""

from __future__ import annotations

import ignite.distributed as idist
import torch
from torch import nn

from pipelines.errors import DataError


class Bfloat16(nn.Module):
    """A network whose convolutions and matrix products compute in bfloat16; its weights stay float32.

    MONAI's engines know CUDA's float16 only (`amp`). bfloat16 has the range of float32, so the loss needs no
    scaling.

    Args:
        network: takes (B, C, H, W) or more spatial axes, float32.

    Raises:
        DataError: the training is one of several processes, whose network is another wrapper.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        if idist.get_world_size() > 1:
            raise DataError(
                f"expected one process with bundles/common/bfloat16.json, found {idist.get_world_size()}; "
                "leave it out"
            )
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits in float32, so that the loss and the scores are computed in it."""
        with torch.autocast(images.device.type, torch.bfloat16):
            logits = self.network(images)
        return logits.float()

"""The fusion of the features of two images at one scale, after Meng et al., ISBI 2022."""

from __future__ import annotations

import torch
from torch import nn


class CrossModalityAttention(nn.Module):
    """CSA: both images together decide which channels of the contrast image's features count for more.

    With the mean over the pixels GAP and a square matrix W for each image, without a bias,

        w  = softmax(W_ceus GAP(F_ceus) * W_us GAP(F_us))    over the channels    (Eq. 1)
        F' = F_ceus + w * F_ceus                                                  (Eq. 2)

    The B-mode features stay as they are.

    Args:
        channels: channels of each image's features.

    Shape:
        F_ceus and F_us (B, channels, H, W) to F' (B, channels, H, W).

    Source:
        Z. Meng et al., ISBI 2022, doi:10.1109/ISBI52829.2022.9761594, Eq. 1 and 2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.w_ceus = nn.Linear(channels, channels, bias=False)
        self.w_us = nn.Linear(channels, channels, bias=False)

    def weights(self, ceus: torch.Tensor, us: torch.Tensor) -> torch.Tensor:
        """The weight of each channel, (B, channels); they sum to 1."""
        score = self.w_ceus(ceus.mean(dim=(2, 3))) * self.w_us(us.mean(dim=(2, 3)))
        return score.softmax(dim=1)

    def forward(self, ceus: torch.Tensor, us: torch.Tensor) -> torch.Tensor:
        return ceus + self.weights(ceus, us)[:, :, None, None] * ceus


class DilatedConvs(nn.Module):
    """3x3 convolutions side by side, dilated by 1, 2, 4 and 8, a quarter of the channels from each.

    Args:
        channels: channels of the input and of the output, a multiple of 4.

    Shape:
        (B, channels, H, W) to the same.

    Raises:
        ValueError: if `channels` is not a multiple of 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % 4:
            raise ValueError(
                f"four dilated convolutions share the channels, expected a multiple of 4, got {channels}: "
                "change the width"
            )
        self.convs = nn.ModuleList(
            [nn.Conv2d(channels, channels // 4, kernel_size=3, padding=d, dilation=d) for d in (1, 2, 4, 8)]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([conv(x) for conv in self.convs], dim=1)


class CrossModalityFusion(nn.Sequential):
    """CFF: the features of both images become those of one, seen at four sizes of field.

    A 1x1 convolution halves the channels, the dilated convolutions look around, a second 1x1 convolution
    mixes what they saw; BatchNorm and ReLU after each. All convolutions have a bias.

    Args:
        channels: channels of each image's features, a multiple of 4.

    Shape:
        (B, 2 * channels, H, W), one image's features after the other's, to (B, channels, H, W).

    Raises:
        ValueError: if `channels` is not a multiple of 4.

    Source:
        Z. Meng et al., ISBI 2022, doi:10.1109/ISBI52829.2022.9761594.
    """

    # MONAI's SimpleASPP has no norm between the dilated convolutions and the 1x1 one that follows them.
    def __init__(self, channels: int) -> None:
        super().__init__()
        for conv in (
            nn.Conv2d(2 * channels, channels, kernel_size=1),
            DilatedConvs(channels),
            nn.Conv2d(channels, channels, kernel_size=1),
        ):
            self.extend([conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)])

"""The network of Meng et al.: CEUSegNet, a Cross-Modality Lesion Segmentation Network, ISBI 2022."""

from __future__ import annotations

import torch
from torch import nn

from networks.blocks import Concat, Residual, bilinear_up, conv3x3, conv_stack, max_pool
from networks.fusion import CrossModalityAttention, CrossModalityFusion
from networks.registry import Published, register
from networks.skeleton import Encoder, UNetSkeleton, check_size

IMAGE = (2, 128, 128)

FUSIONS = ("cff", "conv1x1")


class Merge(nn.Module):
    """The features of both images at one scale become those that the decoder is given.

    Args:
        channels: channels of each image's features.
        attention: weight the contrast image's channels first.
        fusion: `"cff"` or `"conv1x1"`.
    """

    def __init__(self, channels: int, attention: bool, fusion: str) -> None:
        super().__init__()
        self.attention = CrossModalityAttention(channels) if attention else None
        if fusion == "cff":
            self.fusion = CrossModalityFusion(channels)
        else:
            self.fusion = nn.Conv2d(2 * channels, channels, kernel_size=1)

    def forward(self, ceus: torch.Tensor, us: torch.Tensor) -> torch.Tensor:
        """Merge two (B, channels, H, W) to one."""
        if self.attention is not None:
            ceus = self.attention(ceus, us)
        return self.fusion(torch.cat([ceus, us], dim=1))


@register(
    "Meng et al., ISBI 2022",
    [
        Published("CEUSegNet", IMAGE, "9.28 M"),
        Published("CEUSegNet, without CSA", IMAGE, "", {"attention": False}),
        Published("CEUSegNet, without CFF", IMAGE, "", {"fusion": "conv1x1"}),
        Published("CEUSegNet, without residuals", IMAGE, "", {"residual": False}),
        Published(
            "CEUSegNet, dual U-net", IMAGE, "", {"attention": False, "fusion": "conv1x1", "residual": False}
        ),
    ],
)
class CEUSegNet(UNetSkeleton):
    """A U-Net with an encoder for the contrast image (CEUS) and one for the B-mode image (US) beside it.

    Each encoder has five levels of 64, 64, 128, 256 and 256 channels and weights of its own. At each level
    the two meet: cross-modality attention (CSA) weights the channels of the contrast image's features,
    cross-modality fusion (CFF) makes one set of features out of the two. One decoder of 128, 64, 64 and 64
    channels takes them from there, as in `PlainUNet`. The defaults have 9,281,025 parameters and 12.65 GMAC
    of convolutions (the paper: 9.28 M and 12.74 G). What the paper leaves out in turn:

    | | parameters |
    |---|---|
    | `attention=False` | 8,969,729 |
    | `fusion="conv1x1"` | 7,718,401 |
    | `residual=False` | 9,055,617 |
    | all three, a dual U-net | 7,181,697 |
    | `images=1`, for either image alone | 4,580,993 |

    A level is two 3x3 convolutions, each with a bias, BatchNorm and ReLU; from the second level on a 1x1
    convolution with BatchNorm goes past them, and ReLU follows the sum. Max pooling closes each of these
    levels, so that the first two levels both work at the size of the image.

    The authors' code multiplies the scores of CSA by a constant that an integer division makes zero. All
    channels then weigh the same, whatever the images, and W_ceus and W_us learn nothing. Here, as in the
    paper's Eq. 1, there is no such constant. Their network also ends in a sigmoid; this one returns logits.

    Args:
        in_channels: channels of each of the two images.
        out_channels: number of classes.
        attention: whether CSA weights the channels; without it CFF is given the features as they are.
        fusion: `"cff"`, or `"conv1x1"` for no more than one 1x1 convolution.
        residual: whether the encoders have the 1x1 convolutions beside their levels.
        images: 2, or 1 for a network of one encoder, whose features the decoder takes as they are.

    Shape:
        Both images as one tensor (B, 2 * in_channels, H, W), contrast first, then B-mode, or the one image
        (B, in_channels, H, W), H and W of at least 16 pixels, to logits (B, out_channels, H, W).

    Raises:
        ValueError: if there is no such fusion or `images` is neither; in `forward`, if the image does not
            have images * in_channels channels or H or W is less than `least_size`.

    Example:
        >>> ceus, us = torch.rand(1, 1, 128, 128), torch.rand(1, 1, 128, 128)
        >>> CEUSegNet()(torch.cat([ceus, us], dim=1)).shape
        torch.Size([1, 1, 128, 128])

    Source:
        Z. Meng et al., "CEUSegNet: A Cross-Modality Lesion Segmentation Network for Contrast-Enhanced
        Ultrasound", ISBI 2022, doi:10.1109/ISBI52829.2022.9761594.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        attention: bool = True,
        fusion: str = "cff",
        residual: bool = True,
        images: int = 2,
    ) -> None:
        if fusion not in FUSIONS:
            raise ValueError(f"expected a fusion out of {', '.join(FUSIONS)}, got {fusion!r}")
        if images not in (1, 2):
            raise ValueError(f"expected 2 images, or 1, got {images}")

        def double(channels: int, width: int) -> nn.Module:
            return conv_stack((channels, width, width), conv3x3)

        def pooled(channels: int, width: int) -> nn.Module:
            block = double(channels, width)
            if residual:
                shortcut = nn.Sequential(nn.Conv2d(channels, width, kernel_size=1), nn.BatchNorm2d(width))
                block = nn.Sequential(Residual(block, shortcut), nn.ReLU(inplace=True))
            return block.append(max_pool(width))

        def halving(channels: int, width: int) -> nn.Module:
            return conv_stack((channels, channels // 2, width), conv3x3)

        widths = (64, 64, 128, 256, 256)
        # The blocks pool by themselves, so that nothing is left to do on the way down.
        blocks, down = (double, pooled, pooled, pooled, pooled), nn.Identity
        super().__init__(
            in_channels,
            out_channels,
            encoder=widths,
            decoder=(128, 64, 64, 64),
            encoder_block=blocks,
            decoder_block=halving,
            down=down,
            up=bilinear_up,
            skip=Concat,
        )
        self.image_channels = images * in_channels
        # `encoder`, the skeleton's, is that of the contrast image, or of the only one.
        both = images == 2
        self.encoder_us = Encoder(in_channels, widths, blocks, down) if both else None
        self.merges = nn.ModuleList([Merge(width, attention, fusion) for width in widths] if both else [])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Segment pairs of images, or single ones.

        Args:
            image: (B, images * in_channels, H, W); of pairs the contrast image first, then B-mode.

        Returns:
            Logits, (B, out_channels, H, W).

        Raises:
            ValueError: if the image has another number of channels, or H or W is less than `least_size`.
        """
        check_size(image, self.least_size)
        if image.shape[1] != self.image_channels:
            raise ValueError(
                f"expected {self.image_channels} channels, those of the contrast image, then those of the "
                f"B-mode image, got {image.shape[1]}: join the two along the channels"
            )
        if self.encoder_us is None:
            return self.head(self.decoder(self.encoder(image)))
        ceus, us = image.chunk(2, dim=1)
        features_ceus, features_us = self.encoder(ceus), self.encoder_us(us)
        features: list[torch.Tensor] = []
        for i, merge in enumerate(self.merges):
            features.append(merge(features_ceus[i], features_us[i]))
        return self.head(self.decoder(features))

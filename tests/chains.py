"""Short chains of transforms that several tests prepare their volumes with."""

import torch
from monai.transforms import Compose, Lambdad, LoadImaged

from pipelines.cases import READERS
from transforms import CheckVolumed

KEYS = ["image", "label"]
LOAD = Compose(
    [
        LoadImaged(KEYS, reader=READERS, ensure_channel_first=True, allow_missing_keys=True),
        CheckVolumed(KEYS, labels=(0, 1, 2), allow_missing_keys=True),
    ]
)


def to_levels(volume):
    return torch.clip(torch.round(volume + 100), 0, 255)


def is_lesion(label):
    return label == 2


PREPARE = Compose([LOAD, Lambdad("image", to_levels), Lambdad("label", is_lesion)])

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import MapLabelValue

from pipelines.datasets import brain_tumour_codings as codings
from pipelines.errors import DataError

# Enhancing tumour about a necrosis, in edema: the same mask as its three releases have it.
SAME = {
    "msd": [0, 1, 1, 3, 2, 3, 1, 0],
    "brats": [0, 2, 2, 4, 1, 4, 2, 0],
    "brats2023": [0, 2, 2, 3, 1, 3, 2, 0],
}


@pytest.mark.parametrize("coding", SAME)
def test_every_coding_ends_in_the_same_regions(coding):
    lists = codings.orig_labels(coding), codings.target_labels(coding)
    mapped = MapLabelValue(*lists)(torch.tensor(SAME[coding], dtype=torch.float32)).numpy()
    found = {
        region: np.isin(mapped, labels).astype(int).tolist() for region, labels in codings.REGIONS.items()
    }
    assert found == {
        "whole tumour": [0, 1, 1, 1, 1, 1, 1, 0],
        "tumour core": [0, 0, 0, 1, 1, 1, 0, 0],
        "enhancing tumour": [0, 0, 0, 1, 0, 1, 0, 0],
    }


def test_known_labels_are_those_of_the_releases():
    assert codings.known_labels("msd") == [0, 1, 2, 3]
    assert codings.known_labels("brats") == [0, 1, 2, 4]
    assert codings.known_labels("brats2023") == [0, 1, 2, 3]


def test_an_unknown_coding_is_answered_with_the_known_ones():
    with pytest.raises(DataError, match="coding of msd, brats, brats2023, found 'brats21'"):
        codings.labels("brats21")

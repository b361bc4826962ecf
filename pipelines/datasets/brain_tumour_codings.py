"""What the labels of a brain tumour's parts mean, which differs between the releases of the same images.

Everything after loading uses the coding of the Decathlon ("msd"), in which regions are unions of labels:

| coding | edema | necrosis and non-enhancing | enhancing |
|---|---|---|---|
| msd: Decathlon (Simpson et al., 2019) | 1 | 2 | 3 |
| brats: BraTS 2017 to 2021 (Bakas et al., 2018; Baid et al., 2021) | 2 | 1 | 4 |
| brats2023: BraTS 2023 | 2 | 1 | 3 |

Nothing in a file tells one coding from another, so that the user chooses; `check` notices a choice that does
not fit where it can.
"""

from __future__ import annotations

from pipelines.errors import DataError

EDEMA, CORE, ENHANCING = 1, 2, 3  # in the coding msd

# From a coding's labels to those of msd; the background is 0 in all.
CODINGS = {
    "msd": {1: EDEMA, 2: CORE, 3: ENHANCING},
    "brats": {1: CORE, 2: EDEMA, 4: ENHANCING},
    "brats2023": {1: CORE, 2: EDEMA, 3: ENHANCING},
}
NAMES = {EDEMA: "edema", CORE: "non-enhancing tumour", ENHANCING: "enhancing tumour"}

# The regions that BraTS scores, as labels of msd.
REGIONS = {"whole tumour": (1, 2, 3), "tumour core": (2, 3), "enhancing tumour": (3,)}


def labels(coding: str) -> dict[int, int]:
    """A coding's labels without the background, each with the label of msd that it means.

    Raises:
        DataError: for an unknown coding.
    """
    if coding not in CODINGS:
        raise DataError(f"expected a label coding of {', '.join(CODINGS)}, found {coding!r}")
    return CODINGS[coding]


def known_labels(coding: str) -> list[int]:
    """The values that a mask of this coding may hold: `labels` of `transforms.CheckVolumed`."""
    return [0, *labels(coding)]


def orig_labels(coding: str) -> list[int]:
    """The labels of a coding: `orig_labels` of MONAI's `MapLabelValued`."""
    return list(labels(coding))


def target_labels(coding: str) -> list[int]:
    """What they are in msd: `target_labels` of MONAI's `MapLabelValued`."""
    return list(labels(coding).values())

"""A bundle's way to load a case, for labels of annotators instead of its dataset's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.utils import ensure_tuple

CODES = [0, 1]  # of an annotator's label: background and lesion


def annotated(loading: Sequence[dict[str, Any]], of_volumes: bool) -> list[dict[str, Any]]:
    """The chain with a plain reader for the label, and without what recodes the dataset's labels.

    Args:
        loading: the bundle's transforms up to an image and a mask, as its configuration has them.
        of_volumes: labels are NIfTI, else PNG.

    Returns:
        The same for cases whose label is 0 and 1.
    """
    chain = []
    for one in loading:
        kind, keys = one["_target_"].rpartition(".")[2], ensure_tuple(one["keys"])
        if kind == "LoadImaged" and keys == ("label",):
            chain.append({**one, "reader": "NibabelReader" if of_volumes else "PILReader"})
        elif "labels" in one and kind.startswith("Check"):
            chain.append({**one, "labels": CODES})
        elif keys != ("label",) and kind != "DeleteItemsd":
            chain.append(one)
    return chain

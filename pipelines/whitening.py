"""What whitening needs to know of the training patients: means and covariance of their channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from tqdm import tqdm

from pipelines.cache import VolumeCache
from pipelines.errors import DataError
from transforms.whitening import zca

DIGITS = 6  # after the point; sums of another processor, or of another BLAS, differ after twelve


def fit(
    cases: Sequence[dict[str, Any]],
    preprocessing: Callable[[dict[str, Any]], dict[str, Any]],
    cache_dir: str | Path,
    workers: int = 2,
) -> dict[str, list]:
    """Find what `transforms.ChannelWhitend` takes, from the pixels of the cases that are not background.

    Background are the pixels in which every channel is 0. Volumes are read from the cache one at a time, and
    of each only sums in double precision are kept, added up in the order of the cases: memory does not grow
    with them, and neither the number of workers nor that of processes changes a digit.

    Args:
        cases: those that are trained on, and no others.
        preprocessing, cache_dir: of the `SliceDataset` that is whitened; see `VolumeCache`.
        workers: processes that prepare volumes and add them up; 0 does it in this one.

    Returns:
        `mean`, C numbers, and `matrix`, C rows of C numbers (ZCA), rounded to 6 digits after the point.

    Raises:
        DataError: no cases, a file at fault, or images that cannot be whitened.
    """
    volumes = VolumeCache(cases, preprocessing, cache_dir, workers)
    # Each process of a distributed run adds up its share.
    share = range(idist.get_rank(), len(volumes), idist.get_world_size())
    loader = torch.utils.data.DataLoader(
        _Sums(volumes, share),
        batch_size=None,
        num_workers=min(workers, len(share)),
        generator=torch.Generator(),  # so that the seeds are left alone
    )
    bar = tqdm(loader, desc="whitening", unit="case", disable=idist.get_rank() > 0, leave=False)
    found = {number: np.asarray(sums) for number, sums in zip(share, bar, strict=True)}
    if idist.get_world_size() > 1:
        parts: list[Any] = [None] * idist.get_world_size()
        torch.distributed.all_gather_object(parts, found)
        found = {number: sums for part in parts for number, sums in part.items()}
    total = sum(found[number] for number in range(len(volumes)))
    count, totals, products = total[0, 0], total[0, 1:], total[1:, 1:]
    try:
        mean = totals / max(count, 1)
        matrix = zca(products / max(count, 1) - np.outer(mean, mean))
    except ValueError as error:
        raise DataError(
            f"expected different sequences in the images of {len(volumes)} cases, such as "
            f"{volumes.data[0]['image']}, found some that repeat or hold nothing ({error}); "
            "look for what is wrong with `featherseg check`"
        ) from error
    return {"mean": mean.round(DIGITS).tolist(), "matrix": matrix.round(DIGITS).tolist()}


def recorded(trained_with: Mapping[str, Any], weights: str | Path) -> dict[str, list]:
    """The whitening that weights were trained with; there is none that would do for all.

    Args:
        trained_with: what `checkpoints.trained_with` says of the weights.
        weights: their file, for the error.

    Raises:
        DataError: the weights have no record of it.
    """
    if not trained_with.get("whitening"):
        raise DataError(
            f"expected a record of the whitening with which {weights} was trained, found none; give a "
            "model.pt in the folder of its run, a safetensors file, or the numbers by --whitening"
        )
    return trained_with["whitening"]


class _Sums(torch.utils.data.Dataset):
    """The sums of each volume, as a dataset, so that a `DataLoader` brings the worker processes."""

    def __init__(self, volumes: VolumeCache, share: Sequence[int]) -> None:
        self.volumes = volumes
        self.share = share

    def __len__(self) -> int:
        return len(self.share)

    def __getitem__(self, index: int) -> np.ndarray:
        """(1 + C, 1 + C): the number of pixels, the sums of the channels, and those of their products."""
        facts = self.volumes.facts[self.share[index]]
        stack = self.volumes.read(self.share[index], count=facts["shape"][0])
        sums = np.zeros((1 + facts["image_channels"],) * 2)
        for image in stack[:, : facts["image_channels"]]:
            pixels = image.reshape(len(image), -1).astype(np.float64)
            counted = np.vstack([(pixels != 0).any(axis=0), pixels])  # a background of zeros adds nothing
            # Not a matrix product, whose last digits change with the number of threads.
            sums += np.einsum("ip,jp->ij", counted, counted)
        return sums

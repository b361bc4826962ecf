"""Volumes in, slices out: prepared once, cached on disk, read one slice at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Randomizable
from torch.utils.data import Dataset, DistributedSampler

from pipelines.cache import VolumeCache
from pipelines.errors import DataError


class _PreparedDataset(Dataset):
    """Cases whose prepared volumes are in the cache, and the transforms that follow it."""

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        preprocessing: Callable[[dict[str, Any]], dict[str, Any]],
        transform: Callable[[dict[str, Any]], Any] | None = None,
        cache_dir: str | Path = "runs/cache",
        workers: int = 2,
    ) -> None:
        self.data = list(data)
        self.transform = transform
        self.volumes = VolumeCache(data, preprocessing, cache_dir, workers)


class SliceDataset(_PreparedDataset):
    """The slices of prepared volumes, as a map-style dataset whose memory does not grow with the data.

    `ds[i]` reads one slice from disk, `{"image": (C, X, Y), "label": (L, X, Y)}` in float32, and applies
    the random transforms. What they draw depends on the seed, the epoch and `i` alone, so neither the
    number of workers nor an interruption changes what is seen.

    Args:
        data: MONAI datalist.
        preprocessing: see `VolumeCache`.
        transform: random transforms of one slice.
        cache_dir: folder of the cache.
        seed: of the random transforms.
        device: where to keep all slices from the start, in the cache's compact type, such as "cuda", whose
            memory they have to fit in; the random transforms then run there too. None reads them from disk.
        workers: processes that prepare volumes.
    """

    def __init__(
        self, *arguments: Any, seed: int = 0, device: torch.device | str | None = None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.seed = seed
        counts = [facts["shape"][0] for facts in self.volumes.facts]
        self.volume_of = np.repeat(np.arange(len(counts)), counts)
        self.slice_of = np.concatenate([np.arange(count) for count in counts])
        self.has_lesion = np.zeros(len(self.volume_of), dtype=bool)
        first = np.concatenate([[0], np.cumsum(counts)])
        for volume, facts in enumerate(self.volumes.facts):
            self.has_lesion[first[volume] + np.asarray(facts["lesion_slices"], dtype=int)] = True
        self.kept = None if device is None else self._slices_on(device)
        # Shared memory: workers that outlive an epoch see the new one too.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    def _slices_on(self, device: torch.device | str) -> list[torch.Tensor]:
        reads = (self.volumes.read(i, count=facts["shape"][0]) for i, facts in enumerate(self.volumes.facts))
        return [torch.from_numpy(array).to(device) for array in reads]

    def __len__(self) -> int:
        return len(self.volume_of)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose random draws the next slices get."""
        self._epoch[0] = epoch

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"slice {index} of {len(self)}")
        index %= len(self)
        volume, number = int(self.volume_of[index]), int(self.slice_of[index])
        array = self.volumes.read(volume, number)[0] if self.kept is None else self.kept[volume][number]
        item = self.volumes.tensors(array, volume)
        if self.transform is None:
            return item
        if isinstance(self.transform, Randomizable):
            draw = np.random.SeedSequence([self.seed, int(self._epoch[0]), index]).generate_state(1)[0]
            self.transform.set_random_state(seed=int(draw))
        return self.transform(item)


class VolumeDataset(_PreparedDataset):
    """Whole prepared volumes from the same cache, for validation on what training sees.

    An item is `{"image": (C, X, Y, Z), "label": (L, X, Y, Z), "case": id}`, float32, with the affine of the
    prepared grid; pictures have no Z.

    Args:
        data, preprocessing, cache_dir, workers: as in `SliceDataset`.
        transform: deterministic transforms after the cache.
    """

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        facts = self.volumes.facts[index]
        array = self.volumes.read(index, count=facts["shape"][0])
        parts = self.volumes.tensors(array, index)
        affine = torch.tensor(facts["affine"], dtype=torch.float64)
        item: dict[str, Any] = {
            key: MetaTensor(
                part[0] if facts["planar"] else part.permute(1, 2, 3, 0).contiguous(), affine=affine
            )
            for key, part in parts.items()
        }
        item["case"] = case_name(self.data[index])
        return item if self.transform is None else self.transform(item)


def case_name(case: dict[str, Any]) -> str:
    """The id of a case: given by the dataset, else the name of its image file."""
    return str(case.get("case") or Path(str(case["image"])).name.split(".")[0])


def step_back(worker: int) -> None:
    """Let a loading worker run when the training does not want the processor (`worker_init_fn`).

    Where there are as few cores as threads that train, a worker that takes its turn stops all of them, since
    they wait for each other; with batches ready in advance it can take what is left over.

    Args:
        worker: the worker's number, not used.
    """
    os.nice(19)


class SliceSampler(DistributedSampler):
    """Which slices an epoch shows, in which order, and to which process.

    Args:
        dataset: a `SliceDataset`.
        balance: "all" shows every slice once (the default); "lesion" only slices with a lesion;
            "balanced" every slice with a lesion and as many without, drawn anew each epoch.
        seed: of the order.

    Raises:
        DataError: an unknown `balance`, or one that leaves no slice.
    """

    CHOICES = ("all", "balanced", "lesion")

    def __init__(self, dataset: SliceDataset, balance: str = "all", seed: int = 0) -> None:
        if balance not in self.CHOICES:
            raise DataError(f"expected balance to be one of {', '.join(self.CHOICES)}, found {balance!r}")
        self.balance = balance
        self.lesion = np.flatnonzero(dataset.has_lesion)
        self.empty = np.flatnonzero(~dataset.has_lesion)
        if balance != "all" and not len(self.lesion):
            raise DataError(
                f"expected slices with a lesion for balance={balance!r}, found none; use balance 'all'"
            )
        super().__init__(
            dataset, num_replicas=idist.get_world_size(), rank=idist.get_rank(), shuffle=True, seed=seed
        )
        self.num_samples = -(-len(self._slices(np.random.default_rng(0))) // self.num_replicas)
        self.total_size = self.num_samples * self.num_replicas

    def set_epoch(self, epoch: int) -> None:
        """Called by MONAI's engines as an epoch starts; the dataset's draws follow."""
        super().set_epoch(epoch)
        self.dataset.set_epoch(epoch)

    def _slices(self, random: np.random.Generator) -> np.ndarray:
        if self.balance == "all":
            return np.arange(len(self.dataset))
        if self.balance == "lesion":
            return self.lesion
        drawn = random.permutation(self.empty)[: len(self.lesion)]
        return np.concatenate([self.lesion, drawn])

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(self._slices(random))
        # Ranks take the same number of batches: the list is filled up from its own start.
        order = np.resize(order, self.total_size)
        return iter(order[self.rank : self.total_size : self.num_replicas].tolist())

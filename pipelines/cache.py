"""Prepared volumes on disk, so that a slice of any of them is one short read."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import io
import json
import threading
from collections.abc import Callable, Sequence
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from monai.data import ImageReader, MetaTensor
from monai.transforms import Compose, Randomizable
from tqdm import tqdm

from pipelines.cases import load_case
from pipelines.errors import DataError
from pipelines.files import read_json, remove_leftovers, write_bytes, write_json, writing_error
from pipelines.sources import digest, is_own

CACHE_FORMAT = 3
# What reads and prepares images; another release may do it otherwise.
LIBRARIES = ("monai", "torch", "numpy", "scipy", "scikit-image", "nibabel", "itk", "pillow", "pydicom", "av")
FILES = {"image", "label"}
NAMES = {"case", "patient"}  # these change nothing of what the files hold


def describe(thing: Any) -> Any:
    """What a transform does, as plain JSON: class names, arguments, and the source of code of our own.

    Two descriptions are equal where the transforms do the same; the hash of it is half of a cache's key.
    """
    if thing is None or isinstance(thing, (bool, int, float, str)):
        return thing
    if isinstance(thing, Enum):
        return str(thing.value)
    if isinstance(thing, (list, tuple)):
        return [describe(one) for one in thing]
    if isinstance(thing, (set, frozenset)):
        return sorted(json.dumps(describe(one), sort_keys=True) for one in thing)
    if isinstance(thing, dict):
        return {str(key): describe(value) for key, value in sorted(thing.items(), key=lambda kv: str(kv[0]))}
    if isinstance(thing, (np.ndarray, torch.Tensor)):
        array = np.asarray(thing)
        return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
    if isinstance(thing, (np.generic, np.dtype, torch.dtype)):
        return str(thing)
    if isinstance(thing, functools.partial):
        return ["partial", describe([thing.func, thing.args, thing.keywords])]
    if inspect.isclass(thing) or inspect.isroutine(thing):
        return [thing.__module__, thing.__qualname__, _source(thing)]
    kind = type(thing)
    settings = {key: value for key, value in vars(thing).items() if not _is_state(thing, key, value)}
    return {"class": [kind.__module__, kind.__qualname__, _source(kind)], "with": describe(settings)}


def _is_state(owner: Any, key: str, value: Any) -> bool:
    """Whether an attribute is no setting, but appears or changes in use."""
    if isinstance(value, (np.random.RandomState, threading.local)):
        return True
    return isinstance(owner, ImageReader) and key == "filenames"


def _source(thing: Any) -> str | None:
    """The code of what does not belong to a versioned package: our transforms, a user's function."""
    module = thing.__module__ or ""
    if is_own(module):
        return digest(module)
    if module.split(".")[0] in ("monai", "torch", "numpy", "builtins"):
        return None
    try:
        text = inspect.getsource(thing)
    except (OSError, TypeError):  # an expression of a configuration has no file
        code = getattr(thing, "__code__", None)
        if code is None:
            raise ValueError(f"the preprocessing is cached, so the code of {thing} must be known") from None
        text = repr((code.co_code, code.co_consts, code.co_names))
    return hashlib.sha256(text.encode()).hexdigest()


def _releases() -> dict[str, str]:
    """What of `LIBRARIES` is installed; a packaged bundle requires only what it uses."""
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _identity(file: str | list[str]) -> list[Any]:
    """What tells one state of a source, a file or several, from another: path, size and time of change."""
    if isinstance(file, list):
        return [_identity(one) for one in file]
    path = Path(file).resolve()
    if path.is_dir():
        return [_identity(str(one)) for one in sorted(path.iterdir())]
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns]


class VolumeCache:
    """Prepared volumes on disk, one file each, of which one slice is read at a time.

    A volume's file is a plain `.npy` array of shape (slices, channels, X, Y): the image's channels, then
    the label's; a picture is a single slice. A `.json` file beside it, written last, says what it holds;
    without it the array is not used. Both are named by a hash of the source files' identity, of what else
    the datalist says of the case, and of the preprocessing, so a change of any makes new files and nothing
    is ever stale.

    Args:
        data: MONAI datalist with `image` and, for training, `label`.
        preprocessing: deterministic transforms from file names to volumes (C, X, Y, Z) or pictures
            (C, X, Y). Its last steps round the image to what the cache's type can hold: whole numbers from 0
            to 255 (kept as uint8) or half precision (kept as float16).
        folder: where the files are kept; shared by all runs.
        workers: processes that prepare volumes; 0 prepares in this one.

    Raises:
        DataError: no data, a file at fault, a folder that cannot be written to, a full disk.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        preprocessing: Callable[[dict[str, Any]], dict[str, Any]],
        folder: str | Path,
        workers: int = 2,
    ) -> None:
        if not data:
            raise DataError("expected at least one case, found none; see --fold and the dataset's folder")
        for transform in Compose(preprocessing).flatten().transforms:
            if isinstance(transform, Randomizable):
                raise ValueError(
                    f"the preprocessing is cached, so {type(transform).__name__} cannot be part of it"
                )
        self.data = list(data)
        self.folder = Path(folder)
        self.preprocessing = preprocessing
        recipe = [CACHE_FORMAT, _releases(), describe(preprocessing)]
        self._recipe = json.dumps(recipe, sort_keys=True)
        self.facts = self._prepare(workers)

    def __len__(self) -> int:
        return len(self.data)

    def _key(self, case: dict[str, Any]) -> str:
        try:
            sources = {
                key: _identity(case[key]) if key in FILES else case[key] for key in case.keys() - NAMES
            }
        except FileNotFoundError as error:
            raise DataError(f"expected a file at {error.filename}, found none; check the dataset") from error
        return hashlib.sha256((self._recipe + json.dumps(sources, sort_keys=True)).encode()).hexdigest()[:32]

    def _facts(self, key: str) -> dict[str, Any] | None:
        """What is kept under `key`, or None where nothing whole is."""
        note, array = self.folder / f"{key}.json", self.folder / f"{key}.npy"
        try:
            facts = read_json(note)
            return facts if array.stat().st_size == facts["bytes"] else None
        except (DataError, OSError, KeyError, TypeError):
            return None

    def _prepare(self, workers: int) -> list[dict[str, Any]]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise writing_error(error, self.folder / "cache") from error
        remove_leftovers(self.folder)
        keys = [self._key(case) for case in self.data]
        # Each process of a distributed run prepares its share and then waits for the others. Who prepares
        # what does not depend on what is there already, since that changes while they look.
        own = list(zip(self.data, keys, strict=True))[idist.get_rank() :: idist.get_world_size()]
        share = [(case, key) for case, key in own if self._facts(key) is None]
        failure = None
        if share:
            loader = torch.utils.data.DataLoader(
                _Preparation(self, share),
                batch_size=None,
                num_workers=min(workers, len(share)),
                generator=torch.Generator(),  # so that a prepared cache or none leaves the seeds alone
            )
            bar = tqdm(loader, desc="preparing", unit="case", disable=idist.get_rank() > 0, leave=False)
            failure = next((message for message in bar if message is not None), None)
            bar.close()
        # A process that failed says so before the others wait for files that never come.
        # In a list, since ignite pads a string by its characters, and a path may be of any script.
        failure = next((one for (one,) in idist.all_gather([failure]) if one), None) if _many() else failure
        if failure:
            raise DataError(failure)
        facts = [self._facts(key) for key in keys]
        lost = [case["image"] for case, fact in zip(self.data, facts, strict=True) if fact is None]
        if lost:
            raise DataError(
                f"expected the cache of {lost[0]} in {self.folder}, found it removed while it was in use; "
                "start again"
            )
        return [
            {**fact, "file": str(self.folder / f"{key}.npy")} for fact, key in zip(facts, keys, strict=True)
        ]

    def write(self, case: dict[str, Any], key: str) -> None:
        """Prepare one case and keep it under `key`."""
        prepared = load_case(dict(case), self.preprocessing)
        image, label = prepared["image"], prepared.get("label")
        parts = [np.asarray(image)] + ([np.asarray(label)] if label is not None else [])
        stack = _compact(np.concatenate([part.astype(np.float32) for part in parts]), case)
        planar, channels = stack.ndim == 3, len(parts[0])
        stack = stack[None] if planar else np.ascontiguousarray(stack.transpose(3, 0, 1, 2))
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(stack))
        size = header.tell() + stack.nbytes
        write_bytes(self.folder / f"{key}.npy", header.getbuffer(), stack.data)
        write_json(
            self.folder / f"{key}.json",
            {
                "bytes": size,
                "offset": size - stack.nbytes,
                "dtype": str(stack.dtype),
                "shape": list(stack.shape),
                "planar": planar,
                "image_channels": channels,
                "affine": np.asarray(image.affine if isinstance(image, MetaTensor) else np.eye(4)).tolist(),
                "lesion_slices": np.flatnonzero(stack[:, channels:].any(axis=(1, 2, 3))).tolist(),
            },
        )

    def read(self, volume: int, first: int = 0, count: int = 1) -> np.ndarray:
        """`count` slices of a volume from `first` on, shape (count, channels, X, Y).

        A plain read of the file, not a mapping of it: mapped pages would count as this process's memory,
        which would then grow with the dataset.
        """
        facts = self.facts[volume]
        shape = (count, *facts["shape"][1:])
        dtype = np.dtype(facts["dtype"])
        values = int(np.prod(shape))
        offset = facts["offset"] + first * (values // count) * dtype.itemsize
        array = np.fromfile(facts["file"], dtype=dtype, count=values, offset=offset)
        if array.size != values:
            raise DataError(f"expected the whole cache file {facts['file']}, found it cut short; remove it")
        return array.reshape(shape)

    def tensors(self, array: np.ndarray | torch.Tensor, volume: int) -> dict[str, torch.Tensor]:
        """Slices as read, (..., channels, X, Y), as float32 `image` and `label` tensors."""
        channels = self.facts[volume]["image_channels"]
        stack = torch.as_tensor(array).float()
        parts = {"image": stack[..., :channels, :, :]}
        if stack.shape[-3] > channels:
            parts["label"] = stack[..., channels:, :, :]
        return parts


def _many() -> bool:
    return idist.get_world_size() > 1


def _compact(stack: np.ndarray, case: dict[str, Any]) -> np.ndarray:
    """The smallest type that holds the values exactly, so that the cache changes nothing."""
    for dtype in (np.uint8, np.float16):
        with np.errstate(all="ignore"):
            compact = stack.astype(dtype)
        if np.array_equal(compact.astype(np.float32), stack):
            return compact
    raise ValueError(
        f"{case['image']}: the preprocessing must end with rounding to whole numbers from 0 to 255 or to "
        "half precision, so that the cache holds what inference sees"
    )


class _Preparation(torch.utils.data.Dataset):
    """Preparing volumes as a dataset, so that a `DataLoader` brings the worker processes."""

    def __init__(self, cache: VolumeCache, share: list[tuple[dict[str, Any], str]]) -> None:
        self.cache = cache
        self.share = share

    def __len__(self) -> int:
        return len(self.share)

    def __getitem__(self, index: int) -> str | None:
        case, key = self.share[index]
        try:
            self.cache.write(case, key)
        except DataError as error:  # as text: an exception from a worker arrives wrapped in its traceback
            return str(error)
        return None

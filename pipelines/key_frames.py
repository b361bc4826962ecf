"""The frames of a contrast-enhanced clip that are worth looking at, and two of them for each patient.

As in CEUSegNet (Meng et al., ISBI 2022): the clip is sampled at one frame a second, the 40 frames whose grey
levels change most from their neighbour are candidates, and two of these are chosen at random.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np

from pipelines.clips import Frame

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

Item = TypeVar("Item")


class KeyFrame(NamedTuple):
    """A frame of a clip.

    Attributes:
        index: its number in the clip, from 0.
        time: seconds since the first frame.
        change: mean absolute difference of its grey levels, of 255, from its neighbour's.
    """

    index: int
    time: float
    change: float


def sample(frames: Iterable[Frame], per_second: float = 1.0) -> Iterator[tuple[int, Frame]]:
    """For each tick of a clock the frame whose time is nearest, with its index; every frame at most once.

    The clock starts with the first frame and stops with the last one. Times have to grow.
    """
    ticks, taken, before = 0, -1, None
    for index, frame in enumerate(frames):
        time = frame.time * per_second
        passed = math.floor(time + 1e-3) + 1  # 30 frames of 33.333 ms are a second
        if passed > ticks:
            first, last = ticks, passed - 1  # the ticks since the frame before
            if before is not None and before[0] > taken and first - before[2] <= time - first:
                yield before[:2]
            if before is None or time - last < last - before[2]:
                yield index, frame
                taken = index
            ticks = passed
        before = index, frame, time


def changes(frames: Iterable[tuple[int, Frame]]) -> list[KeyFrame]:
    """How much each frame differs from the one before it, the first from the one after it.

    Args:
        frames: with their indices, as `sample` gives them; crop them first to measure a part only.
    """
    found: list[KeyFrame] = []
    before = None
    for index, frame in frames:
        grey = frame.image @ LUMA
        change = 0.0 if before is None else float(np.abs(grey - before).mean())
        if len(found) == 1:
            found[0] = found[0]._replace(change=change)
        found.append(KeyFrame(index, frame.time, change))
        before = grey
    return found


def largest_changes(frames: Iterable[KeyFrame], count: int = 40) -> list[KeyFrame]:
    """The frames with the largest changes, in their order in time; of equal ones the earlier."""
    return sorted(heapq.nsmallest(count, frames, key=lambda frame: (-frame.change, frame.index)))


def choose(candidates: Sequence[Item], clip: str, count: int = 2, seed: int = 0) -> list[Item]:
    """Choose at random, the same for a clip and a seed on every machine, whatever the other clips are.

    Args:
        candidates: to choose from.
        clip: what tells it from other clips, such as a hash.
        count: how many to choose.
        seed: another one, another choice.

    Returns:
        `count` of the candidates, or all where there are fewer, in their order.
    """
    digest = hashlib.sha256(f"{seed}:{clip}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    chosen = random.choice(len(candidates), min(count, len(candidates)), replace=False)
    return [candidates[index] for index in sorted(chosen)]


def pick(frames: Iterable[Frame], indices: Iterable[int]) -> list[Frame]:
    """The frames of a clip at these indices, in their order in the clip; nothing is read beyond the last."""
    wanted = set(indices)
    numbered = enumerate(islice(frames, max(wanted, default=-1) + 1))
    return [frame for index, frame in numbered if index in wanted]

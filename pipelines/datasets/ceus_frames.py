"""Key frames of contrast-enhanced clips as pictures on disk, so that a clip is read once.

What was found in a clip goes to a folder whose name is a hash of the clip's identity (its path, size and time
of change) and of the options, so that a change of either makes a new folder. A `found.json` in it is written
last; pictures without it are not looked at. Nothing in it is called after the patient.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pipelines.clips import Frame, read_clip
from pipelines.errors import DataError
from pipelines.files import read_json, write_json, written_whole
from pipelines.key_frames import KeyFrame, changes, choose, largest_changes, pick, sample
from pipelines.panels import read_panels
from transforms.panels import PanelError, find_panels

FORMAT = 2  # counts up with every change of what is found or how it is written
FOUND = "found.json"
DARKEST = 3  # seconds of a clip before the bubbles arrive, about

Files = Path | tuple[Path, ...]  # a clip, or its frames as pictures
Boxes = dict[str, list[int]]  # [top, left, height, width] of "contrast" and "bmode"


class Options(NamedTuple):
    """How key frames are chosen: `count` of the `candidates` with the largest changes, by `seed`."""

    count: int = 2
    candidates: int = 40
    seed: int = 0


class Picture(NamedTuple):
    """A key frame.

    Attributes:
        index: its number in the clip, from 0.
        picture: a file with it.
        panels: of its clip.
    """

    index: int
    picture: Path
    panels: Boxes


class Seen(NamedTuple):
    """What is kept of a clip that was read.

    Attributes:
        frames: those that were sampled, with their changes.
        maximum: their pixelwise maximum, uint8 (H, W, 3).
        darkest: the same of the three darkest of them.
    """

    frames: list[KeyFrame]
    maximum: np.ndarray
    darkest: np.ndarray


def key_frames(
    clip: Files, options: Options, frames_dir: str | Path, panels: Path | None = None
) -> list[Picture]:
    """The key frames of a clip, from an earlier call or found now.

    Frames that are pictures stay where they are; those of a clip file are written as PNG below `frames_dir`.
    Each file is written whole, and one that is there is left as it is: its time of change may be part of the
    key of a cache.

    Args:
        clip: a file, or pictures in their order.
        options: see there.
        frames_dir: a folder for what is written.
        panels: a `panels.json`; without one the panels are found in the clip.

    Raises:
        DataError: the clip cannot be read, its panels are not found for sure, or `panels` is wrong.
    """
    given = read_panels(panels) if panels else None
    folder = Path(frames_dir) / _name(clip, options)
    known = _known(folder)
    found = known or _find(clip, options)
    lacking = [index for index in found["frames"] if not _picture(folder, clip, index).is_file()]
    if lacking:
        for index, frame in zip(lacking, pick(read_clip(clip), lacking), strict=True):
            with written_whole(_picture(folder, clip, index)) as beside:
                Image.fromarray(frame.image).save(beside)
    if known is None:
        write_json(folder / FOUND, found)
    boxes = given or found["panels"]
    if boxes is None:
        raise DataError(f"{_first(clip)}: {found['unsure']}, in {_first(clip).parent}")
    return [Picture(index, _picture(folder, clip, index), boxes) for index in found["frames"]]


def watch(clip: Files) -> Seen:
    """Read a clip once, to its end, with a few frames in memory.

    Raises:
        DataError: the clip cannot be read.
    """
    maximum = np.zeros((0, 0, 3), np.uint8)
    darkest: list[tuple[float, int, np.ndarray]] = []  # a heap by brightness, the brightest first

    def passing() -> Iterator[tuple[int, Frame]]:
        nonlocal maximum
        for index, frame in sample(read_clip(clip)):
            image = frame.image
            maximum = np.maximum(maximum, image) if maximum.size else image
            heapq.heappush(darkest, (-float(image.mean()), -index, image))
            if len(darkest) > DARKEST:
                heapq.heappop(darkest)
            yield index, frame

    frames = changes(passing())
    return Seen(frames, maximum, np.maximum.reduce([image for *_, image in darkest]))


def find_boxes(seen: Seen) -> tuple[Boxes | None, str]:
    """The panels of a clip, or None and why not.

    They are looked for in the maximum of all frames, which shows where both images reach, and in that of the
    darkest: before the bubbles arrive a grey contrast image is dark, while at its peak it is as bright as the
    B-mode image. The surer answer is taken.
    """
    found, unsure = [], ""
    for view in (seen.maximum, seen.darkest):
        try:
            found.append(find_panels(view.transpose(2, 0, 1)))
        except PanelError as error:
            unsure = str(error)
        except ValueError:  # smaller than any screen
            unsure = "expected a frame of 32x32 pixels or more; give both panels in panels.json"
    if not found:
        return None, unsure
    surest = max(found, key=lambda panels: panels.sure)
    return {"contrast": list(surest.contrast), "bmode": list(surest.bmode)}, ""


def _name(clip: Files, options: Options) -> str:
    files = [clip] if isinstance(clip, Path) else clip
    identity = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    content = json.dumps([FORMAT, identity, options])
    return hashlib.sha256(content.encode()).hexdigest()[:20]


def _content(clip: Files) -> str:
    """What is drawn by: a hash of the bytes, so that a clip has the same key frames wherever it lies."""
    digest = hashlib.sha256()
    for file in [clip] if isinstance(clip, Path) else clip:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _known(folder: Path) -> dict | None:
    """What an earlier call found, or None where nothing whole is."""
    try:
        return read_json(folder / FOUND)
    except DataError:
        return None


def _find(clip: Files, options: Options) -> dict:
    """The numbers of the key frames and the panels, as they are kept in `found.json`."""
    seen = watch(clip)
    candidates = largest_changes(seen.frames, options.candidates)
    chosen = choose(candidates, _content(clip), options.count, options.seed)
    boxes, unsure = find_boxes(seen)
    return {"frames": [frame.index for frame in chosen], "panels": boxes, "unsure": unsure}


def _picture(folder: Path, clip: Files, index: int) -> Path:
    return folder / f"frame_{index}.png" if isinstance(clip, Path) else clip[index]


def _first(clip: Files) -> Path:
    return clip if isinstance(clip, Path) else clip[0]

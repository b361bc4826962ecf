"""Lesions in contrast-enhanced ultrasound: how the data lies on disk.

There is one folder a patient, `ROOT/PATIENT/`, whose name may be of any script. It holds either one clip (a
DICOM multi-frame file with any ending or none, AVI or MP4) or its frames (PNG or JPEG, in natural order), and
`mask.png`, the lesion as drawn on the contrast panel, of the size of a whole frame; a second lesion is
`mask_1.png`. A frame shows the contrast and the B-mode image beside each other. Where the two are is found,
or told by a `panels.json` (see `pipelines.panels`) in the folder, or in ROOT for all patients without one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from tqdm import tqdm

from pipelines.clips import PICTURES, VIDEOS
from pipelines.datasets.ceus_check import check
from pipelines.datasets.ceus_frames import Options, Picture, key_frames
from pipelines.datasets.ceus_layout import Patient, discover, is_clip, is_picture, panels_file
from pipelines.datasets.ceus_phantom import phantom
from pipelines.datasets.reading import GREY_LEVELS, read_picture
from pipelines.errors import DataError
from pipelines.panels import read_panels
from transforms.panels import PanelError, SplitDualPanel

__all__ = ["LEVELS", "check", "entries", "index", "phantom", "read"]

LEVELS = GREY_LEVELS  # of the contrast panel
FRAMES_DIR = "runs/ceus/frames"
ENDINGS = (*VIDEOS, *PICTURES, ".dcm", ".dicom", ".ima")  # of 1.2.840.113 nothing is an ending


def index(
    root: str | Path,
    labelled: bool = True,
    count: int = 2,
    candidates: int = 40,
    seed: int = 0,
    frames_dir: str | Path = FRAMES_DIR,
) -> list[dict]:
    """The key frames of all patients as a MONAI datalist, in natural order.

    Clips are read once; what was found is kept in `frames_dir`. A progress bar shows on a terminal.

    Args:
        root: the folder that holds the patients' folders.
        labelled: list the patients with a mask; False lists every patient, without a label.
        count: how many key frames a patient has.
        candidates: how many frames with large changes they are drawn from.
        seed: another seed, other key frames.
        frames_dir: where key frames of clip files are written, as PNG, and what was found.

    Returns:
        Entries such as `{"case": "P001_12", "patient": "P001", "image": path, "label": path, "panels":
        {"contrast": [top, left, height, width], "bmode": [...]}}`, where 12 is the frame's number in the
        clip, from 0. Where a patient has several masks, `label` is a list of paths, and the lesion their
        union. Without labels, the frame of a clip file says where it is from: `"clip": path, "frame": 12`.

    Raises:
        DataError: where there is no data, a clip or a mask is missing, there are two clips, one cannot be
            read, its panels are not found for sure, or data lies beside a phantom.
    """
    root = Path(root)
    patients, findings = discover(root)
    hint = f"; see all that is wrong with: featherseg check ceus {root}"
    for finding in findings:
        if finding.severity == "error" and (labelled or finding.kind not in ("unlabelled", "phantom")):
            raise DataError(f"{root / finding.file}: {finding.message}{hint}")
    options = Options(count, candidates, seed)
    found = _all_key_frames(patients, root, options, frames_dir)
    return [
        {
            "case": f"{patient.name}_{frame.index}",
            "patient": patient.name,
            "image": str(frame.picture),
            **({"label": _label(patient)} if labelled else _origin(patient.clip, frame)),
            "panels": frame.panels,
        }
        for patient in patients
        for frame in found[patient.name]
    ]


def entries(
    path: str | Path,
    count: int = 2,
    candidates: int = 40,
    seed: int = 0,
    frames_dir: str | Path = FRAMES_DIR,
) -> list[dict]:
    """What one file gives to segment, as a MONAI datalist.

    Args:
        path: a picture with both panels, or a clip, with the key frames that it has in a dataset.
        count: as for `index`, and so are the other options.
        candidates: see there.
        seed: see there.
        frames_dir: see there.

    Returns:
        Of a picture called STEM `{"case": "STEM", "image": path}`, with "panels" where a `panels.json` lies
        beside it; of a clip an entry such as `{"case": "STEM_12", "image": path, "clip": path, "frame": 12,
        "panels": boxes}` for each key frame.

    Raises:
        DataError: where there is no such file, it is neither, or as for `index`.
    """
    path = Path(path)
    if not path.is_file() or not (is_picture(path) or is_clip(path)):
        raise DataError(
            "expected a picture (PNG or JPEG) with a contrast and a B-mode panel, or a clip (DICOM, AVI or"
            f" MP4), found {path}{'' if path.exists() else ', which is not there'}"
        )
    name = path.name.removesuffix(path.suffix) if path.suffix.lower() in ENDINGS else path.name
    panels = panels_file(path.parent)
    if is_picture(path):
        boxes = {"panels": read_panels(panels)} if panels else {}
        return [{"case": name, "image": str(path), **boxes}]
    found = key_frames(path, Options(count, candidates, seed), frames_dir, panels)
    return [
        {
            "case": f"{name}_{frame.index}",
            "image": str(frame.picture),
            **_origin(path, frame),
            "panels": frame.panels,
        }
        for frame in found
    ]


def read(case: dict[str, Any], targets: Sequence[int]) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """The luminance of a key frame on its contrast panel, and its mask.

    The whole frame, as a network's masks are of: a missed lesion costs the frame's diagonal.

    Args:
        case: an entry of `index`.
        targets: the labels that are lesion; in a mask drawn as a picture it is 1.

    Returns:
        The luminance, int16, shape (height, width), -1 outside the contrast panel, which is below all
        `LEVELS`; the mask, bool, of the same shape; the distance of pixels along each axis, 1.

    Raises:
        DataError: names the file that cannot be read, the mask whose size is not its frame's, or the frame
            that its panels do not fit.
    """
    values, truth, spacing = read_picture(case, targets)
    try:
        boxes = SplitDualPanel().boxes(torch.from_numpy(values)[None], case["panels"])
    except PanelError as error:
        raise DataError(f"{case['image']}: {error}") from error
    top, left, height, width = boxes.contrast
    panel, levels = np.s_[top : top + height, left : left + width], np.full(values.shape, -1, np.int16)
    levels[panel] = values[panel]
    return levels, truth, spacing


def _all_key_frames(
    patients: list[Patient], root: Path, options: Options, frames_dir: str | Path
) -> dict[str, list[Picture]]:
    """The key frames by patient; each process of a distributed run looks for its share of them.

    All processes have to call this. A file is written by one of them only, so that all see it unchanged.
    """

    def find(patient: Patient) -> list[Picture]:
        panels = patient.panels or panels_file(root)
        return key_frames(patient.clip, options, frames_dir, panels)

    found, failure = {}, None
    own = patients[idist.get_rank() :: idist.get_world_size()]
    quiet = None if idist.get_rank() == 0 else True
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))  # decoders let go of the interpreter
    try:
        bar = tqdm(pool.map(find, own), "key frames", len(own), unit="clip", disable=quiet)
        found = {patient.name: frames for patient, frames in zip(own, bar, strict=True)}
    except DataError as error:
        failure = str(error)
    finally:
        pool.shutdown(cancel_futures=True)
    # A process that failed says so before the others go on. In a list, since ignite pads a string to its
    # characters, not its bytes, which does not hold a path of any script.
    failure = next((one for (one,) in idist.all_gather([failure]) if one), None)
    if failure:
        raise DataError(failure)
    return {patient.name: found.get(patient.name) or find(patient) for patient in patients}


def _origin(clip: Path | tuple[Path, ...], frame: Picture) -> dict[str, Any]:
    """The clip that a frame was taken from; nothing where its frames are pictures themselves."""
    return {"clip": str(clip), "frame": frame.index} if isinstance(clip, Path) else {}


def _label(patient: Patient) -> str | list[str]:
    files = [str(label) for label in patient.labels]
    return files[0] if len(files) == 1 else files

"""Frames of an ultrasound clip, one at a time, with the times that the file itself gives.

A clip is a DICOM ultrasound file, an AVI or MP4 file, or a folder of PNG or JPEG frames. One frame is in
memory at a time, whatever the length of the clip. Of a DICOM file only pixels and timing are read, nothing
about the patient, so that nothing of it can reach a message.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
import numpy as np
import pydicom
from PIL import Image
from pydicom.encaps import parse_fragments
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels import apply_color_lut, get_decoder, iter_pixels, pixel_array

from pipelines.datasets.checking import natural
from pipelines.datasets.masks import READ_ERRORS
from pipelines.errors import DataError

VIDEOS = (".avi", ".mp4")
PICTURES = (".png", ".jpg", ".jpeg")
FOLDER_RATE = 1.0  # frames per second of a folder: frames kept as pictures are a choice already

COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR", "MONOCHROME2")
TIMING = ("FrameIncrementPointer", "FrameTimeVector", "FrameTime", "RecommendedDisplayFrameRate", "CineRate")
PIXELS = ("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsStored")
PALETTE = tuple(
    f"{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue", "SegmentedRed", "SegmentedGreen", "SegmentedBlue")
    for part in ("Descriptor", "Data")
    if part == "Data" or not colour.startswith("Segmented")
)
FRAME_TIME = 0x00181063

# What pydicom and its decoders are seen to raise for a file that is cut off or damaged.
DICOM_ERRORS = (
    *(AttributeError, EOFError, IndexError, KeyError, NotImplementedError, OSError),
    *(RuntimeError, TypeError, ValueError, struct.error, zlib.error),
    *(BytesLengthException, InvalidDicomError),
)


class Frame(NamedTuple):
    """One frame of a clip.

    Attributes:
        time: seconds since the first frame.
        image: (H, W, 3) uint8, RGB.
    """

    time: float
    image: np.ndarray


def read_clip(
    clip: str | Path | Sequence[str | Path], frames_per_second: float | None = None
) -> Iterator[Frame]:
    """Read a clip frame by frame.

    Times come from `FrameTimeVector`, `FrameTime`, `RecommendedDisplayFrameRate` or `CineRate` of a DICOM
    file, the first of these that it has (`FrameTime` first where `FrameIncrementPointer` points to it), and
    from the presentation times of a video.

    Args:
        clip: a DICOM file (with any ending or none), an AVI or MP4 file, a folder of PNG or JPEG frames,
            which are taken in natural order (2 before 10), or the frames' files in their order.
        frames_per_second: of a clip that does not say it: of a folder, 1 by default, or of a DICOM file
            without timing.

    Returns:
        An iterator over the frames; what is wrong with a file may come to light as late as its last frame.

    Raises:
        DataError: no such file or of another kind, no ultrasound, no frames, no timing, frames of unlike
            sizes, or a file that is cut off or damaged. The message names the file.
    """
    if frames_per_second is not None and not 0 < frames_per_second < float("inf"):
        raise DataError(
            f"expected more than 0 frames per second, found {frames_per_second}; give another rate"
        )
    if not isinstance(clip, (str, Path)):
        return _pictures([Path(file) for file in clip], frames_per_second or FOLDER_RATE, "the given files")
    path = Path(clip)
    if path.is_dir():
        files = (file for file in path.iterdir() if file.suffix.lower() in PICTURES and file.name[0] != ".")
        ordered = sorted(files, key=lambda file: natural(file.name))
        return _pictures(ordered, frames_per_second or FOLDER_RATE, str(path))
    if not path.exists():
        raise DataError(f"expected a clip at {path}, found nothing there; give a file or a folder of frames")
    if _is_dicom(path):
        return _dicom(path, frames_per_second)
    if path.suffix.lower() in VIDEOS:
        return _video(path, frames_per_second)
    raise DataError(
        f"{path}: expected a DICOM, AVI or MP4 file or a folder of PNG or JPEG frames, found another kind of "
        "file; export the clip as one of these"
    )


def _pictures(files: Sequence[Path], rate: float, where: str) -> Iterator[Frame]:
    if not files:
        raise DataError(
            f"{where}: expected PNG or JPEG frames, found none; export the frames of the clip there"
        )
    size = None
    for index, file in enumerate(files):
        try:
            with Image.open(file) as picture:
                deep = picture.mode.startswith(("I", "F"))
                image = None if deep else np.asarray(picture.convert("RGB"))
        except READ_ERRORS as error:
            raise DataError(
                f"{file}: expected a whole picture, found one that cannot be read; export it again"
            ) from error
        if image is None:
            raise DataError(
                f"{file}: expected 8 bits a channel, found a picture of more; export it again as RGB or grey"
            )
        size = size or image.shape
        if image.shape != size:
            raise DataError(
                f"{file}: expected the size of the clip's first frame, {size[1]}x{size[0]} (width x height), "
                f"found {image.shape[1]}x{image.shape[0]}; keep the frames of one clip in a folder"
            )
        yield Frame(index / rate, image)


def _video(path: Path, rate: float | None) -> Iterator[Frame]:
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path}: expected a video, found none in the file; export the clip again")
            stream = container.streams.video[0]
            rate = float(stream.average_rate or rate or 0)
            first, count = None, 0
            for frame in container.decode(stream):
                time = frame.time if frame.time is not None else count / rate if rate else None
                if time is None:
                    raise DataError(
                        f"{path}: expected the times of its frames, found none; give the frames per second"
                    )
                first = time if first is None else first
                count += 1
                yield Frame(float(time - first), frame.to_ndarray(format="rgb24"))
            # An edit list may hide a few frames of a whole file.
            if count == 0 or stream.frames - count > max(2, 0.02 * stream.frames):
                raise _cut_off(path, count, stream.frames)
    except av.FFmpegError as error:
        raise DataError(
            f"{path}: expected a whole video file, found one that cannot be read to its end; export it again"
        ) from error


def _cut_off(path: Path, found: int, expected: int) -> DataError:
    if found == 0:
        return DataError(f"{path}: expected frames, found none; export the clip again")
    return DataError(
        f"{path}: expected {expected} frames, found {found} that can be read; the file is cut off or "
        "damaged, export it again"
    )


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _dicom(path: Path, rate: float | None) -> Iterator[Frame]:
    try:
        with path.open("rb") as file:
            tags = ["Modality", *TIMING, *PIXELS, *PALETTE]
            header = pydicom.dcmread(file, specific_tags=tags, stop_before_pixels=True)
            syntax = header.file_meta.TransferSyntaxUID
            whole = not syntax.is_encapsulated or whole_fragments(file)
        colour, modality = header.get("PhotometricInterpretation"), header.get("Modality")
        bits, count = header.get("BitsStored"), header.get("NumberOfFrames")
        count = 1 if count is None else int(count)
    except DICOM_ERRORS as error:
        raise DataError(
            f"{path}: expected a whole DICOM file, found one that is not; export it again"
        ) from error
    if modality != "US":
        raise DataError(f"{path}: expected ultrasound (modality US), found {modality}; give the clip itself")
    if count < 1:
        raise _cut_off(path, 0, 0)
    if colour is None:
        raise DataError(f"{path}: expected an image, found a DICOM file without pixels; give the clip itself")
    if colour not in COLOURS or (bits != 8 and colour != "PALETTE COLOR"):
        raise DataError(
            f"{path}: expected 8 bits a channel of {', '.join(COLOURS)}, found {bits} bits of {colour}; "
            "export the clip as AVI or MP4"
        )
    try:
        decodable = get_decoder(syntax).is_available
    except NotImplementedError:
        decodable = False
    if not decodable:
        raise DataError(
            f"{path}: expected a transfer syntax that pydicom decodes, found {syntax.name}; export the clip "
            "uncompressed, or as AVI or MP4"
        )
    if not whole:
        raise DataError(f"{path}: expected a whole DICOM file, found one that is cut off; export it again")
    times = _dicom_times(header, count, rate)
    if times is None:
        raise DataError(
            f"{path}: expected the times of its frames ({', '.join(TIMING[1:])}), found none; give the "
            "frames per second"
        )
    return _decoded(path, header, times)


def whole_fragments(file: BinaryIO) -> bool:
    """Whether the file reaches to the end of its compressed pixels, at whose tag it stands.

    A decoder may fill the rest of a JPEG image that is cut off without a word.
    """
    file.seek(12, os.SEEK_CUR)  # tag, VR and length
    last = parse_fragments(file)[1][-1]
    file.seek(last + 4)
    end = last + 8 + struct.unpack("<L", file.read(4))[0]
    return end <= file.seek(0, os.SEEK_END)


def _decoded(path: Path, header: pydicom.Dataset, times: np.ndarray) -> Iterator[Frame]:
    if header.file_meta.TransferSyntaxUID.is_encapsulated:
        pixels = iter_pixels(path)
    else:  # of uncompressed YBR_FULL_422, iter_pixels of pydicom 3.0 takes the later frames from wrong places
        pixels = (pixel_array(path, index=index) for index in range(len(times)))
    for count, time in enumerate(times):
        try:
            image = _rgb(next(pixels), header)
        except (StopIteration, *DICOM_ERRORS) as error:
            raise _cut_off(path, count, len(times)) from error
        yield Frame(float(time), image)


def _rgb(image: np.ndarray, header: pydicom.Dataset) -> np.ndarray:
    """One frame, RGB, grey or of indices into a palette, as (H, W, 3) uint8."""
    if header.PhotometricInterpretation == "PALETTE COLOR":
        image = apply_color_lut(image, header)[..., :3]
        image = image >> 8 if image.dtype == np.uint16 else image  # 16 bits are the full scale of its entries
    image = image.astype(np.uint8, copy=False)
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)


def _dicom_times(header: pydicom.Dataset, count: int, rate: float | None) -> np.ndarray | None:
    """Seconds since the first frame, (count,), or None where neither the header nor `rate` says them."""
    steps = _numbers(header, "FrameTimeVector")
    vector = None
    if len(steps) == count and steps[1:].size and (steps[1:] >= 0).all() and steps[1:].any():
        vector = (np.cumsum(steps) - steps[0]) / 1000
    one = _numbers(header, "FrameTime")
    constant = np.arange(count) * one[0] / 1000 if one.size and one[0] > 0 else None
    order = (constant, vector) if header.get("FrameIncrementPointer") == FRAME_TIME else (vector, constant)
    for times in order:
        if times is not None:
            return times
    for rates in (
        _numbers(header, "RecommendedDisplayFrameRate"),
        _numbers(header, "CineRate"),
        (rate or 0,),
    ):
        if len(rates) and rates[0] > 0:
            return np.arange(count) / rates[0]
    return np.zeros(1) if count == 1 else None


def _numbers(header: pydicom.Dataset, keyword: str) -> np.ndarray:
    """The finite values of an element, none where it is absent, empty or no number."""
    try:
        value = header.get(keyword)
        values = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
        numbers = np.array([float(one) for one in values])
    except (TypeError, ValueError):
        return np.zeros(0)
    return numbers if np.isfinite(numbers).all() else np.zeros(0)

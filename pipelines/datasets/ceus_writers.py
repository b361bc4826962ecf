"""Clips as scanners and archives store them: DICOM, AVI, MP4, or a folder of pictures."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate

from pipelines.datasets.ceus_screen import LOGO, ORANGE, TINTS

# Made up. A scanner writes such things into every file, and nobody else may see them.
IDENTITY = {
    "PatientName": "Mustermann^Jürgen",
    "PatientID": "HOSPITAL-4711",
    "PatientBirthDate": "19610409",
    "InstitutionName": "Klinik am Musterberg",
    "ReferringPhysicianName": "Beispiel^Erika",
}
# Amber and grey in steps of two, and the colours of the logo and of the line; unused entries are black.
PALETTE = np.concatenate((TINTS["amber"][::2], TINTS["grey"][:252:2], [LOGO, ORANGE])).astype(np.uint8)


def write_clip(path: Path, frames: Iterable[np.ndarray], rate: float, form: str) -> None:
    """Write a clip.

    Args:
        path: the file; for pictures a folder that exists, and they are called `frame-0.png` and so on.
        frames: uint8 (H, W, 3), RGB, of even height and width.
        rate: frames a second.
        form: one of `FORMS`.
    """
    if form in DICOM:
        _write_dicom(path, frames, rate, form)
    elif form in ("png", "jpg"):
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(path / f"frame-{number}.{form}", quality=95, subsampling=0)
    else:
        _write_video(path, frames, rate, *VIDEO[form])


def _write_video(
    path: Path, frames: Iterable[np.ndarray], rate: float, codec: str, colours: str, quality: int
) -> None:
    with av.open(str(path), "w") as container:
        container.flags |= 1024  # AVFMT_FLAG_BITEXACT: no version of the library in the file
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1000))
        stream.pix_fmt, stream.thread_count = colours, 1
        stream.codec_context.flags |= av.codec.context.Flags.qscale | av.codec.context.Flags.bitexact
        stream.codec_context.global_quality = 118 * quality  # FF_QP2LAMBDA
        for number, frame in enumerate(frames):
            if number == 0:
                stream.height, stream.width = frame.shape[:2]
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _write_dicom(path: Path, frames: Iterable[np.ndarray], rate: float, form: str) -> None:
    photometric, syntax, encode = DICOM[form]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.UltrasoundMultiFrameImageStorage
    meta.TransferSyntaxUID = syntax
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in IDENTITY.items():
        setattr(dataset, keyword, value)
    dataset.Modality = "US"
    dataset.PhotometricInterpretation = photometric
    dataset.SamplesPerPixel = 1 if photometric == "PALETTE COLOR" else 3
    if dataset.SamplesPerPixel == 3:
        dataset.PlanarConfiguration = 0
    else:
        for channel, colour in enumerate(("Red", "Green", "Blue")):
            table = np.zeros(256, np.uint8)
            table[: len(PALETTE)] = PALETTE[:, channel]
            setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
            setattr(dataset, f"{colour}PaletteColorLookupTableData", (table.astype("<u2") * 257).tobytes())
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    pixels = []
    for frame in frames:
        dataset.Rows, dataset.Columns = frame.shape[:2]
        pixels.append(encode(frame))
    dataset.NumberOfFrames = len(pixels)
    dataset.FrameIncrementPointer = 0x00181063
    dataset.FrameTime = f"{1000 / rate:.6g}"
    dataset.PixelData = encapsulate(pixels) if syntax.is_encapsulated else b"".join(pixels)
    dataset["PixelData"].VR = "OB"
    # Of the pixels, so that the same clip has the same identifiers and another one others.
    digest = hashlib.sha256(dataset.PixelData).hexdigest()
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = uid.generate_uid(entropy_srcs=[digest])
    dataset.StudyInstanceUID = uid.generate_uid(entropy_srcs=[digest, "study"])
    dataset.SeriesInstanceUID = uid.generate_uid(entropy_srcs=[digest, "series"])
    dataset.save_as(path, enforce_file_format=True)


def _full(frame: np.ndarray) -> bytes:
    """Luminance and colour differences of ITU-R BT.601 at full range, one of each a pixel."""
    return np.asarray(Image.fromarray(frame).convert("YCbCr")).tobytes()


def _jpeg(frame: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", quality=92, subsampling=1)
    return stream.getvalue()


def _indices(frame: np.ndarray) -> bytes:
    """The nearest entry of the palette for every pixel."""
    table = Image.new("P", (1, 1))
    table.putpalette(PALETTE.tobytes())
    return Image.fromarray(frame).quantize(palette=table, dither=Image.Dither.NONE).tobytes()


Encoder = Callable[[np.ndarray], bytes]

DICOM: dict[str, tuple[str, uid.UID, Encoder]] = {
    "rgb": ("RGB", uid.ExplicitVRLittleEndian, np.ndarray.tobytes),
    "ybr": ("YBR_FULL", uid.ExplicitVRLittleEndian, _full),
    "jpeg": ("YBR_FULL_422", uid.JPEGBaseline8Bit, _jpeg),
    "palette": ("PALETTE COLOR", uid.ExplicitVRLittleEndian, _indices),
}
VIDEO = {"avi": ("mjpeg", "yuvj422p", 3), "mp4": ("mpeg4", "yuv420p", 3)}  # codec, colours, quantizer
FORMS = (*DICOM, *VIDEO, "png", "jpg")

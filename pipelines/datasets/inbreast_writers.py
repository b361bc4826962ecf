"""Mammograms, contours and the table as INbreast and other mammography systems store them."""

from __future__ import annotations

import hashlib
import io
import plistlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from PIL import Image, ImageDraw, ImageFont
from pydicom import uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames

# Made up. Systems write such things into every file, and nobody else may see them.
IDENTITY = {
    "PatientName": "Mustermann^Érika",
    "PatientID": "HOSPITAL-4711",
    "PatientBirthDate": "19610409",
    "InstitutionName": "Klinik am Musterberg",
    "ReferringPhysicianName": "Beispiel^Jürgen",
}
SYNTAXES = {
    "plain": uid.ExplicitVRLittleEndian,
    "implicit": uid.ImplicitVRLittleEndian,
    "jpeg": uid.JPEGLosslessSV1,
    "jpeg2000": uid.JPEG2000Lossless,
    "rle": uid.RLELossless,
}
PENCIL, POINT = 15, 19  # what OsiriX calls an outline and a mark


def write_mammogram(
    path: Path,
    levels: np.ndarray,
    side: str,
    view: str,
    spacing: float,
    bits: int = 12,
    photometric: str = "MONOCHROME2",
    form: str = "plain",
    windows: Sequence[tuple[float, float, str]] = (),
    **elements: object,
) -> None:
    """Write a mammogram as DICOM; the same arguments give the same bytes.

    Args:
        path: the file.
        levels: (H, W), 0 to 2^bits - 1, brighter where tissue is denser; stored reflected as MONOCHROME1.
        side: "L" or "R".
        view: "CC" or "MLO".
        spacing: of pixel centres in mm; NaN leaves it out.
        bits: stored.
        photometric: MONOCHROME1 or MONOCHROME2.
        form: one of `SYNTAXES`.
        windows: centre, width and name of each.
        elements: others by their keyword, in place of what would be written.
    """
    stored = np.ascontiguousarray(levels, np.uint16)
    if photometric == "MONOCHROME1":
        stored = np.uint16(2**bits - 1) - stored
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.DigitalMammographyXRayImageStorageForPresentation
    # Of the pixels, so that the same image has the same identifiers and another one others.
    digest = hashlib.sha256(stored).hexdigest()
    meta.MediaStorageSOPInstanceUID = uid.generate_uid(entropy_srcs=[digest])
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    dataset.StudyInstanceUID = uid.generate_uid(entropy_srcs=[digest, "study"])
    dataset.SeriesInstanceUID = uid.generate_uid(entropy_srcs=[digest, "series"])
    for keyword, value in IDENTITY.items():
        setattr(dataset, keyword, value)
    dataset.Modality, dataset.PresentationIntentType = "MG", "FOR PRESENTATION"
    dataset.ImageLaterality, dataset.ViewPosition = side, view
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, photometric
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = 0
    if spacing == spacing:
        dataset.ImagerPixelSpacing = [f"{spacing:.6g}"] * 2
    if windows:
        dataset.WindowCenter, dataset.WindowWidth, dataset.WindowCenterWidthExplanation = (
            list(values) if len(values) > 1 else values[0] for values in zip(*windows, strict=True)
        )
    dataset.PixelData = stored.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    if form == "implicit":
        meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    elif form == "jpeg":
        dataset.PixelData = encapsulate([_lossless_jpeg(stored)])
        dataset["PixelData"].VR = "OB"
        meta.TransferSyntaxUID = uid.JPEGLosslessSV1
    elif form != "plain":
        dataset.compress(SYNTAXES[form], generate_instance_uid=False)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)


def _lossless_jpeg(pixels: np.ndarray) -> bytes:
    """Through ITK's writer of DICOM, since pydicom has no encoder of it."""
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a.dcm"
        writer.SetFileName(str(file))
        writer.Execute(sitk.GetImageFromArray(pixels))
        return next(generate_frames(pydicom.dcmread(file).PixelData, number_of_frames=1))


def write_contours(path: Path, rois: Sequence[tuple[str | None, np.ndarray]]) -> None:
    """Write contours as OsiriX exports them; what INbreast holds of it in vain is zero here too.

    Args:
        path: the file.
        rois: for each its name, None for one without, and its points (N, 2), x and y in pixels.
    """
    entries = []
    for number, (name, points) in enumerate(rois):
        entry = {"Area": _area(points), "Center": _text(0, 0, 0), "Dev": 0.0, "IndexInImage": number}
        entry |= {"Max": 0.0, "Mean": 0.0, "Min": 0.0}
        if name is not None:
            entry["Name"] = name
        entry["NumberOfPoints"] = len(points)
        entry["Point_mm"] = [_text(0, 0, 0)] * len(points)
        entry["Point_px"] = [_text(*point) for point in points]
        entry |= {"Total": 0.0, "Type": PENCIL if len(points) > 2 else POINT}
        entries.append(entry)
    content = {"Images": [{"ImageIndex": 0, "NumberOfROIs": len(entries), "ROIs": entries}]}
    path.write_bytes(plistlib.dumps(content, sort_keys=False))


def _text(*position: float) -> str:
    return f"({', '.join(f'{one:.6f}' for one in position)})"


def _area(points: np.ndarray) -> float:
    x, y = np.asarray(points, float).T
    return round(abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2, 6)


def write_table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write `INbreast.csv`: side, view, date, image id, ACR and BI-RADS of each image."""
    text = io.StringIO()
    text.write("Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads\n")
    for row in rows:
        text.write(";".join(("removed", "removed", *row)) + "\n")
    path.write_text(text.getvalue(), encoding="utf-8")


def burn_in(levels: np.ndarray, side: str, view: str, highest: int) -> None:
    """Burn a marker such as "R CC" into the air, in place, at the upper corner away from the chest wall.

    Args:
        levels: (H, W), uint16.
        side: "L", whose chest wall is at the left edge, or "R".
        view: what else the marker says.
        highest: the level of the marker's letters.
    """
    height, width = levels.shape
    size = max(9, height // 45)
    picture = Image.new("1", (width, height))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size)
    text = f"{side} {view}"
    left = size if side == "R" else width - draw.textlength(text, font) - size
    draw.text((left, size), text, 1, font)
    levels[np.asarray(picture)] = highest

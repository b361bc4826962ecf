"""DICOM files with one picture in them, and with a patient's name that must not get out."""

from __future__ import annotations

import numpy as np
from pydicom import uid
from pydicom.dataset import FileDataset, FileMetaDataset

PATIENT = ("Müller^Jürgen", "HOSPITAL-4711", "19560401")


def colours(height, width):
    """An RGB picture (height, width, 3), uint8, no two of whose quarters look alike."""
    y, x = np.mgrid[:height, :width]
    picture = np.stack([255 * x / (width - 1), 255 * y / (height - 1), 60 + 0 * x], axis=-1)
    picture[: height // 3, : width // 3] = (250, 20, 20)
    return np.rint(picture).astype(np.uint8)


def ybr(rgb):
    """ITU-R BT.601 at full range, as DICOM's YBR_FULL has it."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    return np.clip(np.rint(rgb @ matrix.T + [0, 128, 128]), 0, 255).astype(np.uint8)


def write_dicom(path, pixels, photometric="RGB", **elements):
    """Write `pixels`, (H, W[, 3]) or (frames, H, W[, 3]) with `NumberOfFrames` given; returns the path."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.UltrasoundImageStorage
    meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.SpecificCharacterSet, ds.Modality, ds.PhotometricInterpretation = "ISO_IR 192", "US", photometric
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = PATIENT
    colour = pixels.shape[-1] == 3
    ds.SamplesPerPixel = 3 if colour else 1
    if colour:
        ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    bits = 8 * pixels.itemsize
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits, bits - 1, 0
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    data = pixels.tobytes()
    ds.PixelData = data + bytes(len(data) % 2)
    ds.save_as(path, enforce_file_format=True)
    return path


def palette(pixels):
    """The elements of a palette of 16 bits in which index n is (n, 255 - n, n // 2) of 255."""
    n = np.arange(256)
    elements = {"NumberOfFrames": 1} if pixels.ndim == 2 else {}
    for name, levels in (("Red", n), ("Green", 255 - n), ("Blue", n // 2)):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        elements[f"{name}PaletteColorLookupTableData"] = (levels * 257).astype("<u2").tobytes()
    return elements

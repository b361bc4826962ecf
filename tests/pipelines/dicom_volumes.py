"""Series of CT and MR slices as DICOM files, with a patient's name that must not get out."""

from __future__ import annotations

import numpy as np
from pydicom import uid
from pydicom.dataset import FileDataset, FileMetaDataset

PATIENT = {
    "PatientName": "Müller^Jürgen",
    "PatientID": "SECRET-4711",
    "PatientBirthDate": "19560401",
    "PatientSex": "M",
    "PatientAddress": "Lindenweg 12",
    "AccessionNumber": "ACC-0815",
    "StudyID": "ST1",
    "StudyDate": "20240229",
    "StudyDescription": "Vorsorge Herr Müller",
    "InstitutionName": "Klinik Beispielstadt",
}
SECRETS = tuple(value for value in PATIENT.values() if len(value) > 3)
CLASSES = {"CT": uid.CTImageStorage, "MR": uid.MRImageStorage}
AXIAL = ((1, 0, 0), (0, 1, 0))


def oblique(angles=(20, -15, 30)):
    """Directions of rows and columns that are turned about all three axes."""
    x, y, z = np.deg2rad(angles)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    turned = about_z @ about_y @ about_x
    return turned[:, 0], turned[:, 1]


def write_series(
    folder, stored, modality="CT", directions=AXIAL, spacing=(0.7, 0.8, 2.5), skip=(), seed=0, **elements
):
    """Write (slices, rows, columns), int16, one file a slice, whose names tell nothing of their order.

    Args:
        spacing: of pixels along a row, along a column, and of slices, in mm; the first slice is at
            (-30, 12, 5).
        elements: others by their keyword; None leaves one out.

    Returns:
        the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    row, column = (np.asarray(one, float) for one in directions)
    random = np.random.default_rng(seed)
    shared = {
        **PATIENT,
        "StudyInstanceUID": uid.generate_uid(),
        "SeriesInstanceUID": uid.generate_uid(),
        "FrameOfReferenceUID": uid.generate_uid(),
        "PositionReferenceIndicator": "",
        "SeriesNumber": 3,
        "Modality": modality,
        "Rows": stored.shape[1],
        "Columns": stored.shape[2],
        "PixelSpacing": [spacing[1], spacing[0]],
        "SliceThickness": spacing[2],
        "ImageOrientationPatient": [round(float(one), 10) for one in (*row, *column)],
        **{"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"},
        **{"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1},
        **({"RescaleSlope": 1, "RescaleIntercept": -1024} if modality == "CT" else {}),
        **elements,
    }
    for z, name in enumerate(random.permutation(len(stored))):
        if z in skip:
            continue
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CLASSES[modality], uid.ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = uid.generate_uid()
        ds = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
        ds.SpecificCharacterSet = "ISO_IR 192"
        ds.SOPClassUID, ds.SOPInstanceUID = CLASSES[modality], meta.MediaStorageSOPInstanceUID
        position = np.array([-30, 12, 5]) + z * spacing[2] * np.cross(row, column)
        ds.ImagePositionPatient = [round(float(one), 8) for one in position]
        ds.InstanceNumber = int(name) + 1
        for keyword, value in shared.items():
            if value is not None:
                setattr(ds, keyword, value)
        ds.PixelData = stored[z].astype("<i2").tobytes()
        ds.save_as(folder / f"IM{name:03d}", enforce_file_format=True)
    return folder

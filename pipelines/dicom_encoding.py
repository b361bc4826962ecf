"""SEG objects as highdicom makes them: what is said of the segment, of the images, and of the patient."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pydicom
from monai.utils import OptionalImportError, optional_import
from pydicom.pixels.utils import pack_bits
from pydicom.sr.coding import Code
from pydicom.uid import UltrasoundImageStorage, UltrasoundMultiFrameImageStorage

from pipelines.clips import DICOM_ERRORS
from pipelines.dicom_source import Source
from pipelines.errors import DataError

NO_PATIENT = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)


@dataclass(frozen=True)
class Segment:
    """What a SEG says of its segment, and of the algorithm that found it.

    Attributes:
        label: what it is, in a word, such as "tumour".
        category, type: codes (value, scheme, meaning) of DICOM PS3.16 CID 7150 and of a group that it names,
            such as ("108369006", "SCT", "Neoplasm").
        algorithm: its name, such as "FeatherSeg LiTS".
        version: of the algorithm.
        anatomy: code of the organ.
        weights: what tells the algorithm's weights from others, such as a hash.
        corrected: a reader has looked at it and corrected what the algorithm found.
    """

    label: str
    category: tuple[str, str, str]
    type: tuple[str, str, str]
    algorithm: str
    version: str
    anatomy: tuple[str, str, str] | None = None
    weights: str | None = None
    corrected: bool = False


def require_highdicom() -> ModuleType:
    """highdicom, which only SEGs need.

    Raises:
        DataError: it is not installed.
    """
    module, found = optional_import("highdicom")
    try:
        return module if found else module.seg
    except OptionalImportError as error:
        raise DataError(
            "expected highdicom for DICOM SEG, found none; pip install highdicom, or featherseg[dicom]"
        ) from error


def segmentation(mask: np.ndarray, found: Source, segment: Segment, frame: int | None) -> pydicom.Dataset:
    """A SEG of a mask, of nobody yet: see `copy_patient`.

    Args:
        mask: bool, of the size of the images; of one frame (X, Y).
        found: the images.
        segment: what the mask shows.
        frame: of a clip, from 0.

    Raises:
        DataError: highdicom is missing, or does not know images of this class.
    """
    headers = [_known_to_highdicom(header, found) for header in found.headers]
    if found.affine is not None and mask.any():
        return _encoded(headers, mask.transpose(2, 1, 0), segment)
    if found.affine is not None:
        middle = len(headers) // 2
        others = headers[:middle] + headers[middle + 1 :]
        return _encoded([headers[middle]], mask[..., middle].T[None], segment, others)
    if frame is not None:
        kept, mask = [frame], mask[..., None]
    elif len(found.size) == 2:
        kept, mask = [None], mask[..., None]
    else:
        kept = np.flatnonzero(mask.any((0, 1))).tolist() or [found.size[2] // 2]
        mask = mask[..., kept]
    seg = _encoded(headers, mask[..., 0].T[None], segment)
    seg.PatientOrientation = headers[0].get("PatientOrientation")
    if found.headers[0].SOPClassUID == UltrasoundMultiFrameImageStorage:
        _of_clip(seg, mask.transpose(2, 1, 0), kept)
    return seg


def _known_to_highdicom(header: pydicom.Dataset, found: Source) -> pydicom.Dataset:
    """A header as highdicom takes it, without the patient, whom it would name in its warnings."""
    header = copy.deepcopy(header)
    for keyword in NO_PATIENT:
        setattr(header, keyword, None)
    if found.affine is None:
        # As an image of one frame without a place in space; `_of_clip` says what a clip is. A pixel spacing
        # without a thickness, which such images have not, highdicom would write, but not read again.
        for keyword in ("NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            header.pop(keyword, None)
        if header.SOPClassUID == UltrasoundMultiFrameImageStorage:
            header.SOPClassUID = UltrasoundImageStorage
        return header
    header.ImageOrientationPatient = found.headers[0].ImageOrientationPatient  # to the last digit
    header.SliceThickness = header.get("SliceThickness") or np.linalg.norm(found.affine[:3, 2])
    return header


def _encoded(
    headers: list[pydicom.Dataset],
    frames: np.ndarray,
    segment: Segment,
    others: list[pydicom.Dataset] | None = None,
) -> pydicom.Dataset:
    """A SEG as highdicom makes it of (frames, rows, columns), one for each header."""
    hd = require_highdicom()
    described = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=segment.label,
        segmented_property_category=Code(*segment.category),
        segmented_property_type=Code(*segment.type),
        algorithm_type="SEMIAUTOMATIC" if segment.corrected else "AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=segment.algorithm,
            family=Code("123110", "DCM", "Artificial Intelligence"),
            version=segment.version,
            parameters={"weights": segment.weights} if segment.weights else None,
        ),
        anatomic_regions=[Code(*segment.anatomy)] if segment.anatomy else None,
    )
    series = headers[0].get("SeriesNumber") or 0
    try:
        return hd.seg.Segmentation(
            source_images=headers,
            pixel_array=frames,
            segmentation_type="BINARY",
            segment_descriptions=[described],
            series_instance_uid=hd.UID(),
            series_number=1000 + max(int(series), 0),  # after those of the scanner
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="FeatherSeg contributors",
            manufacturer_model_name="FeatherSeg",
            software_versions=segment.version,
            device_serial_number=segment.version,
            content_description=f"{segment.label}, {'corrected' if segment.corrected else 'not reviewed'}",
            series_description=f"{segment.algorithm}: {segment.label}"[:64],
            omit_empty_frames=bool(frames.any()),
            further_source_images=others,
        )
    except KeyError as error:
        if error.args != (headers[0].SOPClassUID,):
            raise
        raise DataError(
            f"expected images of a class that highdicom knows, found {headers[0].SOPClassUID.name}; export "
            "them as one of today's classes"
        ) from error


def _of_clip(seg: pydicom.Dataset, frames: np.ndarray, kept: list[int | None]) -> None:
    """Give a SEG all of its frames, (frames, rows, columns), and the clip whose frames they belong to.

    highdicom 0.28 writes one frame only where an image has no place in space. What tells the frames apart is
    their place in time, as a second dimension.
    """
    (first,) = seg.PerFrameFunctionalGroupsSequence
    (image,) = first.DerivationImageSequence[0].SourceImageSequence
    for reference in (
        image,
        seg.SourceImageSequence[0],
        seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0],
    ):
        reference.ReferencedSOPClassUID = UltrasoundMultiFrameImageStorage
    groups = []
    for place, frame in enumerate(kept, start=1):
        group = copy.deepcopy(first)
        if frame is not None:
            group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = frame + 1
        group.FrameContentSequence[0].TemporalPositionIndex = place
        group.FrameContentSequence[0].DimensionIndexValues = [1, place]
        groups.append(group)
    time = pydicom.Dataset()
    time.DimensionOrganizationUID = seg.DimensionIndexSequence[0].DimensionOrganizationUID
    time.DimensionIndexPointer = pydicom.tag.Tag("TemporalPositionIndex")
    time.FunctionalGroupPointer = pydicom.tag.Tag("FrameContentSequence")
    time.DimensionDescriptionLabel = "Temporal Position Index"
    seg.DimensionIndexSequence.append(time)
    seg.PerFrameFunctionalGroupsSequence = groups
    seg.NumberOfFrames = len(frames)
    seg.PixelData = pack_bits(frames.astype(np.uint8))


def copy_patient(seg: pydicom.Dataset, file: Path) -> None:
    """Copy the modules about patient and study from an image, as DICOM demands; nothing private goes along.

    Raises:
        DataError: one of their elements cannot be read.
    """
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        if "SpecificCharacterSet" in header:
            seg["SpecificCharacterSet"] = header["SpecificCharacterSet"]
        seg.copy_patient_and_study_information(header)
        seg.remove_private_tags()
    except DICOM_ERRORS:
        # Without its cause, which may quote what is at fault.
        raise DataError(
            f"{file}: expected what it says of patient and study as DICOM has it, found an element that "
            "cannot be read; correct it in the PACS"
        ) from None

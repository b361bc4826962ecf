"""Masks as DICOM segmentations (SEG): written with highdicom, and read back onto the grid of their images.

A SEG names its images and the patient and the study that they belong to, as DICOM demands, so it is as
confidential as they are. Nothing of that gets into a message, a log or a file's name.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from nibabel.affines import apply_affine
from pydicom.uid import SegmentationStorage

from pipelines.clips import DICOM_ERRORS
from pipelines.dicom_encoding import Segment, copy_patient, require_highdicom, segmentation
from pipelines.dicom_source import TURNED, Source, read_source
from pipelines.errors import DataError
from pipelines.files import written_whole

OFF = 0.1  # of a voxel or a slice's step, by which a frame may lie beside its image: what rounding costs


def write_seg(
    mask: np.ndarray,
    source: str | Path | list[Path],
    path: str | Path,
    segment: Segment,
    affine: np.ndarray | None = None,
    frame: int | None = None,
) -> None:
    """Write a mask as DICOM SEG that refers to its images.

    It is BINARY and holds the slices or frames in which something is, as is common. Where nothing is, it
    holds the middle one, empty: DICOM knows no SEG without a frame, and the SEG says that the images were
    looked at.

    Args:
        mask: 0 and 1, (X, Y, Z) of a series, (X, Y) of a picture, (X, Y, frames) of a clip or (X, Y) with
            `frame`.
        source: the images, see `read_source`.
        path: of the SEG.
        segment: what the mask shows.
        affine: from the mask's voxels to mm (RAS+), by which it may have other axes or another order of
            slices than the series; None where it is on the series' grid, as ITK reads it.
        frame: of a clip, from 0.

    Raises:
        DataError: the mask has another size than its images, lies elsewhere or holds other values, the
            images are not as `read_source` wants them, highdicom is missing or does not know such images, or
            the file cannot be written.
    """
    require_highdicom()
    found = read_source(source)
    mask = _placed(np.asarray(mask), found, affine, frame)
    with pydicom.config.disable_value_validation():  # it quotes the values that it warns of
        seg = segmentation(mask, found, segment, frame)
        copy_patient(seg, found.files[0])
        with written_whole(path) as beside:
            seg.save_as(beside)


def read_seg(path: str | Path, source: str | Path | list[Path]) -> np.ndarray:
    """Read a SEG onto the grid of its images: those of its frames, and zeros in all others.

    Args:
        path: of a SEG with one segment, from here or from elsewhere.
        source: the images that it belongs to, see `read_source`.

    Returns:
        uint8, 0 and 1; (X, Y, Z) of a series, as ITK reads it, (X, Y) of a picture, (X, Y, frames) of a clip.

    Raises:
        DataError: no SEG, one that is cut off, of several segments, of fractions, or of other images than
            these; or the images are not as `read_source` wants them.
    """
    path, found = Path(path), read_source(source)
    if not path.is_file():
        raise DataError(f"expected a DICOM SEG at {path}, found no such file")
    try:
        seg = pydicom.dcmread(path)
        kind = seg.SegmentationType if seg.SOPClassUID == SegmentationStorage else seg.Modality
        if kind == "BINARY" and len(seg.SegmentSequence) > 1:
            kind = f"{len(seg.SegmentSequence)} segments"
        if kind != "BINARY":
            raise DataError(
                f"{path}: expected a BINARY DICOM SEG of one segment, found {kind}; export it as one"
            )
        known = {header.SOPInstanceUID for header in found.headers}
        named = {
            image.ReferencedSOPInstanceUID
            for series in seg.ReferencedSeriesSequence
            for image in series.ReferencedInstanceSequence
        }
        if not named & known:
            raise DataError(f"{path}: expected a SEG of {found.files[0]}, found one of other images")
        frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
        if frames.shape[:0:-1] != found.size[:2]:
            raise _other_size(f"{path}: ", frames.shape[:0:-1], found.size[:2])
        places = _places(seg, found, path)
    except DICOM_ERRORS as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: expected a whole DICOM SEG, found one that cannot be read to its end; export it again"
        ) from error
    mask = np.zeros((*found.size, 1)[:3], np.uint8)
    for place, one in zip(places, frames, strict=True):
        mask[..., place] |= one.T
    return mask.reshape(found.size)


def _placed(mask: np.ndarray, found: Source, affine: np.ndarray | None, frame: int | None) -> np.ndarray:
    """The mask in the axes and the order of its images, bool."""
    size = found.size if frame is None else found.size[:2]
    if affine is not None and found.affine is not None and mask.ndim == 3:
        whole = np.linalg.inv(found.affine) @ affine
        turn = nib.io_orientation(whole)
        whole = whole @ nib.orientations.inv_ornt_aff(turn, mask.shape)
        mask = nib.apply_orientation(mask, turn)
        corners = np.array(np.meshgrid(*[(0, side - 1) for side in mask.shape])).reshape(3, -1).T
        # Half a voxel, since steps of slices may be uneven, and an affine knows but one.
        if mask.shape == size and np.abs(apply_affine(whole, corners) - corners).max() > 0.5:
            raise DataError(
                f"expected a mask that lies on its images, found one beside those of {found.files[0].parent}"
            )
    if mask.shape != size:
        raise _other_size(f"{found.files[0]}: ", mask.shape, size)
    if frame is not None and not 0 <= frame < found.size[2]:
        raise DataError(f"{found.files[0]}: expected a frame from 0 to {found.size[2] - 1}, found {frame}")
    if mask.dtype != bool and set(np.unique(mask)) - {0, 1}:
        raise DataError(f"{found.files[0]}: expected a mask of 0 and 1, found values up to {mask.max()}")
    return mask.astype(bool)


def _other_size(start: str, found: tuple[int, ...], size: tuple[int, ...]) -> DataError:
    there, wanted = (" x ".join(map(str, one)) for one in (found, size))
    return DataError(
        f"{start}expected a mask of its images' size, {wanted}, found {there}; it is never resized, "
        "segment or draw it on its images, all of them"
    )


def _places(seg: pydicom.Dataset, found: Source, path: Path) -> list[int]:
    """The slice or the frame of the images that each frame of a SEG belongs to."""
    (shared,) = seg.SharedFunctionalGroupsSequence
    groups = [(group, shared) for group in seg.PerFrameFunctionalGroupsSequence]
    elsewhere = DataError(
        f"{path}: expected a SEG that lies on its images, found a frame beside those of "
        f"{found.files[0].parent}; draw or export it on its images"
    )
    if len(found.size) == 2:
        return [0] * len(groups)
    if found.affine is None:
        images = [_told(group, "DerivationImageSequence").SourceImageSequence[0] for group in groups]
        places = [int(image.ReferencedFrameNumber) - 1 for image in images]
        if max(places) >= found.size[2]:
            raise elsewhere
        return places
    first = found.headers[0]
    there = np.array([header.ImagePositionPatient for header in found.headers], float)
    allowed = OFF * np.linalg.norm(found.affine[:3, :3], axis=0).min()
    places = []
    for group in groups:
        apart = np.linalg.norm(there - _told(group, "PlanePositionSequence").ImagePositionPatient, axis=1)
        orientation = _told(group, "PlaneOrientationSequence").ImageOrientationPatient
        spacing = _told(group, "PixelMeasuresSequence").PixelSpacing
        if (
            apart.min() > allowed
            or not np.allclose(orientation, first.ImageOrientationPatient, rtol=0, atol=TURNED)
            or not np.allclose(spacing, first.PixelSpacing, rtol=1e-3)
        ):
            raise elsewhere
        places.append(int(apart.argmin()))
    return places


def _told(groups: tuple[pydicom.Dataset, ...], name: str) -> pydicom.Dataset:
    """What a SEG says of one frame, or of all."""
    return next((group for group in groups if name in group), groups[-1])[name].value[0]

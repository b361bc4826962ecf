"""What a NIfTI file holds, read once from end to end, a slab at a time, so that memory stays small."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

SLAB_VOXELS = 2**23  # 64 MiB where the file is scaled to float64

# What nibabel and zlib are seen to raise for a file that is cut off, damaged or no NIfTI at all.
READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
)


class Header(NamedTuple):
    """Shape of the array, and the affine from its indices to mm (RAS+)."""

    shape: tuple[int, ...]
    affine: np.ndarray

    @property
    def patient_axes(self) -> np.ndarray:
        """The array's axes that run left-right, back-front and foot-head, in this order."""
        return np.argsort(nib.io_orientation(self.affine)[:, 0])

    @property
    def spacing(self) -> np.ndarray:
        """Size of a voxel along each of the array's first three axes, in mm."""
        return nib.affines.voxel_sizes(self.affine)

    def sizes(self, spacing: bool = True) -> dict[str, float]:
        """Sizes along the patient's axes: "width", "depth" and "slice count" in voxels, and with `spacing`
        "pixel spacing" and "slice spacing" in mm; of an array without three axes nothing.
        """
        if len(self.shape) != 3:
            return {}
        width, depth, slices = (int(axis) for axis in self.patient_axes)
        found = {"width": self.shape[width], "depth": self.shape[depth], "slice count": self.shape[slices]}
        if spacing:
            found |= {"pixel spacing": self.spacing[width], "slice spacing": self.spacing[slices]}
        return {name: float(value) for name, value in found.items()}


class Image(NamedTuple):
    """An image's header, its range, how many voxels are not finite, and a hash of shape and voxels."""

    header: Header
    low: float
    high: float
    nonfinite: int
    digest: str


class Mask(NamedTuple):
    """A mask's header and how many voxels have each value."""

    header: Header
    counts: dict[float, int]


def read_image(path: str | Path) -> Image:
    """Read an image to its last byte.

    The hash is of the values as float32, so that a copy has the same one whatever its compression or dtype.

    Raises:
        READ_ERRORS: where the file cannot be read to its end.
    """
    header, slabs = _open(path)
    low, high, nonfinite = np.inf, -np.inf, 0
    digest = hashlib.blake2b(repr(header.shape).encode(), digest_size=16)
    for slab in slabs:
        digest.update(np.ascontiguousarray(slab.T, "<f4"))  # the order in which NIfTI stores them
        if slab.dtype.kind == "f":
            finite = np.isfinite(slab)
            nonfinite += int(slab.size - np.count_nonzero(finite))
            slab = slab[finite]
        if slab.size:
            low, high = min(low, float(slab.min())), max(high, float(slab.max()))
    return Image(header, low, high, nonfinite, digest.hexdigest())


def read_mask(path: str | Path) -> Mask:
    """Read a mask to its last byte; values within 0.001 of an integer count as that integer.

    Raises:
        READ_ERRORS: where the file cannot be read to its end.
    """
    header, slabs = _open(path)
    counts: Counter[float] = Counter()
    for slab in slabs:
        for value, count in zip(*np.unique(slab, return_counts=True), strict=True):
            whole = np.rint(value)
            counts[float(whole if abs(value - whole) < 1e-3 else value)] += int(count)
    return Mask(header, dict(sorted(counts.items())))


def read_voxels(path: str | Path) -> tuple[Header, np.ndarray]:
    """Read a file to its last byte and keep all of it: the header and the scaled voxels.

    Raises:
        READ_ERRORS: where the file cannot be read to its end.
    """
    header, slabs = _open(path)
    return header, np.concatenate(list(slabs), axis=-1)


def _open(path: str | Path) -> tuple[Header, Iterator[np.ndarray]]:
    """The header, and the scaled voxels in slabs along the last axis."""
    kind = type(nib.load(path))
    with nib.openers.ImageOpener(path) as opener:
        image = kind.from_stream(opener.fobj)
        header = Header(image.shape, image.affine)
    if 0 in header.shape or not header.shape:
        raise ValueError(f"no voxels in an array of shape {header.shape}")
    if not np.isfinite(header.affine).all() or np.linalg.det(header.affine[:3, :3]) == 0:
        raise ValueError("the affine in the header cannot be inverted")

    def slabs() -> Iterator[np.ndarray]:
        step = max(1, SLAB_VOXELS // int(np.prod(header.shape[:-1])))
        with nib.openers.ImageOpener(path) as opener:
            voxels = kind.from_stream(opener.fobj).dataobj
            for start in range(0, header.shape[-1], step):
                yield np.asanyarray(voxels[..., start : start + step])
            # gzip compares its checksum only where a reader asks for what comes after the last voxel.
            while opener.read(2**20):
                pass

    return header, slabs()

"""LiTS, liver lesions in CT: how the data lies on disk, as downloaded.

Two layouts hold the same images (Bilic et al., The Liver Tumor Segmentation Benchmark, 2023): the challenge's
own, `volume-N.nii` and `segmentation-N.nii` in any sub-folders and `test-volume-N.nii` without labels, and
`Task03_Liver` of the Medical Segmentation Decathlon. Labels are 0, 1 for the liver and 2 for a tumour.
"""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.datasets import checking, decathlon, nifti, phantoms
from pipelines.datasets.checking import Finding, Report, relative, unreadable
from pipelines.datasets.lits_phantom import phantom
from pipelines.datasets.pairs import Case, pair
from pipelines.datasets.reading import Levels
from pipelines.datasets.reading import read_volume as read
from pipelines.errors import DataError, NoDataError

__all__ = ["LEVELS", "check", "index", "phantom", "read"]

LABELS = {0: "background", 1: "liver", 2: "tumour"}
LEVELS = Levels("HU", -100, 200)  # the window of Pandey et al. (2018) for the liver
AIR = -1024  # the lowest HU of a 12-bit scanner; below it lies padding

# How many times larger or smaller than the median is worth a warning. Sound LiTS cases hold 42 to 1026 slices
# of 0.45 to 6 mm, while nearly all are 512 pixels wide.
SIZES = {"width": 1.5, "depth": 1.5, "slice count": 8, "pixel spacing": 1.5, "slice spacing": 8}

_RAW = re.compile(r"(test-volume|volume|segmentation)-(\d+)\.nii(\.gz)?")


def index(root: str | Path, labelled: bool = True) -> list[dict]:
    """The cases of a dataset as a MONAI datalist, sorted by number.

    Args:
        root: the folder that holds the data, in sub-folders or not.
        labelled: list the cases with a segmentation; False lists every volume, the test volumes after the
            others, without a label.

    Returns:
        Entries such as `{"case": "volume-12", "patient": "12", "image": path, "label": path}`. One patient is
        one case; a test volume's patient is "test-12", since its numbers begin at 0 again.

    Raises:
        DataError: where there is no data, a partner is missing, a number occurs twice, or data lies beside a
            phantom.
    """
    root = Path(root)
    cases, findings = _discover(root)
    hint = f", in {root}; see all that is wrong with: featherseg check lits {root}"
    for finding in findings:
        if finding.kind == "twice" or labelled:
            raise DataError(finding.message + hint)
    if labelled:
        chosen = [case for case in cases if not case.test]
        if not chosen:
            raise _no_data(root, "only test volumes, which have no segmentation")
        return [
            {"case": c.name, "patient": c.patient, "image": str(c.image), "label": str(c.label)}
            for c in chosen
        ]
    return [{"case": c.name, "patient": c.patient, "image": str(c.image)} for c in cases if c.image]


def check(
    root: str | Path, workers: int = 2, progress: bool | None = None, split: str | Path | None = None
) -> list[Finding]:
    """Read every file to its end and list what is wrong or unusual, the worst first.

    Args:
        root: as for `index`.
        workers: how many processes read; each holds one slab of a volume in memory at a time.
        progress: show a bar on standard error; None shows it on a terminal only.
        split: a split file (see `pipelines.folds`) to compare with the data.

    Raises:
        DataError: where there is no data at all, or the split file is not one.
    """
    root = Path(root)
    cases, findings = _discover(root)
    if split is not None:
        findings += checking.check_split(split, [c.patient for c in cases if c.image and c.label])
    results = checking.each(partial(_examine, root), cases, workers, progress)
    findings += [finding for found, _ in results for finding in found]
    return checking.ordered(findings + _compare([facts for _, facts in results if facts]))


def _discover(root: Path) -> tuple[list[Case], list[Finding]]:
    """Every case with its files, sorted by number with tests last, and what is missing, there twice or
    beside a phantom.
    """
    if not root.is_dir():
        raise _no_data(root, "no such folder")
    folder = decathlon.find(root, "Task03_Liver")
    files, findings = decathlon.files(root, folder, "liver") if folder else (_raw_files(root), [])
    if not files:
        raise _no_data(root, "neither")
    cases, findings = pair(files, findings, root)
    return cases, findings + phantoms.strangers(root, [path for *_, path in files])


def _raw_files(root: Path) -> list[tuple[str, str, Path]]:
    """Case, part ("image", "label" or "test") and path of every file in the challenge's layout."""
    kinds = {"volume": "image", "segmentation": "label", "test-volume": "test"}
    files = []
    for folder, _, names in sorted(os.walk(root, followlinks=True)):
        for name in sorted(names):
            if match := _RAW.fullmatch(name):
                case = f"{'test-' if match[1] == 'test-volume' else ''}volume-{int(match[2])}"
                files.append((case, kinds[match[1]], Path(folder) / name))
    return files


def _no_data(root: Path, found: str) -> NoDataError:
    return NoDataError(
        "expected volume-N.nii[.gz] with segmentation-N.nii[.gz], or Task03_Liver with imagesTr and labelsTr,"
        f" in {root}, found {found}; the data comes from the LiTS challenge on CodaLab or as Task03 from"
        " medicaldecathlon.com, and a phantom is made with: featherseg phantom lits --out data/lits"
    )


class _Facts(NamedTuple):
    """What is compared between cases: the hash of the voxels, and the sizes where they are to be trusted."""

    case: str
    file: str
    digest: str
    sizes: dict[str, float]


def _examine(root: Path, case: Case) -> tuple[list[Finding], _Facts | None]:
    """What is wrong with one case on its own."""
    findings, report = checking.reporting(case.name, root)
    image = mask = facts = None
    if case.image:
        try:
            image = nifti.read_image(case.image)
        except nifti.READ_ERRORS as error:
            report("error", "unreadable", case.image, unreadable(error))
    if case.label:
        try:
            mask = nifti.read_mask(case.label)
        except nifti.READ_ERRORS as error:
            report("error", "unreadable", case.label, unreadable(error))
    for part, path in ((image, case.image), (mask, case.label)):
        if part and len(part.header.shape) != 3:
            report("error", "not-3d", path, f"expected a volume of 3 axes, found shape {part.header.shape}")
    if image:
        _examine_image(image, case.image, report)
        sizes = image.header.sizes(spacing=not _tells_nothing(image.header))
        facts = _Facts(case.name, relative(case.image, root), image.digest, sizes)
    if mask:
        _examine_mask(mask, case.label, report)
    if image and mask and len(image.header.shape) == len(mask.header.shape) == 3:
        checking.compare_grids(image.header, mask.header, case.label, report)
    return findings, facts


def _examine_image(image: nifti.Image, path: Path, report: Report) -> None:
    if image.nonfinite:
        message = f"expected HU, found {image.nonfinite} voxels that are NaN or infinite"
        report("error", "nonfinite", path, message)
    if image.high <= 1 or image.low >= 0 or image.low == image.high:
        message = f"expected about -1024 to 3071 HU, found {image.low:g} to {image.high:g}: rescaled?"
        report("warning", "intensity", path, message)
    if image.low < AIR:
        report("note", "padding", path, f"the lowest value is {image.low:g} HU: padding below air at {AIR}")
    if _tells_nothing(image.header):
        message = "identity affine with 1 mm spacing, as copies of 3D-IRCADb have: the true geometry is lost"
        report("note", "identity", path, message)


def _examine_mask(mask: nifti.Mask, path: Path, report: Report) -> None:
    strange = [value for value in mask.counts if value not in LABELS]
    if strange:
        values = ", ".join(f"{value:g}" for value in strange[:5]) + (", ..." if len(strange) > 5 else "")
        message = f"expected labels 0, 1 (liver) and 2 (tumour), found {values} as well"
        report("error", "labels", path, message)
    elif 1 not in mask.counts:
        report("warning", "no-liver", path, "expected a liver (label 1), found none in the whole mask")
    elif 2 not in mask.counts:
        report("note", "no-lesion", path, "no tumour (label 2) in this case")


def _tells_nothing(header: nifti.Header) -> bool:
    """Whether the affine is the identity, up to the directions of the axes."""
    return np.allclose(np.abs(header.affine), np.eye(4))


def _compare(facts: list[_Facts]) -> list[Finding]:
    """Duplicates and sizes far from the others'."""
    files = {f.case: f.file for f in facts}
    findings = checking.duplicates({f.case: f.digest for f in facts}, files)
    return findings + checking.far_sizes({f.case: f.sizes for f in facts}, files, SIZES)

"""Brain tumours in MRI: how the data lies on disk, as downloaded.

Two layouts hold four sequences of an examination. `Task01_BrainTumour` of the Medical Segmentation
Decathlon (Simpson et al., 2019) has one file of 240 x 240 x 155 x 4, the channel last, in the order FLAIR,
T1w, T1gd and T2w. A raw case, as from BraTS or TCGA, is a folder of four files, `X_flair`, `X_t1`, `X_t1ce`
(or `X_t1gd`) and `X_t2`, or `X-t2f`, `X-t1n`, `X-t1c` and `X-t2w`, and the mask `X_seg` or `X-seg`; their
grids may differ. What the labels of a mask mean is the user's to say, see `brain_tumour_codings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.datasets import brain_tumour_codings as codings
from pipelines.datasets.brain_tumour_check import check
from pipelines.datasets.brain_tumour_layout import SEQUENCES, Examination, discover
from pipelines.datasets.brain_tumour_phantom import phantom
from pipelines.datasets.reading import Levels, read_labels
from pipelines.errors import DataError

__all__ = ["LEVELS", "check", "index", "phantom", "read"]

LEVELS = Levels("hundredths of a standard deviation of FLAIR in the brain", -200, 500)


def index(root: str | Path, labelled: bool = True, label_coding: str = "msd") -> list[dict]:
    """The cases of a dataset as a MONAI datalist, in natural order.

    Args:
        root: the folder that holds the data, in sub-folders or not.
        labelled: list the cases with a mask, all of which have to have one but the Decathlon's tests; False
            lists every case, the tests after the others, without a label.
        label_coding: of the masks, see `brain_tumour_codings`.

    Returns:
        Entries such as `{"case": "BRATS_001", "patient": "001", "image": path, "label": path, "label_coding":
        "msd"}`. The image of a raw case is a list of four paths, FLAIR, T1w, T1gd and T2w; its case is its
        folder's name, and its patient that name without the number of a time. Four files that lie in `root`
        itself are the case "examination", since files may be named after a patient.

    Raises:
        NoDataError: where there is no data.
        DataError: where a partner or a sequence is missing, a case or a sequence is there twice, or data lies
            beside a phantom; for an unknown coding.
    """
    root = Path(root)
    codings.labels(label_coding)
    cases, findings = discover(root)
    for finding in findings:
        if labelled or finding.kind in ("sequence", "doubled", "twice"):
            where = (
                f"{root / finding.file}: " if finding.kind in ("sequence", "doubled", "unlabelled") else ""
            )
            raise DataError(
                f"{where}{finding.message}, in {root}; see all that is wrong with: featherseg check"
                f" brain_tumour {root}"
            )
    if not labelled:
        return [_entry(case) for case in cases if case.images]
    chosen = [case for case in cases if not case.test]
    if not chosen:
        raise DataError(f"expected training cases in {root}, found only tests, which have no mask")
    return [{**_entry(case), "label": str(case.label), "label_coding": label_coding} for case in chosen]


def read(case: dict[str, Any], targets: Sequence[int]) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """FLAIR in standard deviations above the brain's mean, and the mask.

    Edema is bright in FLAIR, so that this is the one sequence in which a threshold finds most of a tumour.

    Args:
        case: an entry of `index` with labels.
        targets: the labels that are lesion, in the coding msd.

    Returns:
        Hundredths of a standard deviation, int32, shape (X, Y, Z), where mean and deviation are those of all
        voxels that are not 0 in FLAIR, and the background lies below all `LEVELS`; the mask, bool, of the
        same shape; the distance of voxel centres along each axis, in mm.

    Raises:
        DataError: names the file that cannot be read, or whose shape is not its image's, or the label that is
            not of its coding.
    """
    from monai.data.utils import affine_to_spacing  # here, since it takes seconds that `check` does without

    from pipelines.sequence_reader import SequenceReader

    reader = SequenceReader(quiet=True)
    image, meta = reader.get_data(reader.read(case["image"]))
    flair = image[SEQUENCES.index("FLAIR")]
    mask = read_labels(case["label"], flair.shape)
    meaning = codings.labels(case.get("label_coding", "msd"))
    strange = sorted(set(np.unique(mask).tolist()) - {0, *meaning})
    if strange:
        raise DataError(
            f"{case['label']}: expected labels {{0, {', '.join(map(str, meaning))}}}, found {strange}"
        )
    truth = np.isin(mask, [label for label, msd in meaning.items() if msd in targets])
    brain = flair != 0
    values = np.full(flair.shape, LEVELS.lowest - 1, np.int32)
    if brain.any():
        inside = flair[brain].astype(float)
        scaled = (inside - inside.mean()) / max(inside.std(), 1e-6) * 100
        values[brain] = np.rint(np.clip(scaled, LEVELS.lowest, LEVELS.highest + 1))
    return values, truth, tuple(affine_to_spacing(meta["affine"]))


def _entry(case: Examination) -> dict[str, Any]:
    files = [str(path) for path in case.images]
    return {"case": case.name, "patient": case.patient, "image": files[0] if len(files) == 1 else files}

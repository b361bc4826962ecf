"""DICOM in, DICOM out: the mask of each case as SEG, beside the one that is written anyway."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from pydicom.misc import is_dicom

from pipelines import runs
from pipelines.dicom_encoding import Segment, require_highdicom
from pipelines.dicom_seg import write_seg
from pipelines.errors import DataError


class SegWriter:
    """Write each case's mask as `CASE_mask.dcm`, where its image is DICOM; see `dicom_seg.write_seg`.

    The image is the case's `original`, or of a key frame the frame `frame` of its `clip`. A SEG names the
    patient, which a mask in another format does not.

    Args:
        folder: where the SEGs go.
        segments: as for `described`, and so are the other arguments.

    Raises:
        DataError: highdicom is missing, or nothing describes what the network segments.
    """

    def __init__(
        self,
        folder: str | Path,
        segments: Iterable[dict[str, Any]],
        target_labels: Sequence[int],
        algorithm: str,
        weights_file: str | Path,
    ) -> None:
        require_highdicom()
        self.folder = Path(folder)
        self.segment = described(segments, target_labels, algorithm, weights_file)

    def attach(self, engine: Engine) -> None:
        """Ignite's way to register the handler, on the evaluator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the SEGs of a batch; the engine has taken it apart into one dictionary a case.

        Raises:
            DataError: an image is not as `dicom_source.read_source` wants it, or the prediction has not its
                size.
        """
        for source, result in zip(engine.state.batch, engine.state.output, strict=True):
            original, frame = source["original"], source.get("frame")
            image = Path(source["clip"] if frame is not None else original.meta["filename_or_obj"])
            if not (image.is_dir() or is_dicom(image)):
                print(f"{source['case']}: no DICOM SEG, since its image is not DICOM")
                continue
            mask = (result["pred"][0].cpu().numpy() > 0.5).astype(np.uint8)
            path = self.folder / f"{source['case']}_mask.dcm"
            affine = np.asarray(original.affine.cpu()) if mask.ndim == 3 else None
            write_seg(mask, image, path, self.segment, affine, None if frame is None else int(frame))
            print(f"{path}: DICOM SEG, which names the patient as the image does")


def described(
    segments: Iterable[dict[str, Any]],
    target_labels: Sequence[int],
    algorithm: str,
    weights_file: str | Path,
    corrected: bool = False,
) -> Segment:
    """What a SEG of a bundle says of its segment.

    Args:
        segments: one for each choice of `labels`: its `label`, the codes of `category` and `type` and, where
            it is known, of `anatomy`.
        target_labels: what the network was trained to find.
        algorithm: the bundle's name.
        weights_file: of the network.
        corrected: by a reader.

    Raises:
        DataError: none of the segments is of these labels.
    """
    wanted = sorted(target_labels)
    found = next((dict(one) for one in segments if sorted(one["labels"]) == wanted), None)
    if found is None:
        raise DataError(
            f"expected a description of the labels {wanted} for DICOM SEG, found none; add one to `segments`"
        )
    del found["labels"]
    codes = {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}
    weights = hashlib.sha256(Path(weights_file).read_bytes()).hexdigest()[:12]
    return Segment(
        **codes, algorithm=algorithm, version=runs.code_version(), weights=weights, corrected=corrected
    )

"""Images in, masks out: what to segment, and each mask written on the grid of its image."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import Orientation

from pipelines import datasets, dicom_source, report
from pipelines.datasets.fingerprint import files_of
from pipelines.errors import DataError, NoDataError
from pipelines.files import written_whole

NIFTI = (".nii", ".nii.gz")


def inputs(path: str | Path, modality: str, bundle: str) -> list[dict[str, Any]]:
    """The images that `path` means, as a MONAI datalist with `image` and `case`.

    Args:
        path: a NIfTI file, a folder of them, a dataset in its own layout (or an examination of several files,
            where the dataset has such), or a folder with a DICOM series.
        modality: what a DICOM series has to be, such as "CT".
        bundle: whose dataset's layout is recognised.

    Raises:
        DataError: nothing there that can be segmented, or a series of another modality, with a slice
            missing, or beside another one.
    """
    path = Path(path)
    if path.is_file():
        if not path.name.endswith(NIFTI):
            raise DataError(
                f"expected a NIfTI file (.nii, .nii.gz) or a folder, found {path}; "
                "for DICOM give the folder of the series"
            )
        return [{"image": str(path), "case": _stem(path)}]
    if not path.is_dir():
        raise DataError(f"expected images to segment at {path}, found nothing there; see --dataset_dir")
    try:
        known = datasets.get(bundle).index(str(path), labelled=False)
    except NoDataError:
        known = []  # not the dataset in its own layout: any folder of images will do
    if known:
        return _without_strangers(path, known, bundle)
    volumes = sorted(one for one in path.iterdir() if one.name.endswith(NIFTI) and one.name[0] != ".")
    if volumes:
        cases = [{"image": str(one), "case": _stem(one)} for one in volumes]
        if len({case["case"] for case in cases}) < len(cases):
            raise DataError(f"expected each volume in {path} once, found some as .nii and as .nii.gz")
        return cases
    return [_series(path, modality)]


def _without_strangers(path: Path, known: list[dict[str, Any]], bundle: str) -> list[dict[str, Any]]:
    """The cases of a dataset in its own layout, where no other volume lies among them."""
    files = {file for case in known for file in files_of(case)}
    with contextlib.suppress(DataError):  # labels are not needed, so some may be missing
        files |= {case["label"] for case in datasets.get(bundle).index(str(path))}
    strangers = sorted(
        str(one)
        for one in path.iterdir()
        if one.name.endswith(NIFTI) and one.name[0] != "." and str(one) not in files
    )
    if strangers:
        raise DataError(
            f"expected the volumes of {bundle} in {path}, or volumes of any name, found both, such as "
            f"{strangers[0]}; put them into folders of their own"
        )
    return known


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name)


def _series(folder: Path, modality: str) -> dict[str, Any]:
    """The one DICOM series of a folder, called `series`: a folder may be named after a patient."""
    found = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(found) != 1:
        raise DataError(
            f"expected NIfTI volumes or the files of one DICOM series in {folder}, found "
            f"{len(found) or 'no'} series; put each series into a folder of its own"
        )
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), found[0])
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
    kind = headers[0].get("Modality")
    if kind != modality:
        raise DataError(f"expected a series of modality {modality} in {folder}, found {kind}")
    if "ImagePositionPatient" in headers[0] and len(headers) > 2:
        along = dicom_source.normal(headers[0])
        dicom_source.check_spacing(
            (float(np.dot(along, one.ImagePositionPatient)) for one in headers), folder
        )
    return {"image": str(folder), "case": "series"}


class MaskWriter:
    """Write each case's mask as NIfTI with exactly the geometry of its image, and a picture of it.

    Args:
        folder: where `CASE_mask.nii.gz` and `CASE_mask.png` go.
        display_range: grey values of black and white in the picture.
    """

    def __init__(self, folder: str | Path, display_range: Sequence[float] | None = None) -> None:
        self.folder = Path(folder)
        self.display_range = display_range

    def attach(self, engine: Engine) -> None:
        """Ignite's way to register the handler, on the evaluator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        for source, result in zip(engine.state.batch, engine.state.output, strict=True):
            mask = (result["pred"][0].cpu().numpy() > 0.5).astype(np.uint8)
            path = self.folder / f"{source['case']}_mask.nii.gz"
            write_mask(mask, source["original"], path)
            picture = path.with_name(f"{source['case']}_mask.png")
            self._draw(source["original"], mask, picture)
            ml = mask.sum() * np.prod(affine_to_spacing(source["original"].affine, r=3).tolist()) / 1000
            print(f"{path}: {ml:.1f} ml segmented, picture {picture}")

    def _draw(self, original: MetaTensor, mask: np.ndarray, path: Path) -> None:
        to_ras = Orientation(axcodes="RAS", labels=None)
        image = to_ras(original.cpu())
        shown = to_ras(MetaTensor(mask[None], affine=original.affine.cpu()))[0].numpy()
        grey = image[0].numpy()
        if self.display_range is not None:
            grey = np.clip(grey, *self.display_range)
        spacing = affine_to_spacing(image.affine, r=3).tolist()
        report.overlay(grey, None, shown, path, spacing=spacing)


def write_mask(mask: np.ndarray, original: MetaTensor, path: Path) -> None:
    """Write a mask on the grid of the image it belongs to.

    Of a NIfTI image the whole geometry of the header is taken over, to the bit; texts in it, which may name
    a patient, are not. Of a DICOM series the affine is.

    Args:
        mask: (X, Y, Z), uint8.
        original: the image as it was loaded.
        path: ends in .nii.gz.

    Raises:
        DataError: the mask's shape is not the image's, or the folder cannot be written to.
    """
    # Of several files it is one that has the image's grid, not always the first.
    source = str(original.meta.get("grid_file") or original.meta["filename_or_obj"])
    image = nib.Nifti1Image(mask, np.asarray(original.affine.cpu()))
    image.header.set_xyzt_units("mm")
    if source.endswith(NIFTI):
        header = nib.load(source).header
        if tuple(header.get_data_shape()[:3]) != mask.shape:
            raise DataError(
                f"expected a mask of shape {header.get_data_shape()}, found {mask.shape} for {source}"
            )
        geometry = ("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d")
        geometry += ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units")
        image = nib.Nifti1Image(mask, None)
        for field in geometry:
            image.header[field] = header[field]
    with written_whole(path) as beside:
        nib.save(image, beside)

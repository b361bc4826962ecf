"""The images of a PACS as studies to annotate: fetched when one is asked for, final labels stored as SEG.

What was fetched, and all labels, are kept in a folder that nobody else of this machine may read. The PACS has
the last word on which images there are; labels that it cannot take at the moment are sent with a later one.
"""

from __future__ import annotations

import csv
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from monailabel.datastore.local import DataModel, ImageLabelModel

from pipelines.dicom_encoding import Segment
from pipelines.dicom_seg import read_seg, write_seg
from pipelines.dicom_source import VOLUMES, read_source
from pipelines.errors import DataError
from pipelines.files import written_whole
from pipelines.label import labels, patients
from pipelines.label.dicomweb import Image, Pacs, Stored
from pipelines.label.segments import Describe
from pipelines.label.studies import Studies, _alone

FRESH = 30  # seconds after which the PACS is asked again for what it has
MAKER = "FeatherSeg"
SENT = "seg"  # of a label's info: that it is in the PACS, as which file it was then


class PacsStudies(Studies):
    """MONAI Label's store of the images of a PACS.

    A series of CT or MR is one study, called by its UID, and a volume; so is each picture of MG and US. Where
    a series holds one picture only, the UID of the series means that.

    Args:
        pacs: the server.
        folder: for what is fetched, and the labels.
        segments: modality -> what describes a segment on such images; images of others are not listed.

    Raises:
        DataError: the PACS does not answer.
    """

    def __init__(self, pacs: Pacs, folder: str | Path, segments: Mapping[str, Describe]) -> None:
        self._pacs = pacs
        self._segments = segments
        self._images: dict[str, Image] = {}
        self._segs: dict[str, Stored] = {}
        self._asked = -float("inf")
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder).chmod(0o700)
        self._ask()
        super().__init__(str(folder), extensions=["*.nii.gz", "*.dcm", "*.png"])

    def name(self) -> str:
        """The server's address."""
        return self._pacs.url

    def _ask(self) -> None:
        """Ask the PACS what it has."""
        images = {image.id: image for image in self._pacs.images(list(self._segments))}
        segs = {}
        for seg in self._pacs.segs():  # the latest last
            if seg.maker == MAKER and seg.corrected:
                segs |= dict.fromkeys(seg.of & images.keys(), seg)
        self._images, self._segs, self._asked = images, segs, time.monotonic()

    def _look_again(self) -> None:
        """Ask again where the last answer is old; in the background, so that nobody waits for the PACS."""
        if time.monotonic() - self._asked > FRESH:
            self._asked = time.monotonic()
            threading.Thread(target=self.refresh, daemon=True).start()

    def refresh(self) -> None:
        """Ask the PACS again, and send what it did not take before; without an answer the last one stands."""
        try:
            self._ask()
        except DataError as error:
            print(f"{error}; going on with what was there before", flush=True)
            return
        super().refresh()
        self._send_pending()

    def _add_non_existing_images(self) -> int:
        """MONAI Label's way to look for new studies: those of the PACS, fetched or not."""
        self._init_from_datastore_file()
        new = self._images.keys() - self._datastore.objects.keys()
        for name in new:
            image = self._images[name]
            ending = ".nii.gz" if image.modality in VOLUMES else ".dcm"
            about = {"ts": int(time.time()), "name": f"{name}{ending}", "Modality": image.modality}
            about |= {"StudyInstanceUID": image.study, "SeriesInstanceUID": image.series}
            self._datastore.objects[name] = ImageLabelModel(image=DataModel(info=about, ext=ending))
        return len(new)

    def _remove_non_existing(self) -> int:
        """MONAI Label's way to look for what is gone: from the PACS, or of the labels here."""
        self._init_from_datastore_file()
        objects = self._datastore.objects
        gone = 0
        for name in objects.keys() - self._images.keys():
            if not objects[name].labels:  # else it stays to learn from
                del objects[name]
                gone += 1
        for name, study in objects.items():
            for tag, label in list(study.labels.items()):
                if not (Path(self._datastore.label_path(tag)) / f"{name}{label.ext}").is_file():
                    del study.labels[tag]
                    gone += 1
        return gone

    def _known_as(self, study: str) -> str:
        """The study's name, of which a viewer may know the series only."""
        if study in self._datastore.objects:
            return study
        within = [image.id for image in self._images.values() if image.series == study]
        return within[0] if len(within) == 1 else study

    def list_images(self) -> list[str]:
        """All studies."""
        self._look_again()
        return super().list_images()

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Those with a final label, here or as a SEG of a reader in the PACS."""
        self._look_again()
        own = super().get_labeled_images(label_tag, labels)
        return [*own, *sorted(self._segs.keys() - set(own))]

    def get_unlabeled_images(
        self, label_tag: str | None = None, labels: list[str] | None = None
    ) -> list[str]:
        """All others."""
        done = set(self.get_labeled_images(label_tag, labels))
        return [name for name in super().list_images() if name not in done]

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What is known of a study."""
        return super().get_image_info(self._known_as(image_id))

    def get_image_uri(self, image_id: str) -> str:
        """The file of a study, fetched where it is not here yet; "" for an unknown one.

        Raises:
            DataError: it cannot be fetched, or is not as `read_source` wants it.
        """
        name = self._known_as(image_id)
        uri = super().get_image_uri(name)
        if uri and not Path(uri).is_file():
            self._fetch(name, Path(uri))
        return uri

    def _fetch(self, name: str, file: Path) -> None:
        if name not in self._images:
            raise DataError(f"expected the image {name} in {self._pacs.url}, found it gone from there")
        source = read_source(self._pacs.fetch(self._images[name], self._originals))
        with self._changing():
            if file.suffix == ".dcm":
                with written_whole(file) as beside:
                    shutil.copyfile(source.files[0], beside)
            else:
                _write_volume([str(one) for one in source.files], source.affine, file)
            self._note_patient(name, file, source.files[0])

    def _note_patient(self, name: str, file: Path, header: Path) -> None:
        """Whom an image shows, as a hash, so that all images of a patient have the same role."""
        folder = Path(self._datastore_path)
        known = patients.listed(folder) | {file.name: patients.of_studies([(name, header)], {})[name]}
        with written_whole(folder / patients.LISTING) as beside, beside.open("w", newline="") as content:
            table = csv.writer(content)
            table.writerows([("image", "patient"), *sorted(known.items())])

    def _images_of(self, name: str) -> Path:
        """The DICOM images of a study, as `read_source` takes them."""
        study = self.require(name)
        if study.suffix == ".dcm":
            return study
        there = self._originals / name
        return there if there.is_dir() else self._pacs.fetch(self._images[name], self._originals)

    @property
    def _originals(self) -> Path:
        return Path(self._datastore_path) / ".dicom"

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]
    ) -> str:
        """Keep a label that fits its study; a final one goes to the PACS too.

        Raises:
            UnknownStudy: no such study.
            DataError: as of `Studies`; or the PACS does not take it, and it is kept here to be sent later.
        """
        name = super().save_label(self._known_as(image_id), label_filename, label_tag, label_info)
        if label_tag == "final":
            self._send_pending(but=name)
            try:
                self._send(name)
            except DataError as error:
                raise DataError(
                    f"{error}; the label of {name} is kept here and goes to the PACS with a later one"
                ) from error
        return name

    def _send(self, name: str) -> None:
        """Store the final label of a study as SEG."""
        file = Path(self.get_label_uri(name, "final"))
        study = self.require(name)
        describe = self._segments[self._datastore.objects[name].image.info["Modality"]]
        with tempfile.TemporaryDirectory(dir=self._datastore_path, prefix=".seg-") as folder:
            seg = Path(folder) / "seg.dcm"
            self.export(name, labels.read(file, study), describe(True), seg)
            self._pacs.store(seg)
        self.update_label_info(name, "final", {SENT: file.stat().st_mtime_ns})

    def _send_pending(self, but: str = "") -> None:
        for name, study in sorted(self._datastore.objects.items()):
            label = study.labels.get("final")
            if name == but or label is None:
                continue
            file = Path(self.get_label_uri(name, "final"))
            if label.info.get(SENT) != file.stat().st_mtime_ns:
                try:
                    self._send(name)
                except DataError as error:
                    print(f"the label of {name} is not in the PACS yet: {error}", flush=True)

    def export(self, name: str, mask: np.ndarray, segment: Segment, file: str | Path) -> None:
        """Write a mask of a study as SEG.

        Args:
            name: of the study.
            mask: on its grid.
            segment: what it shows.
            file: of the SEG.

        Raises:
            DataError: as `write_seg`.
        """
        name = self._known_as(name)
        source, affine = self._images_of(name), labels.grid_of(self.require(name)).affine
        write_seg(mask, source, file, segment, affine)

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """The file of a label; "" where there is none."""
        return super().get_label_uri(self._known_as(label_id), label_tag)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Images get into the PACS by other ways.

        Raises:
            DataError: always.
        """
        raise DataError(f"expected a study of {self._pacs.url}, found one uploaded; send it to the PACS")

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Studies with a final label; those that the PACS alone has are fetched."""
        own = set(super().get_labeled_images())
        for name in sorted(self._segs.keys() - own):
            try:
                self._take(name)
            except DataError as error:
                print(f"the SEG of {name} in the PACS is left out: {error}", flush=True)
        return super().datalist(full_path)

    @_alone
    def _take(self, name: str) -> None:
        """Keep the SEG of a reader in the PACS as the final label."""
        study = self.require(name)
        (seg,) = self._pacs.fetch(self._segs[name].image, self._originals).iterdir()
        mask = read_seg(seg, self._images_of(name))
        with tempfile.TemporaryDirectory(dir=self._datastore_path, prefix=".seg-") as folder:
            file = Path(folder) / f"label{labels.label_ending(study)}"
            labels.write(mask, study, file)
            super().save_label(name, str(file), "final", {"from": "PACS"})
        file = Path(self.get_label_uri(name, "final"))
        self.update_label_info(name, "final", {SENT: file.stat().st_mtime_ns})


def _write_volume(files: list[str], affine: np.ndarray, file: Path) -> None:
    """The slices of a series as NIfTI, without a text of theirs."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    try:
        values = sitk.GetArrayFromImage(reader.Execute()).transpose()
    except RuntimeError as error:
        raise DataError(
            f"{Path(files[0]).parent}: expected whole slices of one kind, found some that cannot be read"
        ) from error
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    with written_whole(file) as beside:
        nib.save(image, beside)

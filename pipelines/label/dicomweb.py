"""A PACS through DICOMweb: which images it has, these as files, and SEGs stored beside them.

Of an answer only what tells images apart is looked at, nothing about the patient.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass
from pydicom.uid import UID

from pipelines.clips import DICOM_ERRORS
from pipelines.dicom_source import PICTURES, VOLUMES
from pipelines.errors import DataError
from pipelines.files import writing_error

TIMEOUT = (10, 120)  # seconds to connect, and without a byte
USER, PASSWORD = "MONAI_LABEL_DATASTORE_USERNAME", "MONAI_LABEL_DATASTORE_PASSWORD"
AS_STORED = (("application/dicom", "*"),)
WHOLE = 2**31  # bytes sent in one piece, as not every server takes several


class Image(NamedTuple):
    """What is annotated as one: a series of slices, or a single picture or clip.

    Attributes:
        id: its UID: of the series, or of the picture, of which a series may hold many.
        modality: such as "CT".
        study: its study's UID.
        series: its series' UID.
    """

    id: str
    modality: str
    study: str
    series: str


class Stored(NamedTuple):
    """A SEG in the PACS.

    Attributes:
        image: the SEG itself, to be fetched.
        of: UIDs of the series and of the images that it refers to.
        made: when, such as "20240229 120000.000000"; later ones sort behind.
        maker: the name of the software.
        corrected: a reader drew or corrected it; an algorithm alone did not make it.
    """

    image: Image
    of: frozenset[str]
    made: str
    maker: str
    corrected: bool


def connect(url: str) -> Pacs:
    """A DICOMweb server, with the user and the password that the environment gives."""
    return Pacs(url, os.environ.get(USER, ""), os.environ.get(PASSWORD, ""))


class Pacs:
    """A DICOMweb server.

    Args:
        url: of its services, such as "http://127.0.0.1:8042/dicom-web".
        user: where it asks for one.
        password: of the user.
    """

    def __init__(self, url: str, user: str = "", password: str = "") -> None:
        self.url = url.rstrip("/")
        session = create_session_from_user_pass(user, password) if user else None
        with self._asking():
            self._client = DICOMwebClient(self.url, session, chunk_size=WHOLE, timeout=TIMEOUT)
        self._client.set_http_retry_params(max_attempts=3, wait_exponential_multiplier=100)
        self._pictures: dict[tuple[str, Any], list[str]] = {}  # of a series with so many
        self._segs: dict[tuple[str, Any], list[Stored]] = {}

    def images(self, modalities: Sequence[str] = (*VOLUMES, *PICTURES)) -> list[Image]:
        """The images of these modalities: of CT and MR the series, of MG and US each picture.

        Raises:
            DataError: no server there, or none that answers as DICOMweb.
        """
        found = []
        for modality in modalities:
            for series in self._series(modality):
                study, uid = _uid(series, "StudyInstanceUID"), _uid(series, "SeriesInstanceUID")
                ids = [uid] if modality in VOLUMES else self._pictures_of(series, study, uid)
                found += [Image(one, modality, study, uid) for one in ids]
        return found

    def segs(self) -> list[Stored]:
        """The SEGs that it holds, the latest last.

        Raises:
            DataError: as `images`.
        """
        found = []
        for series in self._series("SEG"):
            study, uid = _uid(series, "StudyInstanceUID"), _uid(series, "SeriesInstanceUID")
            key = uid, series.get("NumberOfSeriesRelatedInstances")
            if key not in self._segs or key[1] is None:
                with self._asking():
                    told = self._client.retrieve_series_metadata(study, uid)
                    headers = [pydicom.Dataset.from_json(one) for one in told]
                    self._segs[key] = [_stored(header, study, uid) for header in headers]
            found += self._segs[key]
        return sorted(found, key=lambda one: one.made)

    def fetch(self, image: Image, folder: str | Path) -> Path:
        """Fetch the files of an image, as they are stored, into `folder/ID/`, whole or not at all.

        Returns:
            that folder; where it is there already, nothing is fetched.

        Raises:
            DataError: it is no longer there, or as `images`; or the folder cannot be written to.
        """
        folder = Path(folder) / image.id
        if folder.is_dir():
            return folder
        beside = folder.with_name(f".partial-{os.getpid()}-{image.id}")
        try:
            beside.mkdir(parents=True)
            for dataset in self._instances(image):
                dataset.save_as(beside / f"{_uid(dataset, 'SOPInstanceUID')}.dcm", enforce_file_format=True)
            if not any(beside.iterdir()):
                raise DataError(f"expected the image {image.id} in {self.url}, found nothing of it there")
            with contextlib.suppress(FileExistsError):  # fetched by another one meanwhile
                beside.rename(folder)
        except OSError as error:
            raise writing_error(error, folder) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return folder

    def store(self, file: str | Path) -> None:
        """Store a DICOM file.

        Raises:
            DataError: it is refused, or as `images`.
        """
        dataset = pydicom.dcmread(file)
        with self._asking():
            answer = self._client.store_instances([dataset])
        if answer.get("FailedSOPSequence"):
            reason = answer.FailedSOPSequence[0].get("FailureReason")
            raise DataError(
                f"expected {self.url} to store {file}, found it refused (reason {reason}); see its log"
            )

    def _series(self, modality: str) -> list[pydicom.Dataset]:
        found = self._all(
            "SeriesInstanceUID",
            self._client.search_for_series,
            search_filters={"Modality": modality},
            fields=["NumberOfSeriesRelatedInstances"],
        )
        # A server may not know the filter, or take it for the modalities of the whole study.
        return [one for one in found if one.get("Modality") == modality]

    def _pictures_of(self, series: pydicom.Dataset, study: str, uid: str) -> list[str]:
        key = uid, series.get("NumberOfSeriesRelatedInstances")
        if key not in self._pictures or key[1] is None:
            found = self._all("SOPInstanceUID", self._client.search_for_instances, study, uid)
            self._pictures[key] = [_uid(one, "SOPInstanceUID") for one in found]
        return self._pictures[key]

    def _all(self, keyword: str, search: Callable, *of: str, **options: Any) -> list[pydicom.Dataset]:
        """All that a search finds, where an answer may hold a part, and a server may not know of offsets."""
        found: dict[str, pydicom.Dataset] = {}
        while True:
            with self._asking():
                answer = search(*of, offset=len(found) or None, **options)
                told = [pydicom.Dataset.from_json(one) for one in answer]
            new = {_uid(one, keyword): one for one in told}
            if new.keys() <= found.keys():
                return list(found.values())
            found |= new

    def _instances(self, image: Image) -> Iterator[pydicom.Dataset]:
        with self._asking():
            if image.id == image.series:
                yield from self._client.iter_series(image.study, image.series, media_types=AS_STORED)
            else:
                yield self._client.retrieve_instance(
                    image.study, image.series, image.id, media_types=AS_STORED
                )

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """What may go wrong with a question, as one line."""
        try:
            yield
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else None
            if status in (401, 403):
                raise DataError(
                    f"expected {self.url} to let us in, found status {status}; give a user and a password of "
                    f"the PACS by the environment, {USER} and {PASSWORD}"
                ) from error
            raise DataError(
                f"expected an answer of DICOMweb from {self.url}, found status {status}; give the address of "
                "its services, such as http://127.0.0.1:8042/dicom-web"
            ) from error
        except DICOM_ERRORS as error:
            if isinstance(error, DataError):
                raise
            lost = isinstance(error, requests.RequestException)
            if lost and not isinstance(error, requests.JSONDecodeError):
                raise DataError(
                    f"expected a DICOMweb server at {self.url}, found none that answers to the end "
                    f"({type(error).__name__}); start it or give another address"
                ) from error
            raise DataError(
                f"expected DICOM from {self.url}, found an answer that cannot be read; give the address of "
                "its services, such as http://127.0.0.1:8042/dicom-web"
            ) from error


def _uid(header: pydicom.Dataset, keyword: str) -> str:
    """A UID, which may be part of a path."""
    value = UID(str(header.get(keyword) or ""))
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)*", value) or len(value) > 64:
        raise DataError(f"expected a {keyword} from the PACS, found {str(value)!r}")
    return str(value)


def _stored(header: pydicom.Dataset, study: str, series: str) -> Stored:
    of = set()
    for one in header.get("ReferencedSeriesSequence") or []:
        of.add(str(one.get("SeriesInstanceUID")))
        of |= {str(image.ReferencedSOPInstanceUID) for image in one.get("ReferencedInstanceSequence") or []}
    kinds = {str(one.get("SegmentAlgorithmType")) for one in header.get("SegmentSequence") or []}
    return Stored(
        Image(_uid(header, "SOPInstanceUID"), "SEG", study, series),
        frozenset(of),
        f"{header.get('ContentDate') or ''} {header.get('ContentTime') or ''}",
        str(header.get("ManufacturerModelName") or ""),
        bool(kinds) and kinds <= {"MANUAL", "SEMIAUTOMATIC"},
    )

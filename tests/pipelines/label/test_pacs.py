"""The images of a PACS as studies to annotate, with Orthanc and in MONAI Label's environment."""

import csv
import gzip
import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image as Picture
from pydicom import uid

from pipelines.dicom_seg import read_seg, write_seg
from pipelines.label import environment
from pipelines.label.dicomweb import Pacs
from tests.pipelines import mammogram_files
from tests.pipelines.dicom_pictures import colours, write_dicom
from tests.pipelines.dicom_volumes import SECRETS, oblique, write_series
from tests.pipelines.label import orthanc
from tests.pipelines.label.serving import environ, wait_for
from tests.pipelines.label.test_dicomweb import CORRECTED, LESION

pytestmark = [
    orthanc.needs_orthanc,
    pytest.mark.skipif(
        not environment.is_ready(), reason="MONAI Label is not installed for this version: make install-label"
    ),
]
SIZE = (16, 12, 7)


class Studies:
    """`PacsStudies` of a folder in another process; of what it raises the message."""

    def __init__(self, process, log, folder, url, *modalities):
        self.process, self.log, self.folder = process, log, folder
        self.open(url, modalities)

    def ask(self, name, *arguments):
        self.process.stdin.write(f"{json.dumps([self.folder, name, arguments], default=str)}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, self.log.read_text()
        return json.loads(answer)

    def __getattr__(self, name):
        def call(*arguments):
            answer = self.ask(name, *arguments)
            assert "error" not in answer, answer["error"]
            return answer["result"]

        return call

    def refused(self, name, *arguments):
        answer = self.ask(name, *arguments)
        assert "error" in answer, answer
        assert "\n" not in answer["error"]
        return answer["error"]


@pytest.fixture(scope="module")
def label_process(tmp_path_factory):
    """A process in MONAI Label's environment, which takes seconds to start, and the file it prints to."""
    log = tmp_path_factory.mktemp("log") / "process.log"
    words = [environment.python(), Path(__file__).with_name("pacs_process.py")]
    with log.open("w") as output:
        process = subprocess.Popen(
            list(map(str, words)),
            env=environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
    yield process, log
    process.kill()
    process.communicate()


@pytest.fixture
def images(tmp_path):
    """Two CT series of one patient and one MR series of another, two views in one series, and ultrasound."""
    stored = np.arange(np.prod(SIZE), dtype=np.int16).reshape(SIZE[::-1])
    ct, second = (
        write_series(tmp_path / name, stored, directions=oblique(), seed=n) for n, name in enumerate("ab")
    )
    mr = write_series(tmp_path / "mr", stored, "MR", PatientID="SECRET-4712")
    breast = {"StudyInstanceUID": uid.generate_uid(), "SeriesInstanceUID": uid.generate_uid()}
    views = [
        mammogram_files.write(tmp_path / f"{view}.dcm", mammogram_files.levels() // n, view=view, **breast)
        for n, view in ((1, "CC"), (2, "MLO"))
    ]
    own = {"StudyInstanceUID": uid.generate_uid(), "SeriesInstanceUID": uid.generate_uid()}
    us = write_dicom(tmp_path / "us.dcm", colours(24, 32), **own)
    names = {key: pydicom.dcmread(next(folder.iterdir())).SeriesInstanceUID for key, folder in
             (("ct", ct), ("second", second), ("mr", mr))}  # fmt: skip
    names |= {key: pydicom.dcmread(file).SOPInstanceUID for key, file in (("cc", views[0]), ("us", us))}
    files = [*ct.iterdir(), *second.iterdir(), *mr.iterdir(), *views, us]
    return SimpleNamespace(
        ct=ct, second=second, views=views, us=us, files=files, **{f"{k}_id": v for k, v in names.items()}
    )


def lesion(number=0):
    mask = np.zeros(SIZE, np.uint8)
    mask[4 + number : 9, 3:8, 2:5] = 1
    return mask


def test_annotating_the_images_of_a_pacs(images, label_process, tmp_path):
    folder, scratch = tmp_path / "project", tmp_path / "scratch"
    scratch.mkdir()
    with orthanc.serving(tmp_path / "orthanc") as url:
        orthanc.upload(url, *images.files)
        studies = Studies(*label_process, folder, url, "CT", "MR", "MG", "US")
        see_what_there_is(studies, images, folder)
        look_at_a_volume(studies, images)
        submit_a_volume(studies, images, url, scratch)
        submit_pictures(studies, images, url, scratch)
        refuse_what_does_not_fit(studies, images, scratch)
        whose_images_they_are(studies, images, folder)
        go_on_elsewhere(Studies(*label_process, tmp_path / "other", url, "CT"), images, url, scratch)
    printed = label_process[1].read_text()
    assert not [secret for secret in SECRETS if secret in printed]
    assert not [path for path in folder.rglob("*") for secret in SECRETS if secret in path.name]


def see_what_there_is(studies, images, folder):
    known = {images.ct_id, images.second_id, images.mr_id, images.cc_id, images.us_id}
    found = studies.list_images()
    assert known <= set(found)
    assert len(found) == 6
    assert sorted(studies.get_unlabeled_images()) == sorted(found)
    assert studies.get_image_info(images.cc_id)["Modality"] == "MG"
    assert studies.get_image_info(images.mr_id)["Modality"] == "MR"
    assert (folder.stat().st_mode & 0o777) == 0o700
    assert not list(folder.glob("*.nii.gz"))  # until somebody asks for one
    assert studies.status()["total"] == 6


def look_at_a_volume(studies, images):
    file = Path(studies.get_image_uri(images.ct_id))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(images.ct)))
    series, volume = reader.Execute(), sitk.ReadImage(str(file))
    assert np.array_equal(sitk.GetArrayFromImage(series), sitk.GetArrayFromImage(volume))
    for get in ("GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(volume, get)() == pytest.approx(getattr(series, get)(), abs=1e-5)
    content = gzip.decompress(file.read_bytes())
    assert not [secret for secret in SECRETS if secret.encode() in content]


def submit_a_volume(studies, images, url, scratch):
    """As a viewer gives it back: with other axes than the image has."""
    image = nib.load(studies.get_image_uri(images.ct_id))
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), [[2, 1], [0, -1], [1, 1]])
    nib.save(nib.Nifti1Image(lesion(), image.affine).as_reoriented(turn), scratch / "label.nii.gz")
    assert studies.save_label(images.ct_id, scratch / "label.nii.gz", "final", {}) == images.ct_id
    (file,) = orthanc.files(url, scratch, Modality="SEG")
    seg = highdicom.seg.segread(file)
    assert seg.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert np.array_equal(read_seg(file, images.ct), lesion())
    assert images.ct_id not in studies.get_unlabeled_images()
    assert studies.get_labeled_images() == [images.ct_id]
    assert studies.save_label(images.second_id, scratch / "label.nii.gz", "original", {})  # of the network
    assert len(orthanc.files(url, scratch, Modality="SEG")) == 1


def submit_pictures(studies, images, url, scratch):
    for name, source, size in (
        (images.cc_id, images.views[0], (mammogram_files.WIDTH, mammogram_files.HEIGHT)),
        (images.us_id, images.us, (32, 24)),
    ):
        assert studies.get_image_uri(name).endswith(f"{name}.dcm")
        mask = np.zeros(size, np.uint8)
        mask[3:9, 5:8] = 1
        Picture.fromarray(mask.T * np.uint8(255)).save(scratch / "label.png")
        studies.save_label(name, scratch / "label.png", "final", {})
        (file,) = (
            one
            for one in orthanc.files(url, scratch, Modality="SEG")
            if name in [image.ReferencedSOPInstanceUID for image in pydicom.dcmread(one).SourceImageSequence]
        )
        assert np.array_equal(read_seg(file, source), mask)
    # A series with one picture goes by its name too; one with two does not.
    series = pydicom.dcmread(images.us).SeriesInstanceUID
    assert studies.get_image_uri(series) == studies.get_image_uri(images.us_id)
    assert "expected one of the 6 studies" in studies.refused(
        "require", pydicom.dcmread(images.views[0]).SeriesInstanceUID
    )


def refuse_what_does_not_fit(studies, images, scratch):
    nib.save(nib.Nifti1Image(lesion()[1:], np.eye(4)), scratch / "small.nii.gz")
    assert "expected a label" in studies.refused(
        "save_label", images.mr_id, scratch / "small.nii.gz", "final", {}
    )
    assert "expected one of the 6 studies" in studies.refused(
        "save_label", "1.2.3", scratch / "label.png", "final", {}
    )
    assert "send it to the PACS" in studies.refused("add_image", "new", scratch / "label.png", {})
    assert images.mr_id in studies.get_unlabeled_images()


def whose_images_they_are(studies, images, folder):
    """By a hash, since nobody has to know the patient's id."""
    studies.get_image_uri(images.second_id)
    studies.get_image_uri(images.mr_id)
    with (folder / "patients.csv").open() as content:
        whose = {row["image"]: row["patient"] for row in csv.DictReader(content)}
    ct, second, mr = (whose[f"{name}.nii.gz"] for name in (images.ct_id, images.second_id, images.mr_id))
    assert ct == second != mr


def go_on_elsewhere(other, images, url, scratch):
    """With the labels that readers left in the PACS, and not with what an algorithm alone found."""
    client = Pacs(url)
    series = next(one for one in client.images(["CT"]) if one.id == images.second_id)
    write_seg(lesion(), client.fetch(series, scratch / "fetched"), scratch / "seg.dcm", LESION)
    client.store(scratch / "seg.dcm")
    other.refresh()
    assert other.get_unlabeled_images() == [images.second_id]
    (case,) = other.datalist()
    assert (case["study"], case["checked"]) == (images.ct_id, True)
    assert np.array_equal(np.asarray(nib.load(case["label"]).dataobj), lesion())
    write_seg(lesion(2), images.second, scratch / "seg.dcm", CORRECTED)
    client.store(scratch / "seg.dcm")
    other.fresh(0)  # seconds, after which it is asked again in the background
    wait_for(lambda: other.get_unlabeled_images() == [])
    other.fresh(30)
    assert [case["study"] for case in other.datalist()] == sorted([images.ct_id, images.second_id])


def test_a_label_that_the_pacs_does_not_take_is_kept_and_sent_later(images, label_process, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with orthanc.serving(tmp_path / "orthanc") as url:
        orthanc.upload(url, *images.files)
        studies = Studies(*label_process, tmp_path / "project", url, "CT")
        image = nib.load(studies.get_image_uri(images.ct_id))
        studies.get_image_uri(images.second_id)
    nib.save(nib.Nifti1Image(lesion(), image.affine), scratch / "label.nii.gz")
    message = studies.refused("save_label", images.ct_id, scratch / "label.nii.gz", "final", {})
    assert f"expected a DICOMweb server at {url}, found none" in message
    assert "is kept here and goes to the PACS with a later one" in message
    studies.refresh()
    assert studies.get_labeled_images() == [images.ct_id]  # and it goes on
    assert "going on with what was there before" in label_process[1].read_text()
    port = int(url.rsplit(":")[-1].partition("/")[0])
    with orthanc.serving(tmp_path / "orthanc", port=port):
        studies.save_label(images.second_id, scratch / "label.nii.gz", "final", {})
        found = orthanc.files(url, scratch, Modality="SEG")
        assert len(found) == 2
        of = {pydicom.dcmread(one).ReferencedSeriesSequence[0].SeriesInstanceUID: one for one in found}
        assert np.array_equal(read_seg(of[images.ct_id], images.ct), lesion())
        studies.refresh()
        assert len(orthanc.files(url, scratch, Modality="SEG")) == 2  # not again
        shutil.rmtree(tmp_path / "project" / ".dicom")
        studies.save_label(images.ct_id, scratch / "label.nii.gz", "final", {})
        assert len(orthanc.files(url, scratch, Modality="SEG")) == 3

"""From a PACS to labels in it, by MONAI Label's own client on a server as a user starts it."""

import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests
from PIL import Image

from pipelines import datasets, scoring
from pipelines.datasets.inbreast_writers import IDENTITY
from pipelines.dicom_seg import read_seg
from pipelines.label import environment
from tests.pipelines.dicom_volumes import SECRETS, write_series
from tests.pipelines.label import orthanc
from tests.pipelines.label.made_studies import directly, write_weights
from tests.pipelines.label.serving import Client, Server

pytestmark = [
    orthanc.needs_orthanc,
    pytest.mark.skipif(
        not environment.is_ready(), reason="MONAI Label is not installed for this version: make install-label"
    ),
]
BUNDLES = ("lits", "inbreast")


def dice(one, other):
    assert 0 < np.count_nonzero(other) < other.size
    return scoring.score_case(one > 0, other > 0, [1.0] * one.ndim)["dice"]


@pytest.fixture
def images(tmp_path):
    """A CT of the phantom of lits, as a series, and a mammogram of that of inbreast."""
    datasets.get("lits").phantom(tmp_path / "lits", cases=1, seed=0, size=64)
    volume = nib.load(datasets.get("lits").index(tmp_path / "lits")[0]["image"])
    volume = nib.as_closest_canonical(volume).as_reoriented([[0, -1], [1, -1], [2, 1]])  # LPS, as scanners do
    stored = np.asarray(volume.dataobj).transpose(2, 1, 0).astype(np.int16) + np.int16(1024)
    spacing = [float(side) for side in volume.header.get_zooms()]
    ct = write_series(tmp_path / "ct", stored, spacing=spacing)
    datasets.get("inbreast").phantom(tmp_path / "inbreast", cases=1, seed=0, size=160, progress=False)
    mammogram = Path(datasets.get("inbreast").index(tmp_path / "inbreast")[0]["image"])
    return SimpleNamespace(
        ct=ct,
        ct_id=pydicom.dcmread(next(ct.iterdir())).SeriesInstanceUID,
        mammogram=mammogram,
        mammogram_id=pydicom.dcmread(mammogram).SOPInstanceUID,
    )


def test_annotators_at_a_pacs(workspace, tmp_path, images, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # bundles set another one
    checkpoints = {one: str(write_weights(one, tmp_path / f"{one}.safetensors")) for one in BUNDLES}
    given = [word for one in BUNDLES for word in ("--checkpoint", f"{one}={checkpoints[one]}")]
    with orthanc.serving(tmp_path / "orthanc") as url:
        orthanc.upload(url, *images.ct.iterdir(), images.mammogram)
        options = ("--bundles", ",".join(BUNDLES), "--studies", url, "--app-dir", "app", *given)
        with Server(workspace, *options) as server, Client(server.url, tmp_path / "scratch") as client:
            assert set(client.datastore()["objects"]) == {images.ct_id, images.mammogram_id}
            look_with_ohif(server, images)
            annotate_the_volume(server, client, images, url, tmp_path, checkpoints["lits"])
            annotate_the_mammogram(server, client, images, url, tmp_path, checkpoints["inbreast"])
            assert client.next_sample("random", {}) == {}
            assert client.info()["datastore"]["completed"] == 2
            assert "expected one of the 2 studies" in client.refused("infer", "lits", "/etc/passwd", {})
        printed = (workspace / "server.log").read_text()
    assert images.ct_id in printed
    assert not [secret for secret in (*SECRETS, *IDENTITY.values()) if secret in printed]


def look_with_ohif(server, images):
    """What OHIF loads in a browser: its page, an icon, and from the PACS the series and their metadata."""

    def get(path):
        answer = requests.get(f"{server.url}{path}", timeout=60)
        assert answer.status_code == 200, path
        return answer

    page = get("/ohif/monai-label?StudyInstanceUIDs=1")
    assert "<title>" in page.text and page.headers["content-type"].startswith("text/html")
    assert get("/ohif/assets/images/ohif-logo.svg").headers["content-type"].startswith("image/svg")
    assert get("/ohif/..%2f..%2f..%2fapp.py").text == page.text
    image = pydicom.dcmread(next(images.ct.iterdir()))
    series = f"/studies/{image.StudyInstanceUID}/series"
    (found,) = get(f"/proxy/dicom/qido{series}").json()
    assert found["0020000E"]["Value"] == [images.ct_id]
    assert len(get(f"/proxy/dicom/wado{series}/{images.ct_id}/metadata").json()) == len(
        [*images.ct.iterdir()]
    )


def inferred_seg(server, model, image, folder):
    """The answer of the server where a DICOM SEG is asked for."""
    request = urllib.request.Request(
        f"{server.url}/infer/{model}?image={image}&output=dicom_seg", b"", method="POST"
    )
    with urllib.request.urlopen(request, timeout=240) as answer:
        (folder / "inferred.dcm").write_bytes(answer.read())
    return folder / "inferred.dcm"


def submitted_seg(url, image, folder):
    """The SEG in the PACS that refers to an image or a series."""
    (file,) = (
        one
        for one in orthanc.files(url, folder, Modality="SEG")
        if image in pydicom.dcmread(one).ReferencedSeriesSequence[0].to_json()
    )
    seg = highdicom.seg.segread(file)
    assert seg.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"
    return file, seg


def annotate_the_volume(server, client, images, url, folder, checkpoint):
    file, _ = client.infer("lits", images.ct_id, {})
    found = np.asarray(nib.load(file).dataobj)
    assert dice(found, directly("lits", images.ct, folder / "lits", checkpoint=checkpoint)) > 0.99
    seg = inferred_seg(server, "lits", images.ct_id, folder)
    assert pydicom.dcmread(seg).SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"
    assert np.array_equal(read_seg(seg, images.ct), found)

    corrected = found.copy()
    corrected[: found.shape[0] // 2] = 0
    nib.save(nib.Nifti1Image(corrected, nib.load(file).affine), folder / "label.nii.gz")
    client.save_label(images.ct_id, folder / "label.nii.gz")
    file, seg = submitted_seg(url, images.ct_id, folder)
    assert np.array_equal(read_seg(file, images.ct), corrected)
    assert seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Neoplasm"
    assert seg.PatientID == pydicom.dcmread(next(images.ct.iterdir())).PatientID
    # Each of its frames on the slice at its own place.
    slices = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, images.ct.iterdir())}
    for group in seg.PerFrameFunctionalGroupsSequence:
        image = slices[group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert group.PlanePositionSequence[0].ImagePositionPatient == image.ImagePositionPatient


def annotate_the_mammogram(server, client, images, url, folder, checkpoint):
    file, _ = client.infer("inbreast", images.mammogram_id, {})
    with Image.open(file) as picture:
        found = np.asarray(picture).T > 0
    expected = directly("inbreast", images.mammogram, folder / "inbreast", checkpoint=checkpoint)
    assert dice(found.T, expected) > 0.99
    seg = inferred_seg(server, "inbreast", images.mammogram_id, folder)
    assert np.array_equal(read_seg(seg, images.mammogram), found)

    corrected = found.copy()
    corrected[:, : found.shape[1] // 2] = False
    Image.fromarray(corrected.T.astype(np.uint8) * np.uint8(255)).save(folder / "label.png")
    client.save_label(images.mammogram_id, folder / "label.png")
    file, seg = submitted_seg(url, images.mammogram_id, folder)
    assert np.array_equal(read_seg(file, images.mammogram), corrected)
    frame = seg.get_pixels_by_source_instance([images.mammogram_id], segment_numbers=[1])[0, ..., 0]
    assert np.array_equal(frame, corrected.T)

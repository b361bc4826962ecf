"""What a PACS has, fetched and stored through DICOMweb, with Orthanc."""

import base64
import http.server
import json
import logging
import threading
from types import SimpleNamespace

import highdicom
import numpy as np
import pydicom
import pytest
import requests
from pydicom import uid

from pipelines.dicom_encoding import Segment
from pipelines.dicom_seg import read_seg, write_seg
from pipelines.dicom_source import read_source
from pipelines.errors import DataError
from pipelines.label.dicomweb import Image, Pacs
from tests.pipelines import mammogram_files
from tests.pipelines.dicom_pictures import colours, write_dicom
from tests.pipelines.dicom_volumes import SECRETS, write_series
from tests.pipelines.label import orthanc

LESION = Segment(
    "lesion",
    ("49755003", "SCT", "Morphologically Abnormal Structure"),
    ("52988006", "SCT", "Lesion"),
    "FeatherSeg",
    "1",
)
CORRECTED = Segment(**{**vars(LESION), "corrected": True})


@pytest.fixture(scope="module")
def pacs(tmp_path_factory):
    """Orthanc with a CT and an MR series, two views of a breast in one series, and an ultrasound picture."""
    folder = tmp_path_factory.mktemp("pacs")
    stored = np.arange(5 * 12 * 16, dtype=np.int16).reshape(5, 12, 16)
    ct, mr = (write_series(folder / kind, stored, kind) for kind in ("CT", "MR"))
    breast = {"StudyInstanceUID": uid.generate_uid(), "SeriesInstanceUID": uid.generate_uid()}
    views = [
        mammogram_files.write(folder / f"{view}.dcm", mammogram_files.levels() // two, view=view, **breast)
        for view, two in (("CC", 1), ("MLO", 2))
    ]
    own = {"StudyInstanceUID": uid.generate_uid(), "SeriesInstanceUID": uid.generate_uid()}
    us = write_dicom(folder / "us.dcm", colours(24, 32), **own)
    with orthanc.serving(folder / "orthanc") as url:
        orthanc.upload(url, *ct.iterdir(), *mr.iterdir(), *views, us)
        yield SimpleNamespace(url=url, ct=ct, mr=mr, views=views, us=us, stored=stored)


@orthanc.needs_orthanc
def test_all_modalities_are_listed_and_each_view_is_an_image(pacs):
    found = {}
    for image in Pacs(pacs.url).images():
        found.setdefault(image.modality, []).append(image)
    assert {modality: len(images) for modality, images in found.items()} == {
        "CT": 1,
        "MR": 1,
        "MG": 2,
        "US": 1,
    }
    headers = {
        kind: pydicom.dcmread(next(folder.iterdir())) for kind, folder in (("CT", pacs.ct), ("MR", pacs.mr))
    }
    for kind, header in headers.items():
        series = header.SeriesInstanceUID
        assert found[kind] == [Image(series, kind, header.StudyInstanceUID, series)]
    views = [pydicom.dcmread(file) for file in pacs.views]
    assert {image.id for image in found["MG"]} == {view.SOPInstanceUID for view in views}
    assert {image.series for image in found["MG"]} == {views[0].SeriesInstanceUID}
    assert [image.modality for image in Pacs(pacs.url).images(["MG"])] == ["MG", "MG"]
    assert Pacs(pacs.url).images(["PT"]) == []


@orthanc.needs_orthanc
def test_images_come_as_they_are_stored(pacs, tmp_path):
    client = Pacs(pacs.url)
    for image in client.images():
        folder = client.fetch(image, tmp_path)
        assert folder == tmp_path / image.id
        source = read_source(folder)
        if image.modality in ("CT", "MR"):
            pixels = [pydicom.dcmread(file).pixel_array for file in source.files]
            assert np.array_equal(pixels, pacs.stored)
        else:
            (file,) = source.files
            there = next(
                one for one in (*pacs.views, pacs.us) if pydicom.dcmread(one).SOPInstanceUID == image.id
            )
            assert pydicom.dcmread(file) == pydicom.dcmread(there)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.dcm")}
    assert len(before) == 13
    client.fetch(client.images(["CT"])[0], tmp_path)
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.dcm")}


@orthanc.needs_orthanc
@pytest.mark.parametrize("modality", ["CT", "MR", "MG", "US"])
def test_a_seg_lands_beside_its_images_and_is_found_again(pacs, tmp_path, modality):
    client = Pacs(pacs.url)
    image = client.images([modality])[0]
    folder = client.fetch(image, tmp_path)
    mask = np.zeros(read_source(folder).size, np.uint8)
    mask[3:9, 2:7, ...] = 1
    mask[..., 0] *= mask.ndim == 2
    write_seg(mask, folder, tmp_path / "seg.dcm", CORRECTED)
    client.store(tmp_path / "seg.dcm")

    # As another program would get it.
    written = pydicom.dcmread(tmp_path / "seg.dcm")
    (file,) = orthanc.files(pacs.url, tmp_path, SOPInstanceUID=written.SOPInstanceUID)
    there = highdicom.seg.segread(file)
    source = pydicom.dcmread(read_source(folder).files[0])
    assert (there.StudyInstanceUID, there.PatientID) == (source.StudyInstanceUID, source.PatientID)
    assert there.ReferencedSeriesSequence[0].SeriesInstanceUID == image.series
    assert np.array_equal(read_seg(file, folder), mask)

    found = [seg for seg in client.segs() if image.id in seg.of]
    assert [(seg.maker, seg.corrected) for seg in found] == [("FeatherSeg", True)]
    fetched = client.fetch(found[0].image, tmp_path / "segs")
    assert np.array_equal(read_seg(next(fetched.iterdir()), folder), mask)


@orthanc.needs_orthanc
def test_segs_of_algorithms_are_told_from_those_of_readers_and_sorted(pacs, tmp_path):
    client = Pacs(pacs.url)
    folder = client.fetch(client.images(["CT"])[0], tmp_path)
    before = {seg.image.id for seg in client.segs()}
    for number, segment in enumerate((LESION, CORRECTED)):
        write_seg(np.ones((16, 12, 5), np.uint8), folder, tmp_path / f"{number}.dcm", segment)
    for number in (1, 0):
        client.store(tmp_path / f"{number}.dcm")
    new = [seg for seg in client.segs() if seg.image.id not in before]
    assert [seg.corrected for seg in new] == [False, True]


@orthanc.needs_orthanc
def test_what_was_added_since_is_found_and_what_is_gone_is_told(pacs, tmp_path):
    client = Pacs(pacs.url)
    known = {image.id for image in client.images(["MG"])}
    series = pydicom.dcmread(pacs.views[0])
    more = {"StudyInstanceUID": series.StudyInstanceUID, "SeriesInstanceUID": series.SeriesInstanceUID}
    late = mammogram_files.write(tmp_path / "late.dcm", mammogram_files.levels() // 3, **more)
    orthanc.upload(pacs.url, late)
    (image,) = [one for one in client.images(["MG"]) if one.id not in known]
    assert image.id == pydicom.dcmread(late).SOPInstanceUID
    base = pacs.url.replace("dicom-web", "")
    lookup = {"Level": "Instance", "Query": {"SOPInstanceUID": image.id}}
    (instance,) = requests.post(f"{base}tools/find", json=lookup, timeout=20).json()
    requests.delete(f"{base}instances/{instance}", timeout=20).raise_for_status()
    with pytest.raises(DataError, match=f"expected an answer of DICOMweb from {pacs.url}, found status 404"):
        client.fetch(image, tmp_path / "gone")
    assert not list((tmp_path / "gone").iterdir())
    assert {one.id for one in client.images(["MG"])} == known


@orthanc.needs_orthanc
def test_a_password_is_asked_for(pacs, tmp_path):
    options = {"AuthenticationEnabled": True, "RegisteredUsers": {"reader": "secret"}}
    with orthanc.serving(tmp_path / "locked", **options) as url:
        for user in ("", "reader"):
            with pytest.raises(
                DataError, match=r"to let us in, found status 401; give a user and a password"
            ):
                Pacs(url, user, "wrong").images()
        assert Pacs(url, "reader", "secret").images() == []


@orthanc.needs_orthanc
def test_nothing_of_the_patient_reaches_a_log(pacs, tmp_path, caplog):
    with caplog.at_level(logging.DEBUG):
        client = Pacs(pacs.url)
        image = client.images(["CT"])[0]
        folder = client.fetch(image, tmp_path)
        write_seg(np.ones((16, 12, 5), np.uint8), folder, tmp_path / "seg.dcm", LESION)
        client.store(tmp_path / "seg.dcm")
        client.segs()
    assert image.id in caplog.text
    assert not [secret for secret in SECRETS if secret in caplog.text]
    assert not [path for path in tmp_path.rglob("*") for secret in SECRETS if secret in path.name]


@pytest.fixture
def answering():
    """A server that answers everything with the same, and its address."""
    servers = []

    def serve(body, status=200, kind="application/dicom+json", lost=0):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body) + lost))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/dicom-web"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def series(study="1.2", number="1.2.3", modality="CT"):
    return {
        "00080060": {"vr": "CS", "Value": [modality]},
        "0020000D": {"vr": "UI", "Value": [study]},
        "0020000E": {"vr": "UI", "Value": [number]},
    }


def test_a_server_that_knows_neither_filters_nor_offsets(answering):
    body = json.dumps([series(), series(number="1.2.4", modality="SR"), series(number="1.2.5")]).encode()
    found = Pacs(answering(body)).images(["CT"])
    assert [image.id for image in found] == ["1.2.3", "1.2.5"]


@pytest.mark.parametrize("number", ["../../etc", "1.2/3", "", "1" * 65, "1..2"])
def test_a_uid_that_is_none_names_no_file(answering, number):
    with pytest.raises(DataError, match="expected a SeriesInstanceUID from the PACS, found"):
        Pacs(answering(json.dumps([series(number=number)]).encode())).images(["CT"])


@pytest.mark.parametrize(
    ("body", "status", "kind", "message"),
    [
        (
            b"<html>a page</html>",
            200,
            "text/html",
            "found an answer that cannot be read; give the address of",
        ),
        (b"[{", 200, "application/dicom+json", "found an answer that cannot be read; give the address of"),
        (b"none", 404, "text/plain", "found status 404; give the address of its services, such as http://"),
        (b"ill", 500, "text/plain", "found status 500"),
    ],
)
def test_what_is_no_dicomweb_is_told_in_one_line(answering, body, status, kind, message):
    with pytest.raises(DataError, match=message) as error:
        Pacs(answering(body, status, kind)).images()
    assert "\n" not in str(error.value)


def test_no_server_and_an_address_that_is_none_are_told():
    with pytest.raises(
        DataError, match=r"at http://127.0.0.1:9/dicom-web, found none that answers to the end \(Con"
    ):
        Pacs("http://127.0.0.1:9/dicom-web/").images()
    with pytest.raises(DataError, match="cannot be read; give the address of its services"):
        Pacs("ftp://here").images()


def test_a_file_that_is_refused_is_told(answering, tmp_path):
    file = mammogram_files.write(tmp_path / "a.dcm")
    refused = pydicom.Dataset()
    refused.FailedSOPSequence = [pydicom.Dataset()]
    refused.FailedSOPSequence[0].FailureReason = 0xA700
    url = answering(json.dumps(refused.to_json_dict()).encode())
    with pytest.raises(DataError, match=r"to store .*a.dcm, found it refused \(reason 42752\)"):
        Pacs(url).store(file)


def test_an_image_that_comes_in_part_leaves_nothing(answering, tmp_path):
    content = mammogram_files.write(tmp_path / "a.dcm").read_bytes()
    head = b"--B\r\nContent-Type: application/dicom\r\n\r\n"
    kind = 'multipart/related; type="application/dicom"; boundary=B'
    cut = answering(head + content[:900], kind=kind, lost=len(content) - 900)
    image = Image("1.2.3.4", "MG", "1.2", "1.2.3")
    with pytest.raises(DataError, match="found none that answers to the end"):
        Pacs(cut).fetch(image, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))
    (tmp_path / "locked").write_text(base64.b64encode(b"a file, no folder").decode())
    whole = answering(head + content + b"\r\n--B--", kind=kind)
    with pytest.raises(DataError, match="expected a folder that can be written to"):
        Pacs(whole).fetch(image, tmp_path / "locked")
    assert len(list(Pacs(whole).fetch(image, tmp_path / "out").iterdir())) == 1

"""DICOM in, DICOM out: the bundles' SEGs beside their masks, with a network that knows what is bright."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image
from pydicom import dcmread

from pipelines.datasets.ceus_writers import write_clip
from pipelines.dicom_seg import read_seg
from tests.conftest import ROOT, write_volume
from tests.pipelines import mammogram_files
from tests.pipelines.dicom_pictures import PATIENT, colours, write_dicom
from tests.pipelines.dicom_volumes import SECRETS, oblique, write_series

UIDS = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"}


class Bright(torch.nn.Module):
    """A network of sorts: what is brighter than two thirds of an image's white is a lesion."""

    def __init__(self, in_channels=1, out_channels=1):
        super().__init__()

    def forward(self, image):
        return 60 * (image.mean(1, keepdim=True) - 2 / 3)


def infer(monkeypatch, bundle, source, out, settings, **options):
    """Run a bundle's inference.json in this process."""
    monkeypatch.chdir(ROOT)
    parser = ConfigParser()
    parser.read_config(f"bundles/{bundle}/inference.json")
    weights = out.with_name("weights.pt")
    weights.write_bytes(b"of no use here")
    network = {"_target_": "tests.bundles.test_dicom_seg.Bright"}
    parser.update({"dataset_dir": str(source), "output_dir": str(out)})
    parser.update({"device": "cpu", "network_def": network})
    parser.update({"trained_with": settings, "weights_file": str(weights), **options})
    parser.get_parsed_content("evaluator").run()


def test_a_ct_series(monkeypatch, tmp_path, capsys):
    z, y, x = np.mgrid[:6, :40, :48]
    stored = (1024 - 100 + 4 * x + 120 * (((y - 12) ** 2 + (x - 30) ** 2 < 60) & (z > 2))).astype(np.int16)
    folder = write_series(tmp_path / "series", stored, directions=oblique())
    settings = {"target_labels": [2], "window": [-100, 200], "image_size": [48, 40]}
    infer(monkeypatch, "lits", folder, tmp_path / "out", settings, dicom_seg="true")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["series_mask.dcm", "series_mask.nii.gz", "series_mask.png"]
    mask = np.asarray(nib.load(tmp_path / "out/series_mask.nii.gz").dataobj)
    assert 0.01 < mask.mean() < 0.6
    assert np.array_equal(read_seg(tmp_path / "out/series_mask.dcm", folder), mask)
    seg = dcmread(tmp_path / "out/series_mask.dcm")
    assert seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Neoplasm"
    assert seg.SeriesDescription == "FeatherSeg LiTS: tumour"
    printed = capsys.readouterr().out
    assert "series_mask.dcm: DICOM SEG, which names the patient as the image does" in printed
    assert not [secret for secret in SECRETS if secret in printed]


@pytest.mark.parametrize(
    ("bundle", "settings", "meaning"),
    [
        ("inbreast", {"target_labels": [2], "image_size": [64, 64]}, "Calcification of breast"),
        ("dce_us", {"remove_calipers": False, "image_size": [32, 24]}, "Lesion"),
    ],
)
def test_a_picture(monkeypatch, tmp_path, capsys, bundle, settings, meaning):
    (tmp_path / "in").mkdir()
    if bundle == "inbreast":
        options = ("normalize_side", "crop_breast", "keep_aspect")
        settings = {**settings, **dict.fromkeys(options, False)}
        source = mammogram_files.write(tmp_path / "in/a.dcm")
    else:
        source = write_dicom(tmp_path / "in/a.dcm", colours(24, 32), **UIDS)
        Image.fromarray(colours(24, 32)).save(tmp_path / "in/b.png")
    infer(monkeypatch, bundle, tmp_path / "in", tmp_path / "out", settings, dicom_seg=True)
    with Image.open(tmp_path / "out/a_mask.png") as picture:
        mask = np.asarray(picture).T == 255
    assert 0 < mask.mean() < 1
    assert np.array_equal(read_seg(tmp_path / "out/a_mask.dcm", source), mask)
    (segment,) = dcmread(tmp_path / "out/a_mask.dcm").SegmentSequence
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == meaning
    printed = capsys.readouterr().out
    assert ("b: no DICOM SEG, since its image is not DICOM" in printed) == (bundle == "dce_us")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.dcm")) == ["a_mask.dcm"]
    assert not [text for text in PATIENT if text in printed]


def test_key_frames_refer_to_their_frames_of_the_clip(monkeypatch, tmp_path):
    frames = np.zeros((6, 40, 80, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[5:15, 10 + 3 * number : 20 + 3 * number] = frame[25:35, 50:60] = 255
        frame[:, 39:41] = 60
    (tmp_path / "in").mkdir()
    write_clip(tmp_path / "in/clip.dcm", frames, 1, "rgb")
    (tmp_path / "in/panels.json").write_text('{"contrast": [0, 0, 40, 39], "bmode": [0, 41, 40, 39]}')
    settings = {"inputs": ["ceus", "us"], "image_size": [40, 40]}
    infer(monkeypatch, "ceus", tmp_path / "in/clip.dcm", tmp_path / "out", settings, dicom_seg=True)
    files = sorted((tmp_path / "out").glob("*_mask.dcm"))
    assert len(files) == 2
    for file in files:
        number = int(file.name.split("_")[1])
        with Image.open(file.with_suffix(".png")) as picture:
            mask = np.asarray(picture).T == 255
        whole = read_seg(file, tmp_path / "in/clip.dcm")
        assert np.array_equal(whole[..., number], mask)
        assert whole.sum() == mask.sum()


def test_without_being_asked_for_no_seg_is_written(monkeypatch, tmp_path):
    """It names the patient, which the other masks do not, and needs highdicom."""
    source = write_dicom(tmp_path / "a.dcm", colours(24, 32), **UIDS)
    settings = {"remove_calipers": False, "image_size": [32, 24]}
    infer(monkeypatch, "dce_us", source, tmp_path / "out", settings)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_mask.png", "a_overlay.png"]


def test_brain_tumour_takes_no_dicom_and_says_so(monkeypatch, tmp_path, capsys):
    random = np.random.default_rng(0)
    source = write_volume(tmp_path / "a.nii.gz", random.normal(300, 50, (24, 20, 4, 4)).astype(np.int16))
    settings = {"target_labels": [1, 2, 3], "field_of_view": [24, 24], "image_size": [24, 24]}
    settings |= {"whitening": None, "intensity_offset": 0.0}
    options = {"dicom_seg": True, "whitening": {"mean": [0.0] * 4, "matrix": np.eye(4).tolist()}}
    infer(monkeypatch, "brain_tumour", source, tmp_path / "out", settings, **options)
    assert "a: no DICOM SEG, since its image is not DICOM" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_mask.nii.gz", "a_mask.png"]

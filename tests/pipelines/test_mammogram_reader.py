from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import LoadImaged

from pipelines.cache import describe
from pipelines.errors import DataError, user_message
from pipelines.mammogram_reader import MammogramReader
from tests.pipelines.mammogram_files import HEIGHT, PATIENT, WIDTH, levels, write

LOAD = LoadImaged("image", reader=MammogramReader(), ensure_channel_first=True)


def load(path, **options):
    reader = MammogramReader(**options)
    return LoadImaged("image", reader=reader, ensure_channel_first=True)({"image": str(path)})["image"]


def test_an_image_lies_as_monai_reads_pictures(tmp_path):
    image = load(write(tmp_path / "a.dcm", bits=14, photometric="MONOCHROME1"))
    assert image.dtype == torch.float32
    assert image.shape == (1, WIDTH, HEIGHT)
    np.testing.assert_array_equal(image[0].numpy().T, levels(14))


@pytest.mark.parametrize("name", ["a.dcm", "IM0001", "wrong.png"])
def test_the_name_does_not_matter(tmp_path, name):
    np.testing.assert_array_equal(load(write(tmp_path / name))[0].numpy().T, levels())


def test_the_metadata_hold_size_and_spacing_and_nothing_of_the_patient(tmp_path):
    image = load(write(tmp_path / "a.dcm", ImagerPixelSpacing=["0.1", "0.2"]))
    known = {"filename_or_obj", "spatial_shape", "original_channel_dim", "affine", "space", "pixel_spacing"}
    assert set(image.meta) <= known
    assert image.meta["spatial_shape"].tolist() == [WIDTH, HEIGHT]
    assert image.meta["pixel_spacing"].tolist() == [0.2, 0.1]
    assert torch.equal(image.affine, torch.eye(4, dtype=torch.float64))
    assert not any(text in repr(image.meta) for text in PATIENT.values())


def test_images_with_and_without_a_spacing_go_into_one_batch(tmp_path):
    files = [write(tmp_path / "a"), write(tmp_path / "b", spacing=float("nan"))]
    (batch,) = DataLoader(Dataset([{"image": str(file)} for file in files], LOAD), batch_size=2)
    assert batch["image"].shape == (2, 1, WIDTH, HEIGHT)
    assert batch["image"].meta["pixel_spacing"].isnan().tolist() == [[False, False], [True, True]]


def test_a_window_is_part_of_what_a_cache_is_named_by(tmp_path):
    path = write(tmp_path / "a", windows=[(2000.0, 1000.0, "NORMAL"), (2000.0, 500.0, "")])
    image = load(path, window="NORMAL")
    assert (image.min(), image.max()) == (0, 1)
    assert (image != load(path, window=1)).any()
    descriptions = [describe(LoadImaged("image", reader=MammogramReader(w))) for w in (None, 0, 1, "NORMAL")]
    assert all(one != other for n, one in enumerate(descriptions) for other in descriptions[:n])
    load(path)
    assert describe(LOAD) == describe(
        LoadImaged("image", reader=MammogramReader(), ensure_channel_first=True)
    )


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"Modality": "US"}, r"expected a mammogram \(modality MG\), found modality US"),
        ({"NumberOfFrames": 2}, "expected one mammogram, found 2 frames"),
        ({"Rows": 500}, "expected a whole DICOM file"),
    ],
)
def test_an_error_is_one_line_whatever_other_readers_make_of_the_file(tmp_path, elements, message):
    path = write(tmp_path / "a.dcm", **elements)
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    line = user_message(caught.value)
    assert "a.dcm" in line
    assert "\n" not in line
    assert not any(text in line for text in PATIENT.values())


def test_several_files_are_not_stacked(tmp_path):
    files = [str(write(tmp_path / name)) for name in "ab"]
    with pytest.raises(DataError, match="expected one mammogram, found 2"):
        LOAD({"image": files})

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import LoadImaged
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from pipelines.errors import DataError, user_message
from pipelines.picture_reader import PictureReader, read_picture
from tests.pipelines.dicom_pictures import PATIENT, colours, palette, write_dicom, ybr

HEIGHT, WIDTH = 31, 45
LOAD = LoadImaged("image", reader=PictureReader(), ensure_channel_first=True)
RGB = colours(HEIGHT, WIDTH)
GREY = RGB[..., 0]


def load(path):
    """As (H, W, 3), so that it can be compared with what was written."""
    return LOAD({"image": str(path)})["image"].numpy().transpose(2, 1, 0)


def written(path, values, mode=None, **options):
    Image.fromarray(values, mode).save(path, **options)
    return path


def test_a_picture_lies_as_monai_reads_it_and_says_nothing_but_its_size(tmp_path):
    path = written(tmp_path / "a.png", RGB)
    array, meta = PictureReader().get_data(PictureReader().read(path))
    assert array.shape == (WIDTH, HEIGHT, 3)
    assert array.dtype == np.uint8
    assert meta["original_channel_dim"] == -1
    image = LOAD({"image": str(path)})["image"]
    plain = LoadImaged("image", ensure_channel_first=True)({"image": str(path)})["image"]
    assert image.shape == (3, WIDTH, HEIGHT)
    assert torch.equal(image, plain)
    assert torch.equal(
        image.affine, torch.eye(4, dtype=torch.float64)[: len(image.affine), : len(image.affine)]
    )
    known = {"filename_or_obj", "spatial_shape", "original_channel_dim", "affine", "original_affine", "space"}
    assert set(image.meta) <= known
    assert image.meta["spatial_shape"].tolist() == [WIDTH, HEIGHT]
    (batch,) = DataLoader(Dataset([{"image": str(path)}], LOAD), batch_size=1)  # the metadata go into a batch
    assert batch["image"].shape == (1, 3, WIDTH, HEIGHT)


@pytest.mark.parametrize("ending", ["bmp", "tif", "tiff", "PNG"])
def test_every_lossless_format(tmp_path, ending):
    np.testing.assert_array_equal(load(written(tmp_path / f"a.{ending}", RGB)), RGB)


def test_jpeg_in_colour_and_grey(tmp_path):
    smooth = RGB.copy()
    smooth[: HEIGHT // 3, : WIDTH // 3] = 90
    assert np.abs(load(written(tmp_path / "a.jpg", smooth, quality=98, subsampling=0)) - smooth).mean() < 3
    grey = load(written(tmp_path / "b.jpeg", smooth[..., 0], quality=98))
    assert np.abs(grey - smooth[..., :1]).mean() < 3
    assert np.ptp(grey, axis=-1).max() == 0


def test_grey_palette_and_one_bit(tmp_path):
    grey = np.repeat(GREY[..., None], 3, axis=-1)
    np.testing.assert_array_equal(load(written(tmp_path / "grey.png", GREY)), grey)
    np.testing.assert_array_equal(
        load(written(tmp_path / "bit.png", GREY > 100)), np.where(grey > 100, 255, 0)
    )
    picture = Image.fromarray(np.tile(np.arange(WIDTH, dtype=np.uint8), (HEIGHT, 1)), "L")
    picture.putpalette([value for n in range(256) for value in (n, 255 - n, 2 * n % 256)])
    picture.save(tmp_path / "palette.png", transparency=3)
    with Image.open(tmp_path / "palette.png") as stored:
        assert stored.mode == "P"
    n = np.tile(np.arange(WIDTH), (HEIGHT, 1))
    np.testing.assert_array_equal(load(tmp_path / "palette.png"), np.dstack([n, 255 - n, 2 * n]))


def test_a_transparent_pixel_has_the_colour_that_is_stored(tmp_path):
    opacity = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    np.testing.assert_array_equal(load(written(tmp_path / "a.png", np.dstack([RGB, opacity]))), RGB)
    grey = load(written(tmp_path / "b.png", np.dstack([GREY, opacity]), "LA"))
    np.testing.assert_array_equal(grey, np.repeat(GREY[..., None], 3, axis=-1))


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_are_scaled_from_their_full_scale(tmp_path, ending):
    deep = np.tile(np.linspace(0, 65535, WIDTH).round().astype(np.uint16), (HEIGHT, 1))
    image = load(written(tmp_path / f"a.{ending}", deep))
    assert np.abs(image - deep[..., None] / 65535 * 255).max() <= 0.5
    assert (image.min(), image.max()) == (0, 255)


def test_thirty_two_bits_and_several_pages_are_refused(tmp_path):
    for values in (GREY.astype(np.int32), GREY.astype(np.float32)):
        with pytest.raises(DataError, match=r"a.tif: expected 8 or 16 bits a channel, found 32"):
            read_picture(written(tmp_path / "a.tif", values))
    pages = Image.fromarray(RGB)
    pages.save(tmp_path / "pages.tif", save_all=True, append_images=[pages, pages])
    with pytest.raises(DataError, match=r"pages.tif: expected one picture, found 3 in the file"):
        read_picture(tmp_path / "pages.tif")


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif"])
@pytest.mark.parametrize("kept", [0, 0.02, 0.4, 0.9])
def test_a_file_that_is_cut_off_is_an_error_whatever_other_readers_make_of_it(tmp_path, ending, kept):
    path = written(tmp_path / f"a.{ending}", np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8))
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(DataError, match=rf"a.{ending}: expected a whole picture"):
        load(path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"expected a picture at .*none.png, found no such file"):
        load(tmp_path / "none.png")


@pytest.mark.parametrize("name", ["a.dcm", "IM0001", "wrong.png"])
def test_dicom_is_known_by_its_content(tmp_path, name):
    image = LOAD({"image": str(write_dicom(tmp_path / name, RGB))})["image"]
    np.testing.assert_array_equal(image.numpy().transpose(2, 1, 0), RGB)
    assert not any(word in repr(image.meta) for word in PATIENT)


def test_dicom_of_other_photometric_interpretations(tmp_path):
    image = load(write_dicom(tmp_path / "ybr", ybr(RGB), "YBR_FULL", NumberOfFrames=1))
    assert np.abs(image - RGB).max() <= 2
    grey = load(write_dicom(tmp_path / "grey", GREY, "MONOCHROME2"))
    np.testing.assert_array_equal(grey, np.repeat(GREY[..., None], 3, axis=-1))
    coloured = load(write_dicom(tmp_path / "palette", GREY, "PALETTE COLOR", **palette(GREY)))
    n = GREY.astype(int)
    np.testing.assert_array_equal(coloured, np.dstack([n, 255 - n, n // 2]))


def test_dicom_that_is_compressed_as_jpeg(tmp_path):
    smooth = np.rint(RGB / 2 + 60).astype(np.uint8)
    smooth[: HEIGHT // 3, : WIDTH // 3] = smooth[HEIGHT // 3, WIDTH // 3]
    stream = io.BytesIO()
    Image.fromarray(smooth).save(stream, "JPEG", quality=98, subsampling=1)
    path = write_dicom(tmp_path / "a", smooth, "YBR_FULL_422")
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.PixelData = encapsulate([stream.getvalue()])
    ds.save_as(path)
    with Image.open(stream) as stored:
        np.testing.assert_allclose(load(path), np.asarray(stored), atol=3)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match="expected a whole DICOM file"):
        load(path)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"Modality": "CT"}, r"expected an ultrasound image \(modality US\), found CT"),
        ({"NumberOfFrames": 6}, "expected a single image, found 6 frames; export one frame"),
        (
            {"PhotometricInterpretation": "MONOCHROME1"},
            "found 8 bits of MONOCHROME1; export the image as PNG",
        ),
        ({"Rows": 2 * HEIGHT}, "expected frames, found none"),
    ],
)
def test_dicom_that_is_no_single_ultrasound_image_is_refused(tmp_path, elements, message):
    path = write_dicom(tmp_path / "a.dcm", GREY, "MONOCHROME2", **elements)
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert not any(word in user_message(caught.value) for word in PATIENT)


def test_dicom_that_is_cut_off_is_refused(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RGB)
    whole = path.read_bytes()
    for kept in (140, 300, len(whole) - 200):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataError, match=r"a.dcm: expected"):
            load(path)

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipelines.datasets import masks
from pipelines.errors import DataError

HEIGHT, WIDTH = 40, 56
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
LESION = (ROWS - 18) ** 2 / 12**2 + (COLUMNS - 30) ** 2 / 17**2 < 1


def grey(value, dtype=np.uint8, mask=LESION):
    return Image.fromarray((mask * np.float64(value)).astype(dtype))


def coloured(lesion, background, mode, mask=LESION):
    values = np.where(mask[..., None], np.uint8(lesion), np.uint8(background))
    return Image.fromarray(values, mode) if mode != "LA" else Image.fromarray(values).convert("LA")


def palette(*colours, transparency=None):
    picture = Image.fromarray(LESION.astype(np.uint8)).convert("P")
    picture.putdata(LESION.astype(np.uint8).ravel().tolist())
    picture.putpalette([value for colour in colours for value in colour])
    if transparency is not None:
        picture.info["transparency"] = transparency
    return picture


def grey_and_alpha(value, alpha):
    return Image.merge("LA", (grey(value), grey(alpha) if np.isscalar(alpha) else alpha))


OPAQUE = Image.new("L", (WIDTH, HEIGHT), 255)
CODINGS = {
    "1 bit": ("png", lambda: grey(255).convert("1")),
    "8 bits, 0 and 1": ("png", lambda: grey(1)),
    "8 bits, 0 and 255": ("png", lambda: grey(255)),
    "8 bits, 0 and 200": ("png", lambda: grey(200)),
    "bitmap": ("bmp", lambda: grey(255)),
    "16 bits, 0 and 1": ("png", lambda: grey(1, np.uint16)),
    "16 bits, 0 and 255": ("png", lambda: grey(255, np.uint16)),
    "16 bits, 0 and 65535": ("png", lambda: grey(65535, np.uint16)),
    "float just below 1": ("tif", lambda: grey(0.99999997, np.float32)),
    "float just above 1": ("tif", lambda: grey(1.0000002, np.float32)),
    "float up to 255": ("tif", lambda: grey(254.99, np.float32)),
    "white": ("png", lambda: coloured((255, 255, 255), (0, 0, 0), "RGB")),
    "red": ("png", lambda: coloured((255, 0, 0), (0, 0, 0), "RGB")),
    "RGB, 0 and 1": ("png", lambda: coloured((1, 1, 1), (0, 0, 0), "RGB")),
    "opaque": ("png", lambda: coloured((255, 255, 255, 255), (0, 0, 0, 255), "RGBA")),
    "opaque, 0 and 1": ("png", lambda: coloured((1, 1, 1, 255), (0, 0, 0, 255), "RGBA")),
    "cut out of nothing": ("png", lambda: coloured((0, 255, 0, 255), (255, 255, 255, 0), "RGBA")),
    "only the opacity differs": ("png", lambda: coloured((0, 0, 0, 255), (0, 0, 0, 0), "RGBA")),
    "half transparent background": ("png", lambda: coloured((255, 255, 255, 255), (255, 0, 0, 90), "RGBA")),
    "grey with opacity": ("png", lambda: grey_and_alpha(255, OPAQUE)),
    "only the grey's opacity differs": ("png", lambda: grey_and_alpha(0, 255)),
    "palette": ("png", lambda: palette((0, 0, 0), (128, 0, 0))),
    "palette of swapped order": ("png", lambda: palette((68, 1, 84), (253, 231, 37))),
    "palette with transparency": ("png", lambda: palette((255, 255, 255), (0, 255, 0), transparency=0)),
    "CMYK": ("tif", lambda: coloured((255, 255, 255), (0, 0, 0), "RGB").convert("CMYK")),
}


@pytest.mark.parametrize("coding", CODINGS)
def test_one_mask_in_many_codings(tmp_path, coding):
    suffix, make = CODINGS[coding]
    make().save(tmp_path / f"mask.{suffix}")
    mask = masks.read(tmp_path / f"mask.{suffix}")
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, LESION)


@pytest.mark.parametrize("quality", [95, 75, 30])
def test_a_jpeg_keeps_its_outline_but_for_the_edge(tmp_path, quality):
    grey(255).save(tmp_path / "mask.jpg", quality=quality)
    stored = np.asarray(Image.open(tmp_path / "mask.jpg"))
    assert len(np.unique(stored)) > 2  # so that there is something to clean
    wrong = masks.read(tmp_path / "mask.jpg") != LESION
    assert wrong.sum() <= 0.02 * LESION.sum()


@pytest.mark.parametrize("save", ["1", "L", "RGB"])
def test_an_empty_mask_is_empty(tmp_path, save):
    Image.new(save, (WIDTH, HEIGHT)).save(tmp_path / "mask.png")
    assert not masks.read(tmp_path / "mask.png").any()


@pytest.mark.parametrize("noise", [1, 20])
def test_noise_of_a_jpeg_is_no_lesion(tmp_path, noise):
    speckles = np.random.default_rng(0).integers(0, noise + 1, (HEIGHT, WIDTH)).astype(np.uint8)
    Image.fromarray(speckles).save(tmp_path / "mask.jpg", quality=95)
    assert np.asarray(Image.open(tmp_path / "mask.jpg")).any()
    assert not masks.read(tmp_path / "mask.jpg").any()


@pytest.mark.parametrize(
    ("picture", "suffix", "found"),
    [
        (grey(2), "png", "0 to 2"),
        (grey(100), "png", "0 to 100"),
        (grey(100), "jpg", "0 to 1"),
        (grey(4095, np.uint16), "png", "0 to 4095"),
        (grey(0.4, np.float32), "tif", "0 to 0.4"),
        (grey(1e6, np.float32), "tif", "0 to 1e.06"),
        (grey(-1, np.float32), "tif", "-1 to"),
        (grey(np.nan, np.float32), "tif", "nan"),
    ],
)
def test_what_follows_no_coding_is_an_error_that_names_the_file(tmp_path, picture, suffix, found):
    picture.save(tmp_path / f"mask.{suffix}")
    with pytest.raises(
        DataError, match=rf"mask\.{suffix}: expected 0 .*255.* found values from {found}"
    ) as error:
        masks.read(tmp_path / f"mask.{suffix}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
def test_a_file_that_is_cut_off_raises_what_is_listed(tmp_path, suffix, share):
    path = tmp_path / f"mask.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(masks.READ_ERRORS):
        masks.read(path)


@pytest.mark.parametrize(("suffix", "greys"), [("png", False), ("jpg", True)])
def test_greys_are_told(tmp_path, suffix, greys):
    coloured((255, 0, 0), (0, 0, 0), "RGB").save(tmp_path / f"mask.{suffix}")
    assert masks.has_greys(Image.open(tmp_path / f"mask.{suffix}")) == greys


class TestJoin:
    def test_union(self):
        left, right = LESION & (COLUMNS < 25), LESION & (COLUMNS > 35)
        joined = masks.join({"a_mask.png": left, "a_mask_1.png": right}, (HEIGHT, WIDTH))
        np.testing.assert_array_equal(joined, left | right)

    def test_a_mask_of_another_size_than_the_image(self):
        with pytest.raises(DataError, match=r"a\.png: expected the 40x56 pixels of its image, found 56x40"):
            masks.join({"a.png": LESION}, (WIDTH, HEIGHT))

    def test_masks_of_different_sizes(self):
        with pytest.raises(DataError, match=r"b\.png: expected the 56x40 pixels of a\.png, found 40x56"):
            masks.join({"folder/a.png": LESION, "folder/b.png": LESION.T})

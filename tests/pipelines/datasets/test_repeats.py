from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from pipelines.datasets import repeats
from pipelines.errors import DataError
from tests.conftest import SHARED

BUSI = SHARED / "busi"


def tissue(seed, width=300, height=240):
    """Tissue of its own, as rich in contrast as breast tissue, under shading, header and margin as in all."""
    rng = np.random.default_rng(seed)
    field = sum(
        amount * ndimage.zoom(rng.normal(size=shape), (height / shape[0], width / shape[1]), order=3)
        for shape, amount in (((12, 7), 28), ((30, 20), 20), ((height, width), 10))
    )
    depth = np.linspace(1, 0, height)[:, None]
    grey = np.clip((90 + field) * (0.3 + depth) + 60 * (np.abs(depth - 0.6) < 0.02), 0, 255)
    picture = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, width, 16), (0, 0, 0))
    draw.text((4, 2), "SCANNER 12 MHz   D 4 cm", (255, 255, 255))
    draw.rectangle((width - 14, 0, width, height), (0, 0, 0))
    return picture


def cropped(picture):
    width, height = picture.size
    return picture.crop((round(0.04 * width), 0, width, round(0.97 * height)))


def darker(picture):
    return picture.point(lambda value: int(255 * (value / 255) ** 1.5))


def measured(picture):
    """Calipers and a caption, at the same place in every image."""
    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    draw.line((90, 80, 190, 120), (120, 205, 255))
    for x, y in ((90, 80), (190, 120), (130, 130), (150, 70)):
        draw.line((x - 6, y, x + 6, y), (255, 255, 0), 2)
        draw.line((x, y - 6, x, y + 6), (255, 255, 0), 2)
    draw.text((30, 200), "LEFT BREAST", (255, 255, 255))
    return picture


def as_jpeg(picture):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=40)
    return Image.open(file)


def shrunk(picture):
    return picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BILINEAR)


def partners(groups):
    return {(i, j) for i in range(len(groups)) for j in range(i) if groups[i] == groups[j]}


def group(pictures):
    return repeats.group(np.stack([repeats.describe(picture) for picture in pictures]))


CHANGES = [cropped, darker, measured, as_jpeg, shrunk, lambda picture: picture.convert("L")]


@pytest.mark.parametrize("change", [*CHANGES, lambda p: as_jpeg(darker(measured(cropped(p))))])
def test_a_changed_copy_is_found_among_others(change):
    originals = [tissue(seed) for seed in range(12)]
    groups = group(originals + [change(picture) for picture in originals])
    assert partners(groups) == {(n + 12, n) for n in range(12)}


def test_images_of_one_scanner_are_not_taken_for_repeats():
    assert partners(group([tissue(seed) for seed in range(60)])) == set()


def test_blank_images_are_not_taken_for_repeats():
    blank = [Image.new("L", (50, 40), value) for value in (0, 0, 255)]
    assert partners(group([*blank, tissue(1)])) == set()


def test_what_is_alike_by_way_of_a_third_is_one_group():
    rng = np.random.default_rng(0)
    first, last = rng.normal(size=(2, 32, 32)).astype(np.float32)
    between = first + last  # correlates by 0.7 with each
    assert partners(repeats.group(np.stack([first, last]))) == set()
    assert partners(repeats.group(np.stack([first, between, last]))) == {(1, 0), (2, 0), (2, 1)}


def test_a_shift_of_a_pixel_counts_for_nothing():
    wide = np.random.default_rng(0).normal(size=(34, 34)).astype(np.float32)
    assert partners(repeats.group(np.stack([wide[1:33, 1:33], wide[2:, :32]]))) == {(1, 0)}
    assert partners(repeats.group(np.stack([wide[:32, :32], wide[2:, 2:]]))) == set()


@pytest.mark.parametrize("block", [1, 3, 100])
def test_blocks_do_not_change_the_groups(monkeypatch, block):
    rng = np.random.default_rng(0)
    looks = rng.normal(size=(7, 32, 32)).astype(np.float32)[[0, 1, 2, 3, 1, 4, 5, 0, 6]]
    monkeypatch.setattr(repeats, "BLOCK", block)
    assert partners(repeats.group(looks)) == {(4, 1), (7, 0)}


def test_files_are_described_in_their_order(tmp_path):
    files = [tmp_path / f"{number}.png" for number in range(5)]
    for number, file in enumerate(files):
        tissue(number, 120, 90).save(file)
    expected = np.stack([repeats.describe(Image.open(file)) for file in files])
    np.testing.assert_array_equal(repeats.describe_files(files), expected)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"broken\.png: expected a whole image file"):
        repeats.describe_files([tmp_path / "broken.png"])


class TestReadGroups:
    def test_columns_in_any_order_and_more_of_them(self, tmp_path):
        listing = tmp_path / "groups.csv"
        listing.write_text(
            "\ufeffgroup,width,image\ng1,300,benign/benign (1).png\r\ng2,,./normal\\a.png\n", "utf-8"
        )
        assert repeats.read_groups(listing) == {"benign/benign (1).png": "g1", "normal/a.png": "g2"}

    @pytest.mark.parametrize(
        "content",
        ["image;group\na.png;g1\n", "image,group\na.png\n", "image,group\na.png,\n", "file,group\na,b\n"],
    )
    def test_what_is_no_such_list_is_named(self, tmp_path, content):
        (tmp_path / "groups.csv").write_text(content)
        with pytest.raises(DataError, match=r"columns image and group.*groups\.csv") as error:
            repeats.read_groups(tmp_path / "groups.csv")
        assert "\n" not in str(error.value)

    def test_an_image_in_two_groups_is_named(self, tmp_path):
        (tmp_path / "groups.csv").write_text("image,group\na.png,g1\na.png,g1\na.png,g2\n")
        with pytest.raises(DataError, match=r"'g1' and 'g2' for a\.png"):
            repeats.read_groups(tmp_path / "groups.csv")

    def test_a_file_that_is_not_utf8_is_named(self, tmp_path):
        (tmp_path / "groups.csv").write_bytes(b"image,group\n\xff.png,g1\n")
        with pytest.raises(DataError, match=r"groups\.csv, found UnicodeDecodeError"):
            repeats.read_groups(tmp_path / "groups.csv")


@pytest.mark.skipif(not BUSI.is_dir(), reason="the real ultrasound images are not here")
def test_groups_of_busi_agree_with_its_list():
    listed = repeats.read_groups(BUSI / "groups.csv")
    found = repeats.group(repeats.describe_files([BUSI / image for image in listed]))
    names, known = list(listed), partners(list(listed.values()))
    pairs = partners(found)
    assert len(known) == 177
    assert len(known & pairs) == 175
    # The 13 that the list lacks, seen to show one lesion each.
    beyond = {
        tuple(sorted(names[n].split("/")[1].removesuffix(".png") for n in pair)) for pair in pairs - known
    }
    assert beyond == {
        ("benign (125)", "benign (126)"),
        ("benign (141)", "benign (64)"),
        ("benign (213)", "benign (253)"),
        ("benign (221)", "benign (246)"),
        *((f"benign ({a})", f"benign ({b})") for a, b in ((238, 240), (238, 255), (238, 277))),
        *((f"benign ({a})", f"benign ({b})") for a, b in ((240, 300), (255, 300), (277, 300))),
        ("malignant (106)", "malignant (107)"),
        ("malignant (85)", "malignant (86)"),
        ("normal (132)", "normal (20)"),
    }

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipelines.datasets.dce_us_faults import write_faults

# Written down here and not read from the module, so that a fault left out of it is seen.
FAULTS = [
    ("error", "size", "Patient002_img1", "masks/Patient002_img1.png"),
    ("error", "unreadable", "Patient003_img1", "images/Patient003_img1.png"),
    ("note", "empty", "Patient004_img1", "masks/Patient004_img1.png"),
    ("error", "missing", "Patient005_img1", "images/Patient005_img1.png"),
    ("error", "missing", "Patient006_img1", "masks/Patient006_img1.png"),
    ("note", "not-ascii", "Patiënt007_img1", "images/Patiënt007_img1.png"),
    ("note", "not-ascii", "Patiënt007_img2", "images/Patiënt007_img2.png"),
    ("note", "several", "Patient008_img1", "masks/Patient008_img1.png"),
    ("error", "duplicate", "Patient009_img1", "images/Patient009_img1.png"),
    ("note", "grey", "Patient010_img1", "masks/Patient010_img1.png"),
]
SHAPE = (60, 80)


def lesion(number):
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.hypot((rows - 30) / 15, (columns - 30 - number) / 22) < 1


def save_in(folder):
    """Gives what writes a sound patient into a folder, with masks of all three modes."""

    def save(number):
        rgb = np.random.default_rng(number).integers(0, 256, (*SHAPE, 3), np.uint8)
        for view in (2, 1):
            name = f"Patient{number:03d}_img{view}.png"
            Image.fromarray(rgb).save(folder / "images" / name)
            mask = Image.fromarray(np.uint8(255) * lesion(number))
            mask.convert(("1", "L", "RGB")[number % 3]).save(folder / "masks" / name)
        return folder / "images" / name, folder / "masks" / name

    for part in ("images", "masks"):
        (folder / part).mkdir()
    return save


@pytest.fixture(scope="module")
def listed_and_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    save = save_in(folder)
    save(1)
    return write_faults(folder, 2, save), folder


@pytest.fixture(scope="module")
def listed(listed_and_folder):
    return listed_and_folder[0]


@pytest.fixture(scope="module")
def folder(listed_and_folder):
    return listed_and_folder[1]


def read(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_the_findings_to_expect_are_listed(listed):
    assert [tuple(fault[key] for key in ("severity", "kind", "case", "file")) for fault in listed] == FAULTS


def test_a_mask_of_another_size(folder):
    assert read(folder / "images/Patient002_img1.png").shape == (60, 80, 3)
    assert np.array_equal(read(folder / "masks/Patient002_img1.png") > 0, lesion(2)[1::2, 1::2])


def test_an_image_cut_short_that_still_opens(folder):
    with Image.open(folder / "images/Patient003_img1.png") as picture:
        assert picture.size == (80, 60)
        with pytest.raises(OSError, match="truncated"):
            picture.load()


def test_an_empty_mask(folder):
    mask = read(folder / "masks/Patient004_img1.png")
    assert mask.shape == SHAPE
    assert not mask.any()


def test_no_mask_and_no_image(folder):
    assert not (folder / "masks/Patient005_img1.png").exists()
    assert not (folder / "images/Patient006_img1.png").exists()


def test_a_name_that_is_not_ascii(folder):
    assert len(list(folder.glob("*/Patiënt007_img?.png"))) == 4
    assert not list(folder.glob("*/Patient007*"))


def test_a_lesion_in_two_masks(folder):
    halves = [read(folder / f"masks/Patient008_img1{suffix}.png") > 0 for suffix in ("", "_1")]
    assert all(half.sum() > 0.4 * lesion(8).sum() for half in halves)
    assert not (halves[0] & halves[1]).any()
    assert np.array_equal(halves[0] | halves[1], lesion(8))


def test_a_patient_that_is_there_twice(folder):
    for part in ("images", "masks"):
        first, again = (folder / part / f"Patient{number}_img1.png" for number in ("001", "009"))
        assert first.read_bytes() == again.read_bytes()


def test_a_mask_that_was_saved_as_jpeg(folder):
    mask = read(folder / "masks/Patient010_img1.png")
    assert len(np.unique(mask)) > 10
    assert np.array_equal(mask > 127, lesion(10))


def test_all_else_is_sound(folder):
    faulty = {file.split("/")[1] for _, _, _, file in FAULTS} | {"Patient008_img1_1.png"}
    sound = {path.name for part in ("images", "masks") for path in (folder / part).iterdir()} - faulty
    assert len(sound) == 2 + 8
    for name in sound:
        assert read(folder / "images" / name).shape == (*SHAPE, 3)
        mask = read(folder / "masks" / name)
        assert np.array_equal(mask.reshape(*SHAPE, -1)[..., 0] > 0, lesion(int(name[7:10])))

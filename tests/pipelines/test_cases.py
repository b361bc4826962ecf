from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from monai.transforms import Compose, Lambdad, LoadImaged
from PIL import Image

from pipelines.cases import CaseDataset, load_case
from pipelines.datasets.mask_reader import MaskReader
from pipelines.errors import DataError
from pipelines.picture_reader import PictureReader
from tests.chains import KEYS, LOAD
from tests.conftest import write_volume
from transforms import CheckImaged


def test_a_sound_case_is_loaded(cases):
    assert CaseDataset(cases, LOAD)[0]["image"].shape == (1, 24, 20, 8)


@pytest.mark.parametrize("key", KEYS)
def test_a_file_that_is_cut_short_is_named(cases, key):
    path = Path(cases[0][key])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=rf"{path.name}: expected a whole image file.*download or export it"):
        load_case(cases[0], LOAD)


def test_a_file_that_is_no_image_and_a_missing_one_are_named(cases):
    Path(cases[0]["image"]).write_bytes(gzip.compress(b"no image"))
    with pytest.raises(DataError, match=r"volume-0.nii.gz: expected a whole image file"):
        load_case(cases[0], LOAD)
    Path(cases[1]["image"]).unlink()
    with pytest.raises(DataError, match=r"volume-1.nii.gz: expected a whole image file"):
        load_case(cases[1], LOAD)


def picture_case(folder):
    """An image with two masks, 30 x 20 pixels."""
    random = np.random.default_rng(0)
    for name in ("image.png", "mask.png", "mask_1.png"):
        values = random.integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(values if name == "image.png" else values[..., 0] > 100).save(folder / name)
    masks = [str(folder / "mask.png"), str(folder / "mask_1.png")]
    return {"case": "a", "image": str(folder / "image.png"), "label": masks}


def picture_chain(reader):
    """Each key has a loader of its own, and one of them lies in a chain within the chain."""
    return Compose(
        [
            LoadImaged("image", reader=reader, ensure_channel_first=True),
            Compose([LoadImaged("label", reader=MaskReader(), ensure_channel_first=True)]),
            CheckImaged(["image", "label"]),
        ]
    )


READERS_OF_PICTURES = [PictureReader(), "PILReader"]


@pytest.mark.parametrize("reader", READERS_OF_PICTURES)
@pytest.mark.parametrize("name", ["image.png", "mask.png", "mask_1.png"])
def test_of_pictures_the_one_that_is_at_fault_is_named(tmp_path, reader, name):
    case = picture_case(tmp_path)
    assert load_case(case, picture_chain(reader))["label"].shape == (1, 30, 20)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:60])
    with pytest.raises(
        DataError, match=rf"^{tmp_path}/{name}: expected a whole (image file|picture)"
    ) as caught:
        load_case(case, picture_chain(reader))
    assert "\n" not in str(caught.value)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=rf"{name}.*no such file"):
        load_case(case, picture_chain(reader))


def test_masks_that_do_not_fit_are_named(tmp_path):
    case = picture_case(tmp_path)
    Image.fromarray(np.ones((20, 31), bool)).save(tmp_path / "mask_1.png")
    with pytest.raises(DataError, match=r"mask_1.png: expected the 30x20 pixels of mask.png, found 31x20"):
        load_case(case, picture_chain(PictureReader()))
    case["label"] = case["label"][1]
    with pytest.raises(DataError, match=r"mask_1.png: expected the 30x20 pixels of .*image.png, found 31x20"):
        load_case(case, picture_chain(PictureReader()))


def test_what_is_no_file_is_not_tried(cases):
    """A case may hold arrays, and a chain may load nothing; then its error is a bug's."""
    Path(cases[0]["image"]).unlink()
    with pytest.raises(RuntimeError, match="applying transform"):
        load_case({"image": np.zeros(3)}, LOAD)
    with pytest.raises(RuntimeError, match="applying transform"):
        load_case(cases[0], Compose([Lambdad("image", np.load)]))


def test_what_a_check_finds_arrives_as_one_line(cases, tmp_path):
    cases[0]["label"] = write_volume(tmp_path / "other.nii.gz", np.zeros((24, 20, 9), np.uint8))
    with pytest.raises(
        DataError, match=r"other.nii.gz: expected the shape of its image, \(24, 20, 8\)"
    ) as caught:
        load_case(cases[0], LOAD)
    assert "\n" not in str(caught.value)


def test_a_bug_in_a_transform_is_not_taken_for_bad_data(cases):
    def broken(case):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load_case(cases[0], broken)

from __future__ import annotations

import numpy as np
import pytest
from monai.transforms import LoadImaged
from PIL import Image

from pipelines.datasets.mask_reader import MaskReader
from pipelines.errors import user_message

HEIGHT, WIDTH = 30, 50


@pytest.fixture
def mask():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:12, 20:44] = mask[20:25, 3:9] = True
    return mask


def save(path, values):
    Image.fromarray(values).save(path)
    return str(path)


def load(label, **options):
    chain = LoadImaged("label", reader=MaskReader(**options), ensure_channel_first=True)
    return chain({"label": label})["label"]


def test_a_mask_lies_on_its_image_as_monai_loads_that(tmp_path, mask):
    image = save(tmp_path / "image.png", np.dstack([mask * np.uint8(150)] * 3))
    label = load(save(tmp_path / "mask.png", mask.astype(np.uint8)))
    loaded = LoadImaged("image", ensure_channel_first=True)({"image": image})["image"]
    assert label.shape == (1, WIDTH, HEIGHT)
    np.testing.assert_array_equal(label[0], loaded[0] > 0)
    assert label.meta["filename_or_obj"] == str(tmp_path / "mask.png")


def test_several_masks_of_any_coding_are_joined(tmp_path, mask):
    upper, lower = mask.copy(), mask.copy()
    upper[15:], lower[:15] = False, False
    files = [
        save(tmp_path / "a_mask.png", upper),
        save(tmp_path / "a_mask_1.png", np.dstack([lower * np.uint8(255)] * 3)),
    ]
    label = load(files, reverse_indexing=False)
    assert label.shape == (1, HEIGHT, WIDTH)
    np.testing.assert_array_equal(label[0], mask)


def test_a_mask_that_another_reader_could_read_is_an_error_all_the_same(tmp_path, mask):
    label = save(tmp_path / "mask.png", mask * np.uint8(100))
    with pytest.raises(Exception, match="expected") as error:
        load(label)
    assert "mask.png: expected 0 for background" in user_message(error.value)


def test_masks_of_different_sizes_are_an_error_that_names_both(tmp_path, mask):
    files = [save(tmp_path / "a_mask.png", mask), save(tmp_path / "a_mask_1.png", mask.T.copy())]
    with pytest.raises(Exception, match="expected") as error:
        load(files)
    assert "expected the 50x30 pixels of a_mask.png, found 30x50" in user_message(error.value)

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, Invertd, Resized

from transforms import NormalizeSided
from transforms.side import breast, lies_right


def mammogram(side, width=60, height=90):
    """A breast at its edge, brighter than the air, with a bright letter on the other side; and its lesion."""
    x = torch.arange(width)[:, None] / width
    y = (torch.arange(height)[None] - 0.4 * height) / height
    image = 100.0 * ((x / 0.6) ** 2 + (y / 0.45) ** 2 < 1) + torch.rand(width, height)
    image[52:56, 4:10] = 300
    lesion = torch.zeros(width, height)
    lesion[5:14, 40:44] = 1
    if side == "right":
        image, lesion = image.flip(0), lesion.flip(0)
    return {"image": MetaTensor(image[None]), "label": MetaTensor(lesion[None])}


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_side_is_where_the_breast_lies(side):
    assert lies_right(mammogram(side)["image"]) == (side == "right")
    assert lies_right(mammogram(side, width=61)["image"]) == (side == "right")


def test_an_image_of_one_value_is_left_as_it_is():
    assert not lies_right(torch.zeros(1, 9, 9))


def test_the_breast_is_found_without_the_letter_beside_it():
    image = mammogram("left")["image"] / 100
    expected = image > 0.5
    expected[:, 52:56, 4:10] = False
    assert torch.equal(breast(image), expected)
    assert breast(torch.zeros(1, 8, 9)).all()


def test_all_face_as_left_ones_do():
    torch.manual_seed(0)
    left = mammogram("left")
    torch.manual_seed(0)
    right = mammogram("right")
    normalize = NormalizeSided(["image", "label"])
    kept, mirrored = normalize(left), normalize(right)
    for key in left:
        assert torch.equal(kept[key], left[key])
        assert torch.equal(mirrored[key], left[key])
        assert not torch.equal(right[key], left[key])


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_prediction_goes_back_to_its_own_side_through_a_chain(side):
    case = mammogram(side)
    chain = Compose(
        [
            NormalizeSided(["image", "label"], allow_missing_keys=True),
            CropForegroundd(["image", "label"], "image", select_fn=lambda x: x > 50, allow_missing_keys=True),
            Resized(["image", "label"], (80, 90), mode="nearest", allow_missing_keys=True),
        ]
    )
    prepared = chain(dict(case))
    prediction = {**prepared, "pred": MetaTensor(prepared["label"].as_tensor())}
    back = Invertd("pred", chain, orig_keys="image", nearest_interp=True)(prediction)["pred"]
    assert back.shape == case["label"].shape
    # The lesion's edge moves by a pixel at most, from resizing; on the other side there is nothing.
    assert (back * case["label"]).sum() >= 0.5 * case["label"].sum()
    assert F.max_pool2d(case["label"], 3, 1, 1)[back > 0].min() == 1
    alone = chain({"image": case["image"]})
    assert torch.equal(alone["image"], prepared["image"])


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_inverse_is_exact(side):
    case = mammogram(side)
    normalize = NormalizeSided(["image", "label"])
    back = normalize.inverse(normalize(case))
    for key in case:
        assert torch.equal(back[key], case[key])
        assert torch.equal(back[key].affine, case[key].affine)
        assert back[key].applied_operations == []

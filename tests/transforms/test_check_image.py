from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImaged
from PIL import Image

from transforms import CheckImaged, ImageError

CHECK = CheckImaged(["image", "label"], allow_missing_keys=True)


def item(**changes):
    label = torch.zeros(1, 50, 47)
    label[:, 10:20, 5:9] = 1
    return {"image": torch.rand(3, 50, 47), "label": label, **changes}


def test_what_is_sound_passes_unchanged():
    case = item()
    checked = CHECK(case)
    assert all(torch.equal(checked[key], case[key]) for key in case)
    image = torch.zeros(3, 2, 2, dtype=torch.uint8)
    assert torch.equal(CHECK({"image": image})["image"], image)
    assert CheckImaged("image", channels=1)({"image": torch.rand(1, 4, 4)})


def with_nan():
    image = torch.rand(3, 50, 47)
    image[1, 3, 4] = float("nan")
    return image


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": torch.rand(1, 50, 47)}, r"'image': expected a 2D image with 3 channels, .*\(1, 50, 47\)"),
        ({"image": torch.rand(3, 50, 47, 1)}, r"expected a 2D image with 3 channels"),
        ({"label": torch.zeros(3, 50, 47)}, r"'label': expected a 2D image with 1 channel, "),
        ({"image": torch.rand(3, 50, 1)}, r"expected 2 pixels or more each way, found 50x1;"),
        ({"image": with_nan()}, r"expected finite values, found 1 NaN or infinite ones"),
        ({"label": torch.full((1, 50, 47), 2.0)}, r"'label': expected 0 for background .* found \[2.0\]"),
        ({"label": torch.full((1, 50, 47), 0.5)}, r"found \[0.5\]; recode the mask"),
        (
            {"label": torch.zeros(1, 47, 50)},
            r"expected the 50x47 pixels of .*'image', found 47x50; a mask is",
        ),
    ],
)
def test_what_is_not_sound_is_refused(changes, message):
    with pytest.raises(ImageError, match=message) as caught:
        CHECK(item(**changes))
    assert "\n" not in str(caught.value)


def test_the_labels_are_those_that_are_expected():
    check = CheckImaged(["image", "label"], labels=[0, 1, 2, 3])
    label = torch.zeros(1, 50, 47, dtype=torch.uint8)
    label[:, :4] = torch.arange(4, dtype=torch.uint8)[None, :, None]
    assert torch.equal(check(item(label=label))["label"], label)
    with pytest.raises(ImageError, match=r"expected labels in \[0, 1, 2, 3\], found \[0.0, 4.0\]; recode"):
        check(item(label=4 * (label > 0)))


def test_the_sizes_of_files_are_those_that_people_know(tmp_path):
    for name, size in (("image.png", (500, 471)), ("mask.png", (500, 470))):
        Image.fromarray(np.zeros(size[::-1], np.uint8)).save(tmp_path / name)
    chain = Compose(
        [
            LoadImaged(["image", "label"], ensure_channel_first=True),
            CheckImaged(["image", "label"], channels=1),
        ]
    )
    with pytest.raises(RuntimeError) as caught:
        chain({"image": str(tmp_path / "image.png"), "label": str(tmp_path / "mask.png")})
    cause = caught.value.__cause__
    assert isinstance(cause, ImageError)
    assert str(cause).startswith(
        f"{tmp_path}/mask.png: expected the 500x471 pixels of {tmp_path}/image.png, "
    )
    assert "found 500x470; a mask is never resized" in str(cause)

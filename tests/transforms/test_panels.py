import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, LoadImaged, ScaleIntensityd
from PIL import Image

from tests.transforms.panel_frames import Layout, draw
from transforms.panels import PanelError, Panels, SplitDualPanel, SplitDualPaneld, given_panels

BOXES = {"contrast": [2, 1, 5, 4], "bmode": [2, 6, 5, 4]}


def frame(channels=3, name="clip/frame 7.png"):
    return MetaTensor(torch.rand(channels, 10, 12) * 255, meta={"filename_or_obj": name})


def test_both_panels_are_cropped_and_grey():
    image = frame()
    ceus, us = SplitDualPanel(BOXES)(image)
    # Pillow turns colour into grey by the same weights, rounded to whole numbers.
    whole = image.as_tensor().round().to(torch.uint8).permute(1, 2, 0).numpy()
    grey = np.asarray(Image.fromarray(whole).convert("L"), float)
    assert ceus.shape == us.shape == (1, 5, 4)
    assert ceus.dtype == us.dtype == torch.float32
    assert np.abs(ceus[0].numpy() - grey[2:7, 1:5]).max() <= 1.1
    assert np.abs(us[0].numpy() - grey[2:7, 6:10]).max() <= 1.1


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_stays_as_it_is_and_opacity_is_left_out(channels):
    image = torch.rand(1, 10, 12)
    given = image if channels == 1 else torch.cat([image, image, image, torch.ones(1, 10, 12)])
    ceus, us = SplitDualPanel()(given, BOXES)
    assert torch.allclose(torch.as_tensor(ceus), image[:, 2:7, 1:5])
    assert torch.allclose(torch.as_tensor(us), image[:, 2:7, 6:10])


def test_panels_are_found_where_none_are_given():
    drawn = draw(Layout(side="right", header=40, margin=12, ruler=True), seed=2)
    transform = SplitDualPanel()
    top, left, height, width = transform.boxes(drawn.image).contrast
    assert np.abs(np.subtract((top, left, height, width), drawn.contrast)).max() <= 2
    ceus, us = transform(torch.from_numpy(drawn.image))
    assert ceus.shape == us.shape == (1, height, width)
    found = drawn.image[:, top : top + height, left : left + width]
    assert np.corrcoef(ceus[0].numpy().ravel(), found.mean(0).ravel())[0, 1] > 0.99


def test_labels_go_with_the_contrast_panel_and_the_inverse_puts_them_back():
    label = MetaTensor(torch.zeros(1, 10, 12))
    label[0, 3:5, 2:4] = 1
    transform = SplitDualPaneld(["image", "label"])
    data = transform({"image": frame(), "label": label, "panels": BOXES, "patient": "P1"})
    assert data["label"].shape == (1, 5, 4)
    assert data["label"].sum() == 4
    assert data["label"][0, 1:3, 1:3].sum() == 4
    assert data["patient"] == "P1"
    assert data["image"].shape == (3, 10, 12)
    back = transform.inverse({"label": data["label"], "us": data["us"]})
    assert torch.equal(torch.as_tensor(back["label"]), torch.as_tensor(label))
    assert back["us"].shape == (1, 10, 12)
    assert torch.equal(back["us"][:, 2:7, 6:10].as_tensor(), data["us"].as_tensor())


@pytest.mark.parametrize("columns_first", [False, True])
def test_a_prediction_becomes_a_mask_of_the_frame_in_a_chain(tmp_path, columns_first):
    drawn = draw(Layout(header=40, margin=12))
    file = tmp_path / "frame.png"
    Image.fromarray(drawn.image.transpose(1, 2, 0)).save(file)
    chain = Compose(
        [
            LoadImaged("image", ensure_channel_first=True, reverse_indexing=columns_first),
            SplitDualPaneld(["image", "label"], columns_first=columns_first, allow_missing_keys=True),
            ScaleIntensityd(["ceus", "us"]),
        ]
    )
    data = chain({"image": str(file)})
    data["pred"] = torch.ones_like(data["ceus"])
    mask = Invertd("pred", chain, orig_keys="ceus", nearest_interp=False)(data)["pred"]
    mask = mask.transpose(1, 2) if columns_first else mask
    assert mask.shape == (1, *drawn.image.shape[1:])
    top, left, height, width = drawn.contrast
    rows, columns = np.nonzero(mask[0].numpy())
    found = rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1
    assert np.abs(np.subtract(found, (top, left, height, width))).max() <= 2


def test_a_label_of_another_size_is_named_with_both_sizes():
    label = MetaTensor(torch.zeros(1, 10, 13), meta={"filename_or_obj": "mask 达峰.png"})
    with pytest.raises(
        PanelError, match=r"mask 达峰.png: .* \(10, 12\) .*, found \(10, 13\); .* never resized"
    ):
        SplitDualPaneld(["image", "label"])({"image": frame(), "label": label, "panels": BOXES})


def test_a_label_may_be_absent_only_where_that_is_allowed():
    data = {"image": frame(), "panels": BOXES}
    with pytest.raises(KeyError):
        SplitDualPaneld(["image", "label"])(data)
    assert "label" not in SplitDualPaneld(["image", "label"], allow_missing_keys=True)(data)


def test_the_file_is_named_where_panels_are_not_found_or_do_not_fit():
    with pytest.raises(PanelError, match=r"frame 7.png: expected a contrast .* give both in panels.json"):
        SplitDualPaneld("image")({"image": MetaTensor(torch.rand(3, 64, 64), meta=frame().meta)})
    large = {"contrast": [2, 1, 5, 4], "bmode": [6, 6, 5, 4]}
    with pytest.raises(
        PanelError, match=r"frame 7.png: .* frame of 10 rows and 12 columns, found \[6, 6, 5, 4\]"
    ):
        SplitDualPaneld("image")({"image": frame(), "panels": large})


def test_given_panels_are_checked():
    panels = given_panels(BOXES)
    assert panels == Panels((2, 1, 5, 4), (2, 6, 5, 4), 1.0)
    assert given_panels(panels) == panels
    assert given_panels({"contrast": [0, 0, 5, 9], "bmode": [5, 0, 5, 9]}).bmode == (5, 0, 5, 9)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "found None"),
        ([[1, 2, 3, 4], [1, 9, 3, 4]], "in whole pixels"),
        ({"contrast": [2, 1, 5, 4]}, "in whole pixels"),
        ({"contrast": [2, 1, 5], "bmode": [2, 6, 5]}, "in whole pixels"),
        ({"contrast": [2, 1, 5, 4.5], "bmode": [2, 6, 5, 4.5]}, "in whole pixels"),
        ({"contrast": [2, 1, 0, 4], "bmode": [2, 6, 0, 4]}, "in whole pixels"),
        ({"contrast": [-2, 1, 5, 4], "bmode": [2, 6, 5, 4]}, "in whole pixels"),
        ({"contrast": [2, 1, 5, 4], "bmode": [2, 6, 5, 5]}, "equal height and width"),
        ({"contrast": [2, 1, 5, 4], "bmode": [2, 4, 5, 4]}, "do not overlap"),
    ],
)
def test_panels_given_in_another_form_are_refused(content, message):
    with pytest.raises(PanelError, match=message):
        given_panels(content)

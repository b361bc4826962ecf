import pytest
import torch
from monai.data import MetaTensor

from transforms import CheckVolumed, ImageError

CHECK = CheckVolumed(["image", "label"], labels=(0, 1, 2), allow_missing_keys=True)


def volume(fill=0.0, shape=(1, 4, 5, 6), name="volume-3.nii"):
    return MetaTensor(torch.full(shape, fill), meta={"filename_or_obj": name})


def test_sound_volumes_pass_and_labels_become_whole_numbers():
    label = volume()
    label[0, 0, 0, :2] = torch.tensor([1.0, 1.9999999])
    data = {"image": volume(-1000), "label": label}
    result = CHECK(data)
    assert result["image"] is data["image"]
    assert torch.unique(result["label"]).tolist() == [0, 1, 2]
    assert CHECK({"image": volume()}).keys() == {"image"}


def test_a_label_that_lies_almost_on_its_image_is_put_there_and_another_refused():
    image, label = volume(), volume()
    image.affine = torch.diag(torch.tensor([0.5, 0.5, 2.0, 1.0]))
    label.affine = image.affine.clone()
    label.affine[0, 3] += 0.3
    assert torch.equal(CHECK({"image": image, "label": label})["label"].affine, image.affine)
    label.affine[0, 0] *= -1
    label.affine[0, 3] = 0
    # The far corner is 3 voxels from the first one, so 6 voxels from its mirror image.
    with pytest.raises(ImageError, match=r"where its image lies, found their affines 6.0 voxels apart"):
        CHECK({"image": image, "label": label})


def test_an_image_of_several_channels_and_a_label_of_one():
    check = CheckVolumed(["image", "label"], labels=(0, 1), allow_missing_keys=True, channels=4)
    data = {"image": volume(shape=(4, 4, 5, 6)), "label": volume(1)}
    assert check(data)["image"] is data["image"]
    with pytest.raises(ImageError, match=r"expected a 3D volume of 4 channels, found .* \(1, 4, 5, 6\)"):
        check({"image": volume()})
    with pytest.raises(ImageError, match="expected one 3D volume, found"):
        check({"image": data["image"], "label": volume(1, shape=(4, 4, 5, 6))})
    with pytest.raises(ImageError, match=r"\(4, 5, 6\), found \(4, 5, 7\)"):
        check({"image": data["image"], "label": volume(shape=(1, 4, 5, 7))})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"image": volume(shape=(1, 4, 5))}, r"volume-3.nii: expected one 3D volume, found .* \(1, 4, 5\)"),
        ({"image": volume(shape=(2, 4, 5, 6))}, "expected one 3D volume"),
        ({"image": volume(float("nan"))}, "expected finite values, found 120 NaN"),
        ({"image": volume(), "label": volume(shape=(1, 4, 5, 7))}, r"\(4, 5, 6\), found \(4, 5, 7\)"),
        ({"image": volume(), "label": volume(255)}, r"expected labels \{0, 1, 2\}, found \[255.0\]"),
        ({"image": volume(), "label": volume(0.5)}, r"found \[0.5\]"),
    ],
)
def test_what_is_wrong_is_named(data, message):
    with pytest.raises(ImageError, match=message):
        CHECK(data)

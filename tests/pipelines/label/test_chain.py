import numpy as np
import pytest
from monai.bundle import ConfigParser
from monai.transforms import Compose
from PIL import Image

from pipelines import datasets
from pipelines.label.chain import annotated
from pipelines.package_configs import flat
from tests.conftest import ROOT, write_volume


def loading_of(bundle, monkeypatch):
    """The chain with which a bundle loads a case, for an annotator's label."""
    monkeypatch.chdir(ROOT)
    config = flat(f"bundles/{bundle}/train.json")
    config["loading"] = annotated(
        config["loading"], config["validate"]["inferer"]["_target_"] == "SliceInferer"
    )
    return Compose(ConfigParser(config).get_parsed_content("loading"))


@pytest.mark.parametrize("bundle", ["lits", "brain_tumour"])
def test_a_volume_and_its_label_become_an_image_and_a_mask(bundle, tmp_path, monkeypatch):
    channels = {"lits": (), "brain_tumour": (4,)}[bundle]
    image, mask = np.zeros((12, 10, 5, *channels), np.int16), np.zeros((12, 10, 5), np.uint8)
    image[1:9, 2:8] = 100
    mask[3:5, 4:7, 2] = 1
    case = {
        "image": write_volume(tmp_path / "image.nii.gz", image),
        "label": write_volume(tmp_path / "label.nii.gz", mask),
    }
    found = loading_of(bundle, monkeypatch)(case)
    assert np.array_equal(found["label"][0].numpy() > 0, mask > 0)
    assert found["image"].shape == ((*channels, 12, 10, 5) if channels else (1, 12, 10, 5))


def write_mask(image, path):
    """A mask of a picture's size with a rectangle that lies to one side; in x and y."""
    mask = np.zeros(image.shape[1:], np.uint8)
    mask[5:9, 3:11] = 1
    Image.fromarray(mask.T).save(path)
    return mask


@pytest.mark.parametrize("bundle", ["dce_us", "inbreast"])
def test_a_picture_and_its_label_become_an_image_and_a_mask(bundle, tmp_path, monkeypatch):
    datasets.get(bundle).phantom(tmp_path / "data", cases=2, seed=0, size=96)
    case = datasets.get(bundle).index(str(tmp_path / "data"))[0]
    image = loading_of(bundle, monkeypatch)({"image": case["image"]})["image"]
    mask = write_mask(image, tmp_path / "label.png")
    found = loading_of(bundle, monkeypatch)({"image": case["image"], "label": str(tmp_path / "label.png")})
    assert np.array_equal(found["label"][0].numpy() > 0, mask > 0)

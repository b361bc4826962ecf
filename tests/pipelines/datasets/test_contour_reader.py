from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImaged
from skimage.draw import polygon

from pipelines.cases import load_case
from pipelines.datasets.contour_reader import ContourReader
from pipelines.datasets.inbreast_writers import write_contours
from pipelines.errors import DataError
from tests.pipelines.mammogram_files import HEIGHT, WIDTH, write

OUTLINE = np.array([(4.0, 6), (25, 6), (25, 20), (9, 30)])
SPOT = np.array([(15.0, 12)])


def load(label, **options):
    loader = LoadImaged("label", reader=ContourReader(**options), ensure_channel_first=True)
    return load_case({"label": [str(file) for file in label]}, loader)["label"]


@pytest.fixture
def label(tmp_path):
    """A mammogram with a mass, a calcification on it and a region about both."""
    region = OUTLINE * 1.25 - 3
    rois = [("Calcification", SPOT), ("Mass", OUTLINE), ("Spiculated Region", region)]
    write_contours(tmp_path / "a.xml", rois)
    return [write(tmp_path / "a.dcm"), tmp_path / "a.xml"]


def upright(label):
    return label[0].numpy().T


def filled(points):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[polygon(points[:, 1], points[:, 0], mask.shape)] = True
    return mask


def test_it_lies_on_its_mammogram(label):
    mask = load(label)
    assert mask.shape == (1, WIDTH, HEIGHT)
    assert sorted(mask.unique().tolist()) == [0, 1, 2, 3]
    np.testing.assert_array_equal(np.isin(upright(mask), (1, 2)), filled(OUTLINE))
    np.testing.assert_array_equal(upright(mask) > 0, filled(OUTLINE) | filled(OUTLINE * 1.25 - 3))
    assert upright(mask)[12, 15] == 2


def test_a_mass_alone_has_no_hole_where_a_calcification_lies(label):
    np.testing.assert_array_equal(upright(load(label, classes=[1])) == 1, filled(OUTLINE))
    calcification = upright(load(label, classes=[2]))
    assert calcification[12, 15] == 2
    assert set(np.unique(calcification)) == {0, 2}
    assert np.count_nonzero(calcification) == 37  # pixels within 0.25 mm of one, of 0.07 mm each
    both = upright(load(label, classes=[2, 1]))
    assert set(np.unique(both)) == {0, 1, 2}


def test_an_image_without_contours_has_an_empty_mask_of_its_size(label):
    mask = load(label[:1])
    assert mask.shape == (1, WIDTH, HEIGHT)
    assert not mask.any()


def test_the_metadata_name_the_image_and_say_nothing_else(label):
    meta = load(label).meta
    assert meta["filename_or_obj"] == str(label[0])
    assert set(meta) <= {"filename_or_obj", "spatial_shape", "original_channel_dim", "affine", "space"}
    assert torch.equal(load(label).affine, torch.eye(4, dtype=torch.float64))


def test_the_file_at_fault_is_named(label):
    image, contours = label
    whole = contours.read_bytes()
    contours.write_bytes(whole[:-90])
    with pytest.raises(DataError, match=r"a\.xml: expected a whole property list"):
        load(label)
    contours.write_bytes(whole.replace(b"Mass", b"Lump"))
    with pytest.raises(DataError, match=r"a\.xml: expected a contour named Mass, .* found 'Lump'"):
        load(label)
    contours.write_bytes(whole.replace(b"(15.000000", b"(915.000000"))
    with pytest.raises(DataError, match=r"a\.xml: contour .*within the image of 40x51 pixels"):
        load(label)
    contours.unlink()
    with pytest.raises(DataError, match=r"a\.xml.*no such file"):
        load(label)
    image.write_bytes(image.read_bytes()[:400])
    with pytest.raises(DataError, match=r"a\.dcm: expected"):
        load(label)


def test_a_bug_elsewhere_is_not_blamed_on_contours_that_cannot_be_read_alone(label):
    def broken(data):
        raise ZeroDivisionError

    chain = [LoadImaged("label", reader=ContourReader()), broken]
    with pytest.raises(RuntimeError, match="applying transform"):
        load_case({"label": [str(file) for file in label]}, Compose(chain))


@pytest.mark.parametrize("classes", [[], [0], [1, 4]])
def test_classes_that_there_are_not(classes):
    with pytest.raises(DataError, match=r"expected some of the classes \[1, 2, 3\] to draw"):
        ContourReader(classes)


def test_too_many_files(label):
    with pytest.raises(DataError, match="found 3 files"):
        load([*label, label[1]])

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.data import get_testdata_file

from pipelines.errors import DataError
from pipelines.label import labels
from tests.conftest import write_volume

AFFINE = np.array(
    [[-0.7, 0.0, 0.0, 10.0], [0.0, 0.7, 0.0, 20.0], [0.0, 0.0, 2.5, -30.0], [0.0, 0.0, 0.0, 1.0]]
)
SHAPE = (20, 24, 9)


@pytest.fixture
def volume(tmp_path):
    """A volume and a mask of a lesion in slices 4 to 6 that lies to one side."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:6, 5:9, 4:7] = 1
    mask[3, 5, 4] = 0  # no two of its mirror images are the same
    return write_volume(tmp_path / "volume-1.nii.gz", np.zeros(SHAPE, np.int16), AFFINE), mask


@pytest.fixture
def picture(tmp_path):
    mask = np.zeros((30, 20), np.uint8)  # x, y
    mask[4:9, 10:13] = 1
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png", mask


def refused(label, image, name="volume-1"):
    with pytest.raises(DataError) as error:
        labels.read(label, image, name)
    return str(error.value)


def test_a_label_on_its_image_is_read_as_it_is(tmp_path, volume):
    image, mask = volume
    label = write_volume(tmp_path / "label.nii.gz", mask, AFFINE)
    assert np.array_equal(labels.read(label, image), mask)


@pytest.mark.parametrize("name", ["part.nii.gz", "part.nii", "part.nrrd"])
def test_the_slices_of_a_dicom_seg_are_put_where_they_belong(tmp_path, volume, name):
    # Stored as DICOM SEG, a label comes back with its slices that are not empty, some writers' upside down.
    image, mask = volume
    affine = AFFINE.copy()
    affine[:3, 2] *= -1
    affine[:3, 3] = (AFFINE @ [0, 0, 6, 1])[:3]
    part = write_volume(tmp_path / "part.nii.gz", mask[:, :, 6:3:-1], affine)
    label = tmp_path / name
    sitk.WriteImage(sitk.ReadImage(part), str(label))
    found = labels.read(label, image)
    assert found.shape == SHAPE and np.array_equal(found, mask)


def test_axes_in_another_order_are_put_in_that_of_the_image(tmp_path, volume):
    image, mask = volume
    affine = AFFINE[:, [1, 2, 0, 3]]
    label = write_volume(tmp_path / "label.nii.gz", mask.transpose(1, 2, 0), affine)
    assert np.array_equal(labels.read(label, image), mask)


@pytest.mark.parametrize("name", ["cut.nii.gz", "cut.nii", "cut.nrrd", "cut.png"])
def test_a_label_that_is_cut_off_is_refused(tmp_path, volume, picture, name):
    if name.endswith(".png"):
        (image, mask), label = picture, tmp_path / "label.png"
        labels.write(mask, image, label)
    else:
        (image, mask), label = volume, tmp_path / f"label{labels.ending(name)}"
        sitk.WriteImage(sitk.ReadImage(write_volume(tmp_path / "whole.nii.gz", mask, AFFINE)), str(label))
    whole = label.read_bytes()
    # Of so small a PNG all pixels are there when only its end is missing.
    for length in (len(whole) // 2, 0, *([] if name.endswith(".png") else [len(whole) - 20])):
        (tmp_path / name).write_bytes(whole[:length])
        assert refused(tmp_path / name, image).startswith("volume-1: expected a whole file (.nii, .nii.gz, ")


def test_another_size_is_refused_and_never_resized(tmp_path, volume, picture):
    image, mask = volume
    label = write_volume(tmp_path / "label.nii.gz", np.repeat(mask, 2, 0), AFFINE @ np.diag([0.5, 1, 1, 1]))
    assert "image's size, 20 x 24 x 9, found 40 x 24 x 9; a label is never resized" in refused(label, image)
    for slices in (slice(2, 9), slice(4, 8)):  # an empty one at an end: not what DICOM SEG leaves
        part = AFFINE.copy()
        part[:3, 3] = (AFFINE @ [0, 0, slices.start, 1])[:3]
        label = write_volume(tmp_path / "label.nii.gz", mask[:, :, slices], part)
        assert "image's size, 20 x 24 x 9, found 20 x 24 x " in refused(label, image)
    longer = write_volume(tmp_path / "longer.nii.gz", np.pad(mask, ((0, 0), (0, 0), (0, 2))), AFFINE)
    assert "found 20 x 24 x 11" in refused(longer, image)
    flat = write_volume(tmp_path / "flat.nii.gz", mask[:, :, 4], AFFINE)
    assert "found 20 x 24;" in refused(flat, image)
    Image.fromarray(picture[1]).save(tmp_path / "turned.png")
    assert "image's size, 30 x 20, found 20 x 30" in refused(tmp_path / "turned.png", picture[0])
    assert "image's size, 30 x 20, found 20 x 24 x 9" in refused(
        write_volume(tmp_path / "volume.nii.gz", mask, AFFINE), picture[0]
    )


def test_a_label_that_lies_elsewhere_is_refused(tmp_path, volume):
    image, mask = volume
    for millimetres, found in ((1.0, "whose voxels are not the image's"), (10.0, "some of it outside")):
        affine = AFFINE.copy()
        affine[2, 3] += millimetres
        assert found in refused(write_volume(tmp_path / "label.nii.gz", mask, affine), image)


@pytest.mark.parametrize("values", [[0, 2], [0, 1, 2], [0, 255], [0, 0.5]])
def test_values_of_which_nobody_knows_the_meaning_are_refused(tmp_path, volume, values):
    image, _ = volume
    other = np.zeros(SHAPE, np.float32)
    other.flat[: len(values)] = values
    label = write_volume(tmp_path / "label.nii.gz", other, AFFINE)
    assert "expected 0 for background and 1 for the lesion, found the values 0, " in refused(label, image)


def test_an_empty_label_says_that_there_is_no_lesion(tmp_path, volume):
    image, mask = volume
    label = write_volume(tmp_path / "label.nii.gz", mask * 0, AFFINE)
    assert not labels.read(label, image).any()


@pytest.mark.parametrize("white", [1, 255])
def test_a_picture_has_a_picture_for_its_label(tmp_path, picture, white):
    image, mask = picture
    Image.fromarray(mask.T * np.uint8(white)).save(tmp_path / "label.png")
    assert np.array_equal(labels.read(tmp_path / "label.png", image), mask)


def test_a_picture_may_have_a_volume_of_one_slice_for_its_label(tmp_path, picture):
    image, mask = picture
    label = write_volume(tmp_path / "label.nii.gz", mask[..., None], np.diag([-1.0, -1.0, 1.0, 1.0]))
    assert np.array_equal(labels.read(label, image), mask)


def test_written_it_has_the_geometry_of_its_image_and_reads_the_same(tmp_path, volume, picture):
    for (image, mask), name in ((volume, "out.nii.gz"), (picture, "out.png")):
        labels.write(mask, image, tmp_path / name)
        assert np.array_equal(labels.read(tmp_path / name, image), mask)
        assert labels.label_ending(image) == labels.ending(name)
    header, own = nib.load(volume[0]).header, nib.load(tmp_path / "out.nii.gz").header
    for field in ("srow_x", "srow_y", "srow_z", "pixdim", "sform_code", "qform_code", "qoffset_x"):
        assert np.array_equal(header[field], own[field])


def test_a_dicom_picture_has_the_size_of_its_header():
    assert labels.grid_of(get_testdata_file("CT_small.dcm")) == labels.Grid((128, 128))


def test_an_image_that_is_not_there_or_none_is_refused(tmp_path):
    with pytest.raises(DataError, match="found no such file"):
        labels.grid_of(tmp_path / "nothing.nii.gz")
    for name in ("a.nii.gz", "a.png", "a.nrrd"):
        (tmp_path / name).write_bytes(b"no image")
        with pytest.raises(DataError, match="expected a whole image"):
            labels.grid_of(tmp_path / name)

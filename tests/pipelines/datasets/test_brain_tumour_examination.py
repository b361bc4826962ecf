from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from pipelines.datasets import brain_tumour_examination as examinations
from pipelines.datasets.brain_tumour_anatomy import Tumour


def in_mm(mask, affine):
    """Where a mask's middle lies in the scanner."""
    return nib.affines.apply_affine(affine, ndimage.center_of_mass(mask))


def test_the_decathlons_grid_shows_240_by_240_by_155_mm_from_0():
    drawn = examinations.decathlon(1, 0, 48)
    assert len({grid.shape for grid in drawn.grids}) == 1
    assert drawn.labels.shape == (48, 48, 28)
    assert np.allclose(nib.affines.voxel_sizes(drawn.affine) * drawn.labels.shape, (240, 240, 155))
    assert nib.aff2axcodes(drawn.affine) == ("R", "A", "S")
    assert np.array_equal(drawn.affine[:3, 3], (0, 0, 0))


def test_brats_is_the_same_patient_with_two_axes_the_other_way_about():
    one, other = examinations.decathlon(2, 0, 48), examinations.brats(2, 0, 48)
    assert nib.aff2axcodes(other.affine) == ("L", "P", "S")
    # The grids are half a voxel apart, since each counts from its own corner.
    assert np.mean((one.labels > 0) != (other.labels[::-1, ::-1] > 0)) < 0.01


def test_a_hospitals_sequences_lie_on_three_grids_and_show_one_patient():
    drawn = examinations.hospital(1, 0, 48)
    flair, t1, t1gd, t2 = drawn.grids
    assert [grid.shape for grid in drawn.grids] == [(39, 48, 26), (48, 42, 26), (48, 42, 26), (42, 48, 26)]
    assert t1 is t1gd
    assert np.array_equal(drawn.affine, t1gd.affine)
    assert np.degrees(np.arctan2(flair.affine[2, 1], flair.affine[1, 1])) > 8
    assert not np.allclose(flair.affine, t2.affine)
    middles = [in_mm(image > 0, grid.affine) for image, grid in zip(drawn.images, drawn.grids, strict=True)]
    assert np.ptp(middles, axis=0).max() < 5  # mm; the outer slices cut off different parts of the brain


def test_seed_and_number_decide_everything_but_the_kind_can_be_chosen():
    first, again = (examinations.decathlon(3, 5, 32) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first.images, again.images, strict=True))
    for other in (examinations.decathlon(4, 5, 32), examinations.decathlon(3, 6, 32)):
        assert not np.array_equal(first.labels, other.labels)
    assert 3 not in first.labels
    assert 3 in examinations.decathlon(3, 5, 32, examinations.GLIOBLASTOMA).labels


@pytest.mark.parametrize("kind", [Tumour(enhancing=False, edema=False), Tumour(lesions=2)])
def test_a_dozen_holds_every_kind(kind):
    assert kind in examinations.TUMOURS
    assert len(examinations.TUMOURS) == 12

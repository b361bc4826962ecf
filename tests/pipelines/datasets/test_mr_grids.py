from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipelines.datasets import mr_grids
from pipelines.datasets.mr_grids import Grid
from pipelines.errors import DataError
from tests.conftest import write_volume


def grid(shape=(8, 9, 5), affine=None, name="a.nii"):
    return Grid(Path(name), shape, np.diag((2.0, 2, 5, 1)) if affine is None else affine)


def shifted(distance, axis=0):
    affine = np.diag((2.0, 2, 5, 1))
    affine[axis, 3] += distance
    return affine


def test_what_is_resampled_is_named_in_the_order_of_the_channels():
    fixed, other = grid(), grid((7, 9, 5))
    assert mr_grids.registration([fixed] * 4, 2) == ""
    assert mr_grids.registration([other], 2) == ""
    said = mr_grids.registration([other, fixed, fixed, grid(affine=shifted(1))], 2)
    assert said == "registered by header only: FLAIR 7x9x5, T2w 8x9x5 -> T1gd 8x9x5"
    assert mr_grids.registration([other, fixed, fixed, other], 0).endswith(
        "T1w 8x9x5, T1gd 8x9x5 -> FLAIR 7x9x5"
    )


@pytest.mark.parametrize(("distance", "same"), [(0, True), (0.01, True), (0.03, False), (-2, False)])
def test_rounded_headers_are_one_grid(distance, same):
    assert mr_grids.same(grid(), grid(affine=shifted(distance))) == same


def test_a_voxel_is_seen_where_its_centre_lies_in_the_other_grids_voxels():
    seen = mr_grids.seen(grid(), grid(affine=shifted(3.9)))  # 1.95 voxels: the centre of number 1 is left out
    assert np.flatnonzero(seen.all(axis=(1, 2))).tolist() == [2, 3, 4, 5, 6, 7]
    seen = mr_grids.seen(grid(), grid((8, 9, 2), shifted(5, axis=2)))
    assert np.flatnonzero(seen.all(axis=(0, 1))).tolist() == [1, 2]
    assert not mr_grids.seen(grid(), grid(affine=shifted(20))).any()


def test_a_turned_grid_sees_what_a_search_over_all_voxels_finds():
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, -1]]) @ np.diag((1.5, 1, 4))
    fixed, other = grid(), grid((6, 7, 4), nib.affines.from_matvec(turn, (4, 2, 14)))
    seen = mr_grids.seen(fixed, other)
    for index in np.ndindex(*fixed.shape):
        there = nib.affines.apply_affine(np.linalg.inv(other.affine) @ fixed.affine, index)
        assert seen[index] == all(-0.5 <= there[i] <= n - 0.5 for i, n in enumerate(other.shape))
    assert 0.1 < seen.mean() < 0.9


@pytest.mark.parametrize("name", ["T1gd", "t1gd", "T1GD"])
def test_a_sequence_is_known_in_any_case(name):
    assert mr_grids.number_of(name) == 2


def test_an_unknown_sequence_is_answered_with_the_known_ones():
    with pytest.raises(DataError, match="sequences FLAIR, T1w, T1gd, T2w, found 't1ce'"):
        mr_grids.number_of("t1ce")


def test_grids_of_one_file_and_of_four(tmp_path):
    affine = np.diag((2.0, 2, 5, 1))
    whole = write_volume(tmp_path / "whole.nii.gz", np.zeros((5, 6, 7, 4), np.float32), affine)
    part = write_volume(tmp_path / "part.nii", np.zeros((5, 6, 7), np.int16), affine)
    (found,) = mr_grids.read_grids([Path(whole)])
    assert (found.shape, found.size) == ((5, 6, 7), "5x6x7")
    assert np.array_equal(found.affine, affine)
    assert len(mr_grids.read_grids([Path(part)] * 4)) == 4


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            [(5, 6, 7)],
            r"0.nii: expected FLAIR, T1w, T1gd, T2w as the last of four axes, .* \(5, 6, 7\); where each",
        ),
        ([(4, 5, 6, 7)], r"found shape \(4, 5, 6, 7\)"),
        ([(5, 6, 7, 3)], r"found shape \(5, 6, 7, 3\)"),
        ([(5, 6, 7)] * 3, r"one file each of FLAIR, T1w, T1gd, T2w, found 3 files, the first .*0\.nii"),
        ([(5, 6, 7)] * 3 + [(5, 6, 7, 2)], r"3.nii: expected one sequence of three axes"),
        ([], "found 0 files"),
    ],
)
def test_other_axes_are_named(tmp_path, shapes, message):
    files = []
    for number, shape in enumerate(shapes):
        files.append(Path(write_volume(tmp_path / f"{number}.nii", np.zeros(shape, np.int16))))
    with pytest.raises(DataError, match=message):
        mr_grids.read_grids(files)


def test_a_file_that_is_missing_or_no_nifti_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a NIfTI file at .*none\.nii, found none"):
        mr_grids.read_grids([tmp_path / "none.nii"])
    (tmp_path / "text.nii.gz").write_text("no image")
    with pytest.raises(DataError, match=r"text\.nii\.gz: expected a whole NIfTI file"):
        mr_grids.read_grids([tmp_path / "text.nii.gz"])


def test_an_affine_that_says_nothing_is_named(tmp_path):
    image = nib.Nifti1Image(np.zeros((5, 6, 7, 4), np.float32), None)
    image.header["sform_code"], image.header["srow_x"] = 1, 0
    nib.save(image, tmp_path / "flat.nii")
    with pytest.raises(DataError, match=r"flat\.nii: expected an affine that can be inverted"):
        mr_grids.read_grids([tmp_path / "flat.nii"])

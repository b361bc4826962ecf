import gzip
from pathlib import Path

import numpy as np
import pytest

from pipelines.cases import CaseDataset, load_case
from pipelines.errors import DataError
from tests.chains import KEYS, LOAD
from tests.conftest import write_volume


def test_a_sound_case_is_loaded(cases):
    assert CaseDataset(cases, LOAD)[0]["image"].shape == (1, 24, 20, 8)


@pytest.mark.parametrize("key", KEYS)
def test_a_file_that_is_cut_short_is_named(cases, key):
    path = Path(cases[0][key])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=rf"{path.name}: expected a whole image file.*download or export it"):
        load_case(cases[0], LOAD)


def test_a_file_that_is_no_image_and_a_missing_one_are_named(cases):
    Path(cases[0]["image"]).write_bytes(gzip.compress(b"no image"))
    with pytest.raises(DataError, match=r"volume-0.nii.gz: expected a whole image file"):
        load_case(cases[0], LOAD)
    Path(cases[1]["image"]).unlink()
    with pytest.raises(DataError, match=r"volume-1.nii.gz: expected a whole image file"):
        load_case(cases[1], LOAD)


def test_what_a_check_finds_arrives_as_one_line(cases, tmp_path):
    cases[0]["label"] = write_volume(tmp_path / "other.nii.gz", np.zeros((24, 20, 9), np.uint8))
    with pytest.raises(
        DataError, match=r"other.nii.gz: expected the shape of its image, \(24, 20, 8\)"
    ) as caught:
        load_case(cases[0], LOAD)
    assert "\n" not in str(caught.value)


def test_a_bug_in_a_transform_is_not_taken_for_bad_data(cases):
    def broken(case):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        load_case(cases[0], broken)

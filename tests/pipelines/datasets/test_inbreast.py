from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines import folds
from pipelines.datasets import inbreast
from pipelines.datasets.fingerprint import fingerprint
from pipelines.datasets.inbreast_contours import draw
from pipelines.datasets.inbreast_phantom import draw as draw_image
from pipelines.datasets.inbreast_phantom import phantom
from pipelines.errors import DataError

SIZE = 96


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inbreast") / "phantom"
    phantom(folder, cases=3, size=SIZE, progress=False)
    return folder


@pytest.fixture
def root(source, tmp_path):
    """A copy by links, of which files can be removed."""
    for path in source.rglob("*"):
        target = tmp_path / path.relative_to(source)
        if path.is_dir():
            target.mkdir(parents=True)
        elif path.name != "PHANTOM.json":
            target.hardlink_to(path)
    return tmp_path


def file(root, case, folder="AllDICOMs"):
    (path,) = root.glob(f"*/{folder}/{case}*")
    return path


class TestIndex:
    def test_an_image_with_its_contours(self, source):
        found = inbreast.index(source)
        assert len(found) == 4 + 2 + 3
        first = found[0]
        image = Path(first["image"])
        assert first == {
            "case": image.name[:8],
            "patient": image.name.split("_")[1],
            "image": str(image),
            "label": [str(image), str(image.parents[1] / "AllXML" / f"{image.name[:8]}.xml")],
            "side": "R",
            "view": "CC",
        }
        assert [case["case"] for case in found] == sorted(case["case"] for case in found)
        assert inbreast.index(source / "INbreast Release 1.0") == found

    def test_a_normal_image_is_its_own_label_and_can_be_left_out(self, source):
        found = inbreast.index(source)
        normal = [case for case in found if len(case["label"]) == 1]
        assert len(normal) == 2
        assert all(case["label"] == [case["image"]] for case in normal)
        assert inbreast.index(source, normal=False) == [case for case in found if case not in normal]

    def test_without_labels_no_contours_are_needed(self, root):
        plain = [{k: v for k, v in case.items() if k != "label"} for case in inbreast.index(root)]
        for path in (root / "INbreast Release 1.0/AllXML").iterdir():
            path.unlink()
        (root / "INbreast Release 1.0/AllXML").rmdir()
        assert inbreast.index(root, labelled=False) == plain
        with pytest.raises(DataError, match=r"expected the contours in AllXML .*featherseg check inbreast"):
            inbreast.index(root)

    def test_what_is_wrong_is_told_with_the_way_to_see_all(self, root):
        case = inbreast.index(root)[0]
        Path(case["image"]).unlink()
        with pytest.raises(
            DataError, match=rf"a mammogram {case['case']}_.*featherseg check inbreast {root}"
        ):
            inbreast.index(root)
        assert len(inbreast.index(root, labelled=False)) == 8

    @pytest.mark.parametrize("labelled", [True, False])
    def test_a_name_that_tells_no_patient_is_an_error(self, root, labelled):
        image = Path(inbreast.index(root)[1]["image"])
        image.rename(image.with_name("image.dcm"))
        with pytest.raises(DataError, match="expected a name such as 20586908_"):
            inbreast.index(root, labelled)

    def test_a_fold_holds_out_whole_patients(self, source):
        cases = inbreast.index(source)
        dealt = folds.split(cases, 3)
        assert sorted(len(folds.held_out_cases(cases, dealt, fold)) for fold in range(3)) == [2, 3, 4]

    def test_the_fingerprint_sees_contours(self, root):
        cases = inbreast.index(root)
        before = fingerprint(cases)
        contours = Path(next(case["label"][1] for case in cases if len(case["label"]) == 2))
        content = contours.read_bytes()
        contours.unlink()
        contours.write_bytes(content.replace(b"Mass", b"mass"))
        assert fingerprint(cases) != before


class TestRead:
    def test_grey_levels_and_the_mask_of_the_targets(self, source):
        case = next(case for case in inbreast.index(source) if len(case["label"]) == 2)
        levels, rois, pixel = draw_image(1, 0, 0, SIZE)
        values, mask, spacing = inbreast.read(case, [1, 2])
        white = np.percentile(levels, 99.9)
        np.testing.assert_allclose(values, np.minimum(levels / white, 1) * 255, atol=0.01)
        assert values.dtype == np.float32
        assert (values.min(), values.max()) == (0, 255)
        drawn = draw(case["label"][1], levels.shape, (pixel, pixel))
        np.testing.assert_array_equal(mask, np.isin(drawn, (1, 2)))
        assert mask.dtype == bool
        assert spacing == (1, 1)
        masses, calcifications = (inbreast.read(case, [label])[1] for label in (1, 2))
        np.testing.assert_array_equal(mask, masses | calcifications)
        assert masses.any()
        assert calcifications.any()
        assert len(rois) > 2

    def test_a_normal_image_has_an_empty_mask(self, source):
        case = next(case for case in inbreast.index(source) if len(case["label"]) == 1)
        values, mask, _ = inbreast.read(case, [1, 2])
        assert mask.shape == values.shape
        assert not mask.any()

    def test_a_file_that_cannot_be_read_is_named(self, root):
        case = inbreast.index(root)[0]
        for path in case["label"][::-1]:
            whole = Path(path).read_bytes()
            Path(path).unlink()
            Path(path).write_bytes(whole[: len(whole) // 2])
            with pytest.raises(DataError, match=rf"{Path(path).name}: expected a whole"):
                inbreast.read(case, [1])


def test_it_is_imported_without_the_heavy_imports():
    code = "import sys, pipelines.datasets.inbreast; sys.exit('monai.transforms' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

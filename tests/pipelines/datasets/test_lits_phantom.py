from __future__ import annotations

import hashlib

import nibabel as nib
import numpy as np
import pytest

from pipelines.datasets import lits
from pipelines.datasets.lits_phantom import has_lesions, look_of, phantom
from pipelines.errors import DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "lits"
    assert phantom(folder)
    return folder


@pytest.fixture(scope="module")
def images(root):
    return [{key: nib.load(case[key]) for key in ("image", "label")} for case in lits.index(root)]


def digests(root):
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_check_finds_the_traps_and_nothing_wrong(root):
    found = [(f.severity, f.kind, f.case) for f in lits.check(root)]
    assert found == [
        ("note", "padding", "volume-3"),
        ("note", "no-lesion", "volume-4"),
        ("note", "identity", "volume-7"),
    ]


def test_layout_is_that_of_the_download(root, images):
    assert len(images) == 12
    names = {path.relative_to(root).as_posix() for path in root.rglob("*.nii*")}
    assert {"Training Batch 1/volume-0.nii.gz", "Training Batch 2/segmentation-11.nii"} <= names
    assert sum(name.endswith(".gz") for name in names) == 16
    assert len(names) == 24


def test_volumes_and_masks_share_their_geometry(images):
    for case in images:
        assert case["image"].get_data_dtype() == np.int16
        assert case["image"].shape == case["label"].shape
        assert np.array_equal(case["image"].affine, case["label"].affine)
        assert set(np.unique(case["label"].dataobj)) <= {0, 1, 2}


def test_geometry_varies_as_in_the_real_data(images):
    codes = ["".join(nib.aff2axcodes(case["image"].affine)) for case in images]
    assert {"LPS", "RAS", "LAS", "RPS", "LPI", "ALS"} <= set(codes)
    canonical = [nib.as_closest_canonical(case["image"]) for case in images]
    shapes = np.array([image.shape for image in canonical])
    assert (shapes[:, :2].min(), shapes[:, :2].max()) == (112, 144)
    assert (shapes[:, 0] != shapes[:, 1]).any()
    assert 24 <= shapes[:, 2].min() < shapes[:, 2].max() <= 40
    thickness = [image.header.get_zooms()[2] for image in canonical]
    assert (min(thickness), max(thickness)) == (1, 5)


def test_a_padded_volume_has_its_circle_and_some_slices_are_without_a_lesion(images):
    padded = [np.asarray(case["image"].dataobj) for case in images if np.min(case["image"].dataobj) < -1024]
    assert len(padded) == 1
    assert (padded[0][[0, 0, -1, -1], [0, -1, 0, -1]] == -2048).all()
    assert padded[0][padded[0].shape[0] // 2, padded[0].shape[1] // 2].min() > -1024
    lesions = [np.asarray(nib.as_closest_canonical(case["label"]).dataobj) == 2 for case in images]
    assert [lesion.any() for lesion in lesions].count(False) == 1
    slices = np.concatenate([lesion.any(axis=(0, 1)) for lesion in lesions])
    assert 0.4 < slices.mean() < 0.8


def test_lesions_have_6_to_30_pixels_with_a_minority_of_small_ones(images):
    from skimage.measure import label, regionprops

    sizes = []
    for case in images:
        pieces = label(np.asarray(nib.as_closest_canonical(case["label"]).dataobj) == 2)
        assert pieces.max() <= 6
        sizes += [
            max(region.equivalent_diameter_area for region in regionprops(label(pieces[..., k] == number)))
            for number in range(1, pieces.max() + 1)
            for k in [np.argmax((pieces == number).sum(axis=(0, 1)))]
        ]
    assert 12 < np.median(sizes) < 25
    assert 25 < max(sizes) < 40
    assert np.mean(np.array(sizes) < 6) < 0.25


def test_no_fixed_band_of_hu_finds_the_lesions(images):
    edges = np.arange(-50, 252, 4)

    def histograms(case):
        hu, lesion = np.asarray(case["image"].dataobj), np.asarray(case["label"].dataobj) == 2
        pairs = (np.cumsum(np.histogram(part, edges)[0]) for part in (hu[lesion], hu))
        return [np.concatenate([[0], part]) for part in pairs] + [lesion.sum()]

    def dices(case):  # of the band from every edge to every other
        hit, found, true = histograms(case)
        return 2 * (hit[None] - hit[:, None]) / np.maximum(found[None] - found[:, None] + true, 1)

    with_lesion = [case for number, case in enumerate(images) if number != 4]
    for held_out in (0, 1):
        training = np.mean([dices(case) for case in with_lesion[1 - held_out :: 2]], axis=0)
        best = np.unravel_index(np.argmax(training), training.shape)
        score = np.mean([dices(case)[best] for case in with_lesion[held_out::2]])
        assert training[best] > 0.1  # the search works
        assert score < 0.45


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        phantom(tmp_path / name, cases=3, seed=seed, size=48)
    first, again, other = (digests(tmp_path / name) for name in "abc")
    assert first == again
    assert len(set(first.values()) & set(other.values())) == 0


def test_a_case_does_not_depend_on_how_many_there_are(tmp_path):
    phantom(tmp_path / "few", cases=2, size=48)
    phantom(tmp_path / "many", cases=4, size=48)
    few, many = digests(tmp_path / "few"), digests(tmp_path / "many")
    shared = [name for name in few if name.name != "PHANTOM.json"]
    assert len(shared) == 4
    assert all(few[name] == many[name] for name in shared)


def test_a_varied_phantom_differs_in_the_image_of_two_of_five_cases(tmp_path):
    for looks in ("portal", "varied"):
        phantom(tmp_path / looks, cases=5, size=48, looks=looks)
    plain, varied = digests(tmp_path / "portal"), digests(tmp_path / "varied")
    differing = sorted(name.name for name in plain if plain[name] != varied[name])
    assert differing == ["PHANTOM.json", "volume-3.nii.gz", "volume-4.nii.gz"]
    looks = ["portal", "portal", "portal", "arterial", "fatty"]
    assert [look_of(number, "varied") for number in range(10)] == looks * 2
    assert {look_of(number, "portal") for number in range(10)} == {"portal"}


def test_who_has_a_lesion_is_known_without_reading(images):
    found = [bool((np.asarray(case["label"].dataobj) == 2).any()) for case in images]
    assert found == [has_lesions(number) for number in range(12)]
    assert has_lesions(15) and not has_lesions(16)


def test_looks_that_there_are_not_are_refused(tmp_path):
    with pytest.raises(DataError, match="expected --looks portal or varied, found 'venous'"):
        phantom(tmp_path / "a", looks="venous")
    assert not (tmp_path / "a").exists()


def test_the_same_request_again_does_nothing(tmp_path):
    assert phantom(tmp_path / "a", cases=1, size=48)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert not phantom(tmp_path / "a", cases=1, size=48)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert phantom(tmp_path / "a", cases=1, size=56)


@pytest.mark.parametrize("options", [{"cases": 0}, {"seed": -1}, {"size": 47}, {"size": 513}])
def test_options_out_of_range_are_refused(tmp_path, options):
    with pytest.raises(DataError, match="expected at least 1 case"):
        phantom(tmp_path / "a", **options)
    assert not (tmp_path / "a").exists()


def test_a_folder_with_other_data_is_kept(tmp_path):
    (tmp_path / "volume-0.nii").touch()
    with pytest.raises(DataError, match="choose another --out"):
        phantom(tmp_path, cases=1, size=48)
    assert [path.name for path in tmp_path.iterdir()] == ["volume-0.nii"]

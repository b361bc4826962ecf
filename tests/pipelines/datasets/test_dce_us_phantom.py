from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pipelines.datasets.dce_us_phantom import BLUE, WHITE, YELLOW, image, phantom
from pipelines.errors import DataError

NUMBERS = range(1, 13)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "dce_us"
    assert phantom(folder, size=128)
    return folder


@pytest.fixture(scope="module")
def views():
    """Both views of a dozen patients, without calipers."""
    return {(n, view): image(n, view, calipers=False) for n in NUMBERS for view in (1, 2)}


def digests(root):
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_layout_has_two_views_a_patient_with_a_mask_each(root):
    names = {f"Patient{n:03d}_img{view}.png" for n in NUMBERS for view in (1, 2)}
    assert {path.name for path in root.iterdir()} == {"images", "masks", "PHANTOM.json"}
    assert {path.name for path in (root / "images").iterdir()} == names
    assert {path.name for path in (root / "masks").iterdir()} == names


def test_pictures_are_rgb_of_varying_size_and_masks_of_varying_mode(root):
    sizes, modes = set(), []
    for path in (root / "images").iterdir():
        with Image.open(path) as picture, Image.open(root / "masks" / path.name) as mask:
            assert picture.mode == "RGB"
            assert mask.size == picture.size
            sizes.add(picture.size)
            modes.append(mask.mode)
            assert set(np.unique(mask)) == ({False, True} if mask.mode == "1" else {0, 255})
    assert all(width != height for width, height in sizes)
    assert len(sizes) > 6
    assert {mode: modes.count(mode) for mode in set(modes)} == {"1": 8, "L": 10, "RGB": 6}


def test_files_hold_what_image_gives(root):
    for number, view in ((1, 1), (2, 2), (3, 1)):
        rgb, lesion, _ = image(number, view, seed=0, size=128)
        name = f"Patient{number:03d}_img{view}.png"
        assert np.array_equal(read(root / "images" / name), rgb)
        mask = read(root / "masks" / name)
        assert np.array_equal(mask.reshape(*lesion.shape, -1)[..., -1] > 0, lesion)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        phantom(tmp_path / name, cases=2, seed=seed, size=96, faults=True)
    first, again, other = (digests(tmp_path / name) for name in "abc")
    assert first == again
    shared = set(first.values()) & set(other.values())
    empty = {path for path, digest in first.items() if digest in shared}
    assert {path.as_posix() for path in empty} <= {"masks/Patient005_img1.png"}  # the empty mask


def test_a_patient_does_not_depend_on_how_many_there_are(tmp_path):
    phantom(tmp_path / "few", cases=1, size=96)
    phantom(tmp_path / "many", cases=3, size=96)
    few, many = digests(tmp_path / "few"), digests(tmp_path / "many")
    shared = [path for path in few if path.suffix == ".png"]
    assert len(shared) == 4
    assert all(few[path] == many[path] for path in shared)


def test_the_same_request_again_does_nothing(tmp_path):
    assert phantom(tmp_path / "a", cases=1, size=96)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert not phantom(tmp_path / "a", cases=1, size=96)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert phantom(tmp_path / "a", cases=1, size=96, seed=1)


@pytest.mark.parametrize("options", [{"cases": 0}, {"seed": -1}, {"size": 95}, {"size": 1025}])
def test_options_out_of_range_are_refused(tmp_path, options):
    with pytest.raises(DataError, match="expected at least 1 case"):
        phantom(tmp_path / "a", **options)
    assert not (tmp_path / "a").exists()


def test_a_lesion_is_in_one_piece_inside_the_image(views):
    small = {(n, view): image(n, view, seed=5, size=96) for n in NUMBERS for view in (1, 2)}
    for rgb, lesion, _ in [*views.values(), *small.values()]:
        assert ndimage.label(lesion, np.ones((3, 3)))[1] == 1
        assert 0.005 < lesion.mean() < 0.15
        border = round(rgb.shape[1] / 40)
        inner = np.zeros_like(lesion)
        inner[border:-border, border:-border] = True
        assert not (lesion & ~inner).any()


def test_both_views_cut_the_same_lesion_along_one_line(views):
    """So that one column of either mask is the same, while the images are not."""
    for number in NUMBERS:
        (first, first_lesion, _), (second, second_lesion, _) = views[number, 1], views[number, 2]
        assert first.shape == second.shape
        assert np.mean(first != second) > 0.5
        assert not np.array_equal(first_lesion, second_lesion)
        columns = [
            {column.tobytes() for column in lesion.T if column.any()}
            for lesion in (first_lesion, second_lesion)
        ]
        assert 0 < len(columns[0] & columns[1]) < 0.6 * len(columns[0])


def best_dice(values, truths):
    """The mean Dice of the threshold below which the lesions are found best, of all thresholds."""
    curves = []
    for value, truth in zip(values, truths, strict=True):
        found, hit = (np.cumsum(np.bincount(v.ravel(), minlength=256)) for v in (value, value[truth]))
        curves.append(2 * hit / (found + truth.sum()))
    return np.mean(curves, axis=0).max()


def test_no_threshold_finds_the_lesions_neither_raw_nor_smoothed(views):
    grey = [rgb.max(-1) for rgb, _, _ in views.values()]
    truths = [lesion for _, lesion, _ in views.values()]
    smooth = [ndimage.gaussian_filter(g, 2) for g in grey]
    # Only the tissue, so that the black margins do not count as found.
    tissue = [(s[20:, :-16], t[20:, :-16]) for s, t in zip(smooth, truths, strict=True)]
    for dice in (best_dice(grey, truths), best_dice(smooth, truths), best_dice(*zip(*tissue, strict=True))):
        assert 0.05 < dice < 0.35
    assert best_dice([255 - 255 * t.astype(np.uint8) for t in truths], truths) == 1  # the search works


def test_a_lesion_is_darker_than_the_tissue_around_it(views):
    darker = 0
    for rgb, lesion, _ in views.values():
        ring = ndimage.binary_dilation(lesion, iterations=10) & ~ndimage.binary_dilation(lesion, iterations=3)
        darker += rgb[lesion].mean() < rgb[ring].mean() - 8
    assert darker >= 22


def test_carcinomas_cast_shadows_and_cysts_are_followed_by_enhancement(views):
    def behind(rgb, lesion):
        """How much brighter it is behind the middle of the lesion than to both sides."""
        rows, columns = np.nonzero(lesion)
        middle, half = (columns.max() + columns.min()) / 2, (columns.max() - columns.min()) / 2
        aside = np.abs(np.arange(rgb.shape[1] - 16) - middle) / half
        band = rgb[rows.max() + 5 : rows.max() + 45, :-16, 1]
        return band[:, aside < 0.5].mean() - band[:, (aside > 1.3) & (aside < 2.3)].mean()

    shadows = [behind(*views[n, view][:2]) for n in (1, 6, 7, 10) for view in (1, 2)]
    enhancements = [behind(*views[n, view][:2]) for n in (3, 11) for view in (1, 2)]
    assert np.mean(shadows) < -25
    assert np.mean(enhancements) > 10
    assert max(shadows) < min(enhancements)


@pytest.mark.parametrize("size", [96, 400])
def test_calipers_are_all_that_differs_from_the_twin_without(size):
    for number, colour in ((1, BLUE), (5, YELLOW), (8, WHITE)):
        rgb, lesion, calipers = image(number, 1, size=size)
        twin, same_lesion, none = image(number, 1, size=size, calipers=False)
        assert np.array_equal(lesion, same_lesion)
        assert not none.any()
        assert np.array_equal(rgb[~calipers], twin[~calipers])
        assert (rgb[calipers] == colour).all()
        assert (twin[calipers] != colour).any(-1).mean() > 0.9
        arm = 1 + size // 64 + 2
        assert not (calipers & ~ndimage.binary_dilation(lesion, iterations=arm)).any()


def test_burned_in_texts_are_grey_but_for_a_label_in_some(views):
    coloured = {n for (n, _), (rgb, _, _) in views.items() if (rgb.max(-1) != rgb.min(-1)).any()}
    assert coloured == {3, 6, 9, 12}
    for rgb, _, _ in views.values():
        assert (rgb[:18] > 150).any()  # the header's text
        assert rgb[:18].mean() < 60
        assert (rgb[20:, -8:] > 200).any()  # the grey bar


def test_faults_are_added_behind_the_sound_patients_and_listed(tmp_path):
    assert phantom(tmp_path / "sound", cases=2, size=96)
    assert phantom(tmp_path / "broken", cases=2, size=96, faults=True)
    sound, broken = digests(tmp_path / "sound"), digests(tmp_path / "broken")
    assert {path: broken[path] for path in sound if path.suffix == ".png"}.items() <= sound.items()
    faults = json.loads((tmp_path / "broken" / "PHANTOM.json").read_text("utf-8"))["faults"]
    assert {fault["case"][7:10] for fault in faults} == {f"{number:03d}" for number in range(3, 12)}
    assert all((tmp_path / "broken" / fault["file"]).is_file() for fault in faults)
    marker = json.loads((tmp_path / "sound" / "PHANTOM.json").read_text("utf-8"))
    assert "faults" not in marker

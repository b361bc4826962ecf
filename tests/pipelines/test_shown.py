import numpy as np
import pytest

from pipelines import shown
from pipelines.errors import DataError


def square(shape, low, high):
    mask = np.zeros(shape, bool)
    mask[low:high, low:high] = True
    return mask


def test_a_picture_is_turned_upright_and_keeps_its_colour():
    image = np.zeros((30, 20, 3), np.uint8)
    image[25, 3] = (200, 100, 50)  # right, above
    mask = square((30, 20), 2, 9)
    found = shown.thumbnail(image, mask, ~mask, colour=True)
    assert found.image.shape == (20, 30, 3) and tuple(found.image[3, 25]) == (200, 100, 50)
    assert (found.truth == mask.T).all() and (found.prediction == ~mask.T).all()


def test_the_slice_with_most_lesion_is_shown_seen_from_the_feet():
    image = np.random.default_rng(0).normal(size=(12, 10, 3))
    truth = np.zeros(image.shape, bool)
    truth[2, 1, 0] = truth[3:6, 4, 1] = True
    prediction = np.zeros(image.shape, bool)
    prediction[8:10, 4:8, 2] = True
    found = shown.thumbnail(image, truth, prediction)
    assert (found.prediction == prediction[::-1, ::-1, 2].T).all()
    grey = image[::-1, ::-1, 2].T
    assert np.corrcoef(found.image.ravel(), grey.ravel())[0, 1] > 0.999
    assert (found.image.min(), found.image.max()) == (0, 255)


def test_a_large_image_is_shrunk_with_its_masks():
    image = np.zeros((600, 300))
    image[:300] = 7
    found = shown.thumbnail(image, square((600, 300), 0, 150), square((600, 300), 0, 0))
    assert found.image.shape == (96, 192) == found.truth.shape
    assert found.truth.mean() == pytest.approx(0.125, abs=0.01) and not found.prediction.any()


def test_an_even_image_is_black():
    assert not shown.thumbnail(np.full((4, 4), 9.0), np.ones((4, 4), bool), np.ones((4, 4), bool)).image.any()


def test_cases_are_read_back_as_written(tmp_path):
    generator = np.random.default_rng(1)
    cases = {
        name: shown.Shown(
            generator.integers(0, 256, shape, np.uint8), *(generator.random((2, *shape[:2])) > 0.5)
        )
        for name, shape in (("a", (5, 9)), ("benign (1)", (16, 3, 3)))
    }
    shown.write(tmp_path / "shown.npz", cases)
    found = shown.Album(tmp_path / "shown.npz")
    assert list(found) == list(cases)
    for name, case in cases.items():
        for part in ("image", "truth", "prediction"):
            assert np.array_equal(getattr(found[name], part), getattr(case, part))


def test_a_picture_is_read_when_it_is_asked_for(tmp_path, monkeypatch):
    case = shown.Shown(np.zeros((4, 4), np.uint8), *np.zeros((2, 4, 4), bool))
    shown.write(tmp_path / "shown.npz", {"a": case, "b": case})
    album = shown.Album(tmp_path / "shown.npz")
    (tmp_path / "shown.npz").unlink()  # as a server's files are, once they are read
    monkeypatch.setattr(shown, "Shown", lambda *parts: parts)
    assert "a" in album and "c" not in album and len(album) == 2
    assert album["b"][0].shape == (4, 4)
    with pytest.raises(KeyError):
        album["c"]


def test_a_picture_that_is_broken_is_told_when_it_is_asked_for(tmp_path):
    random = np.random.default_rng(0)
    case = shown.Shown(random.integers(0, 256, (64, 64), np.uint8), *random.random((2, 64, 64)) > 0.5)
    shown.write(tmp_path / "shown.npz", {"a": case})
    data = bytearray((tmp_path / "shown.npz").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    (tmp_path / "shown.npz").write_bytes(data)
    album = shown.Album(tmp_path / "shown.npz")
    with pytest.raises(DataError, match=r"expected pictures of cases in .*, found.*evaluate again"):
        album["a"]


def test_no_cases_are_a_file_too(tmp_path):
    shown.write(tmp_path / "shown.npz", {})
    assert shown.Album(tmp_path / "shown.npz") == {}


def test_a_missing_and_a_broken_file_are_told(tmp_path):
    with pytest.raises(DataError, match="found none; evaluate again"):
        shown.Album(tmp_path / "shown.npz")
    (tmp_path / "shown.npz").write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match=r"expected pictures of cases in .*, found"):
        shown.Album(tmp_path / "shown.npz")


def test_a_case_of_many_pixels_is_kept_smaller_with_all_of_its_lesions():
    random = np.random.default_rng(0)
    image = random.random((1500, 2100), dtype=np.float32)
    image[600:900] += 3
    mask = np.zeros(image.shape, bool)
    mask[1499, 2099] = mask[30, 31] = mask[700:720, 900:940] = True
    small, lesions, nothing = shown.reduced(image, mask, ~mask & mask)
    assert small.shape == lesions.shape == nothing.shape == (500, 700)
    assert small[100, 50] == pytest.approx(image[300:303, 150:153].mean())
    assert lesions[499, 699] and lesions[10, 10] and lesions[237, 305] and lesions.sum() == 2 + 7 * 14
    assert not nothing.any()
    colour = np.repeat((255 * random.random((1030, 9, 1))).astype(np.uint8), 3, axis=2)
    (reduced,) = shown.reduced(colour)
    assert reduced.shape == (515, 5, 3) and reduced.dtype == np.uint8
    assert reduced[0, 4].tolist() == [round(colour[:2, 8, 0].mean())] * 3  # of two pixels at the edge
    as_it_is = image[:1024, :1024]
    assert shown.reduced(as_it_is)[0] is as_it_is

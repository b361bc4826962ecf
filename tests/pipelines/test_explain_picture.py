import matplotlib.image
import numpy as np
import pytest

from pipelines.errors import DataError
from pipelines.explain_picture import Saliency, draw

ORANGE, BLUE = (230, 159, 0), (87, 181, 232)  # the outline, and 0.6 of a scale


def subject(shape=(40, 30), channels=2, **options):
    image = np.random.default_rng(0).random((channels, *shape))
    names = [f"channel {number}" for number in range(channels)]
    return Saliency(image, np.zeros(shape, bool), names, **options)


def drawn(found, path):
    draw(found, path, "title", "note")
    return (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)


def where(pixels, colour, tolerance=12):
    """Rows and columns of a colour's pixels."""
    return np.nonzero(np.abs(pixels - colour).max(axis=-1) <= tolerance)


def test_colours_mean_the_same_in_all_rows(tmp_path):
    found = subject()
    strong = np.full((40, 30), 0.6)
    strong[:4, :10] = 1.0  # 40 of 2400, more than the half percent above the scale
    found.gradients["gradient"] = np.stack([strong, 0.1 * strong])
    found.shares["gradient"] = [10 / 11, 1 / 11]
    picture = drawn(found, tmp_path / "a.png")
    rows, _ = where(picture, BLUE)
    assert len(rows) > 20_000  # the stronger channel's panel
    assert np.percentile(rows, 99) < picture.shape[0] / 2  # in the first row alone, but for the scale's bar
    found.gradients["gradient"] = np.stack([strong, strong])
    both = where(drawn(found, tmp_path / "b.png"), BLUE)
    assert len(both[0]) == pytest.approx(2 * len(rows), rel=0.1)


def test_one_map_of_all_channels_lies_over_each(tmp_path):
    found = subject(channels=3)
    plain = drawn(found, tmp_path / "plain.png")
    assert len(where(plain, BLUE)[0]) == 0
    found.cam, found.layer = np.full((40, 30), 0.6), "bottom"
    found.cam[:4, :10] = 1.0
    rows, _ = where(drawn(found, tmp_path / "cam.png"), BLUE)
    covered = (np.bincount(rows) > 100).astype(int)
    assert (np.diff(covered, prepend=0) == 1).sum() == 3  # so often a panel begins on the way down


@pytest.mark.parametrize("volume", [False, True])
def test_a_picture_is_upright_and_a_slice_is_seen_from_the_feet(tmp_path, volume):
    centres = []
    for x, y in ((6, 5), (33, 24)):
        found = subject(channels=1, volume=volume)
        found.prediction[x - 2 : x + 3, y - 2 : y + 3] = True
        rows, columns = where(drawn(found, tmp_path / "a.png"), ORANGE)
        assert len(rows) > 50
        centres.append((columns.mean(), rows.mean()))
    (x_low, y_low), (x_high, y_high) = centres
    # A picture: X to the right and Y down. A slice: the patient's right on the left, the front above.
    assert (x_low < x_high) == (y_low < y_high) == (not volume)


def test_pixels_have_their_proportions(tmp_path):
    found = subject(shape=(30, 30), channels=1, spacing=(1.0, 2.0))
    found.prediction[5:25, 5:25] = True
    rows, columns = where(drawn(found, tmp_path / "a.png"), ORANGE)
    assert np.ptp(rows) / np.ptp(columns) == pytest.approx(2, abs=0.1)


def test_a_large_image_makes_no_large_picture_and_loses_no_small_lesion(tmp_path):
    found = subject(shape=(1536, 1536), channels=1)
    found.prediction[700:702, 900:902] = True
    found.gradients["gradient"] = np.zeros((1, 1536, 1536))
    found.gradients["gradient"][0, 600:800, 800:1000] = 1e-6
    found.shares["gradient"] = [1.0]
    picture = drawn(found, tmp_path / "a.png")
    assert max(picture.shape) < 1600
    assert len(where(picture, ORANGE, 60)[0]) > 4
    assert (tmp_path / "a.png").stat().st_size < 2e6


def test_no_gradient_at_all_is_drawn_as_nothing(tmp_path):
    found = subject()
    found.gradients["gradient"] = np.zeros((2, 40, 30))
    found.shares["gradient"] = [0.0, 0.0]
    picture = drawn(found, tmp_path / "a.png")
    assert len(where(picture, BLUE)[0]) == 0


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="expected a folder that can be written to"):
        drawn(subject(), tmp_path / "file" / "a.png")

import matplotlib.image
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from pipelines import caliper_study
from pipelines.datasets import dce_us_phantom
from pipelines.errors import DataError
from tests.conftest import SHARED

BUSI = SHARED / "busi"


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom")
    dce_us_phantom.phantom(root, cases=2, seed=2, progress=False)
    return root


def colours(path):
    return (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int).reshape(-1, 3)


def test_calipers_of_every_colour_are_found_on_phantoms_that_were_not_used_to_develop_the_search():
    figures = caliper_study.measure(patients=12, seed=1)
    assert {name: score.images for name, score in figures.scores.items()} == {
        "all": 24,
        "blue": 16,
        "yellow": 4,
        "white": 4,
    }
    for name, score in figures.scores.items():
        assert score.precision > 0.97 and score.recall > 0.95, (name, score)
        assert score.missed == 0, name
    assert figures.plain == 24
    assert figures.false_alarms <= 1


def test_figures_count_pixels_with_a_tolerance_of_one_and_images_with_nothing_found(monkeypatch):
    def image(number, view, seed, size, calipers=True):
        rgb, drawn = np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), bool)
        drawn[10, 10:20] = calipers
        rgb[drawn] = view
        return rgb, drawn, drawn

    def find(channels):
        found = np.zeros(channels.shape[1:], bool)
        if channels.max() == 1:  # the first view: one row aside, three pixels too many, five of ten strokes
            found[11, 11:15] = True
            found[30, 0:3] = True
        return found

    monkeypatch.setattr(dce_us_phantom, "image", image)
    monkeypatch.setattr(caliper_study, "find_calipers", find)
    figures = caliper_study.measure(patients=1)
    # Six strokes are within a pixel of one found, diagonals included: columns 10 to 15; twenty were drawn.
    expected = caliper_study.Score(images=2, precision=4 / 7, recall=6 / 20, missed=1)
    assert figures.scores == {"all": expected, "blue": expected}
    assert (figures.plain, figures.false_alarms) == (2, 0)

    monkeypatch.setattr(caliper_study, "find_calipers", lambda channels: np.zeros(channels.shape[1:], bool))
    score = caliper_study.measure(patients=1).scores["all"]
    assert np.isnan(score.precision) and score.recall == 0 and score.missed == 2


def test_the_table_has_a_line_for_each_colour_and_says_the_tolerance_and_the_false_alarms():
    score = caliper_study.Score(4, 0.98765, 0.5, 3)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(caliper_study.table(caliper_study.Figures({"all": score, "white": score}, 8, 1)))
    text = capture.get()
    (line,) = (line for line in text.splitlines() if "white" in line)
    assert [cell.strip() for cell in line.split("│")[1:-1]] == ["white", "4", "0.988", "0.500", "3"]
    assert "one pixel of tolerance" in text and "1 of 8 images without calipers" in text


def test_a_study_shows_the_images_with_most_strokes_marked_and_removed(phantom, tmp_path, monkeypatch):
    monkeypatch.setattr(caliper_study, "SHOWN", 3)
    result = caliper_study.study(phantom, tmp_path / "sheet.png")
    assert (result.images, result.found) == (4, 4)
    assert len(result.shown) == 3
    drawn = {
        f"Patient{number:03d}_img{view}.png": dce_us_phantom.image(number, view, 2)[2].sum()
        for number in (1, 2)
        for view in (1, 2)
    }
    left_out = set(drawn) - {file.split("/")[-1] for file in result.shown}
    assert left_out == {min(drawn, key=drawn.get)}
    seen = colours(tmp_path / "sheet.png")
    marked = (seen == caliper_study.MARK).all(axis=1).sum()
    blue = (seen == caliper_study.BLUE).all(axis=1).sum()
    assert marked > 300
    # The calipers are blue in the image as it is only, and marked or gone in the two others.
    assert 0.7 * marked < blue < 1.3 * marked
    assert [file.name for file in tmp_path.iterdir()] == ["sheet.png"]


def test_the_picture_does_not_depend_on_the_files_names(phantom, tmp_path):
    source = phantom / "images" / "Patient001_img1.png"
    renamed = tmp_path / "Jane_Doe.png"
    renamed.write_bytes(source.read_bytes())
    for file, name in ((source, "one.png"), (renamed, "two.png")):
        caliper_study.picture([file], tmp_path / name)
    one, two = ((tmp_path / name).read_bytes() for name in ("one.png", "two.png"))
    assert one == two and b"Jane" not in two


def test_without_calipers_no_picture_is_written(tmp_path):
    (tmp_path / "images").mkdir()
    rgb, _, _ = dce_us_phantom.image(1, 1, seed=3, calipers=False)
    Image.fromarray(rgb).save(tmp_path / "images" / "Patient001_img1.png")
    result = caliper_study.study(tmp_path, tmp_path / "sheet.png")
    assert result == (1, 0, [])
    assert not (tmp_path / "sheet.png").exists()


def test_wrong_options_and_files_are_errors_of_one_line(phantom, tmp_path):
    with pytest.raises(DataError, match="found 0 patients, seed 1 and size 256"):
        caliper_study.measure(patients=0)
    with pytest.raises(DataError, match="size of 96 to 1024"):
        caliper_study.measure(size=64)
    with pytest.raises(DataError, match="expected images to draw"):
        caliper_study.picture([], tmp_path / "sheet.png")
    broken = tmp_path / "images" / "Patient001_img1.png"
    broken.parent.mkdir()
    broken.write_bytes((phantom / "images" / "Patient001_img1.png").read_bytes()[:900])
    with pytest.raises(DataError, match=r"Patient001_img1\.png: expected a whole picture"):
        caliper_study.study(tmp_path, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.skipif(not BUSI.is_dir(), reason="no real ultrasound in ../shared/data/busi")
def test_real_images_are_drawn(tmp_path):
    files = [BUSI / "benign" / f"benign ({number}).png" for number in (295, 416)]
    caliper_study.picture(files, tmp_path / "sheet.png")
    assert (colours(tmp_path / "sheet.png") == caliper_study.MARK).all(axis=1).sum() > 200

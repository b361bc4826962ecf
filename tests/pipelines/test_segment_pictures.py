from __future__ import annotations

import errno
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    CopyItemsd,
    Invertd,
    LoadImaged,
    Resized,
    ScaleIntensityRanged,
)
from PIL import Image

from pipelines import datasets
from pipelines.cases import CaseDataset
from pipelines.errors import DataError
from pipelines.picture_reader import PictureReader
from pipelines.segment_pictures import PictureMasks, inputs
from tests.conftest import SHARED
from tests.pipelines.dicom_pictures import PATIENT, palette, write_dicom, ybr
from transforms import CheckImaged

BLACK = np.zeros((6, 8, 3), np.uint8)


def save(path, values=BLACK, **options):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(values).save(path, **options)
    return path


class Bright(torch.nn.Module):
    """A network of sorts: where the image is redder than half of full scale, there is a lesion."""

    def forward(self, image):
        return 20 * (image[:, :1] - 0.5)


def segment(path, folder):
    """The chain and the engine of a bundle for pictures."""
    preprocessing = Compose(
        [
            LoadImaged("image", reader=PictureReader(), ensure_channel_first=True),
            CheckImaged("image"),
            CopyItemsd("image", names="original"),
            Resized("image", spatial_size=(96, 64), mode="bilinear"),
            ScaleIntensityRanged("image", 0, 255, 0, 1),
        ]
    )
    postprocessing = Compose(
        [
            Activationsd("pred", sigmoid=True),
            Invertd("pred", preprocessing, orig_keys="image", nearest_interp=False),
            AsDiscreted("pred", threshold=0.5),
        ]
    )
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(CaseDataset(inputs(path, "dce_us"), preprocessing), batch_size=1),
        network=Bright(),
        postprocessing=postprocessing,
        val_handlers=[PictureMasks(folder)],
    ).run()


def quarter(height, width):
    """A picture with a lesion that touches the top, left of the middle, and where the lesion is."""
    values = np.full((height, width, 3), 40, np.uint8)
    lesion = np.zeros((height, width), bool)
    lesion[: height // 3, width // 5 : width // 2] = True
    values[lesion] = (220, 200, 210)
    return values, lesion


def agree(path, lesion):
    """The mask in a file is that lesion, but for a rim that resizing there and back has smoothed."""
    with Image.open(path) as mask:
        assert mask.mode == "L"
        found = np.asarray(mask)
    assert found.shape == lesion.shape
    assert set(np.unique(found)) <= {0, 255}
    assert 2 * (lesion & (found > 0)).sum() / (lesion.sum() + (found > 0).sum()) > 0.95


def test_pictures_and_dicom_come_back_as_masks_of_their_size(tmp_path, capsys):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    lesions = {}

    def picture(name, height, width):
        values, lesions[name] = quarter(height, width)
        return values

    save(images / "odd.png", picture("odd", 145, 375))
    save(images / "photo.jpg", picture("photo", 120, 91))
    save(images / "grey.bmp", picture("grey", 77, 64)[..., 0])
    Image.fromarray(picture("palette", 50, 133)).quantize(8).save(images / "palette.png")
    write_dicom(images / "IM1", picture("IM1", 60, 83))
    write_dicom(images / "1.2.840.1", ybr(picture("1.2.840.1", 81, 60)), "YBR_FULL")
    write_dicom(images / "grey dicom.dcm", picture("grey dicom", 63, 71)[..., 0].copy(), "MONOCHROME2")
    index = picture("lut", 64, 90)[..., 0].copy()
    write_dicom(images / "lut.DCM", index, "PALETTE COLOR", **palette(index))
    save(images / "Ünï.png", picture("Ünï", 40, 40))

    segment(images, out)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{case}_{kind}.png" for case in lesions for kind in ("mask", "overlay")
    )
    printed = capsys.readouterr().out
    for case, lesion in lesions.items():
        agree(out / f"{case}_mask.png", lesion)
        (line,) = (line for line in printed.splitlines() if line.startswith(str(out / f"{case}_mask.png")))
        found, rest = line.split(": ")[1].split(" % of the image segmented, picture ")
        assert float(found) == pytest.approx(100 * lesion.mean(), abs=1.5)
        assert rest == str(out / f"{case}_overlay.png")
    everything = printed.encode() + b"".join(path.read_bytes() for path in out.iterdir())
    assert not any(word.encode() in everything for word in (*PATIENT, "Jürgen"))


def test_the_overlay_shows_the_picture_upright_with_the_lesions_outline(tmp_path):
    values, _ = quarter(100, 200)
    save(tmp_path / "a.png", values)
    segment(tmp_path / "a.png", tmp_path / "out")
    with Image.open(tmp_path / "out" / "a_overlay.png") as drawn:
        shown = np.asarray(drawn.convert("RGB")).astype(int)
    rows, columns = np.nonzero(shown.max(-1) < 250)  # the page is white
    top, left = rows.min(), columns.min()
    scale = (columns.max() + 1 - left) / 200
    orange = (shown[..., 0] - shown[..., 2]) > 100
    outline = np.argwhere(orange[: top + int(100 * scale)])
    assert (outline[:, 1].min() - left) / scale == pytest.approx(200 // 5, abs=4)
    assert (outline[:, 1].max() - left) / scale == pytest.approx(200 // 2, abs=4)
    assert (outline[:, 0].max() - top) / scale == pytest.approx(100 // 3, abs=4)
    inside = shown[top + int(15 * scale), left + int(70 * scale)]
    assert np.abs(inside - values[15, 70]).max() <= 3  # in its colours


@pytest.mark.skipif(not (SHARED / "busi").is_dir(), reason="no BUSI images beside the project")
def test_a_real_image(tmp_path):
    path = SHARED / "busi" / "benign" / "benign (100).png"
    segment(path, tmp_path / "out")
    with Image.open(path) as image, Image.open(tmp_path / "out" / "benign (100)_mask.png") as mask:
        assert mask.size == image.size
        red = np.asarray(image.convert("RGB"))[..., 0] > 127.5
        found = np.asarray(mask) > 0
    assert (red != found).mean() < 0.1


@pytest.mark.skipif(not (SHARED / "busi").is_dir(), reason="no BUSI images beside the project")
def test_a_real_dataset_gives_its_images_and_not_its_masks():
    found = inputs(SHARED / "busi", "dce_us")
    assert len({case["case"] for case in found}) == len(found) == 605
    assert not any("_mask" in case["image"] for case in found)
    benign = inputs(SHARED / "busi" / "benign", "dce_us")  # no dataset, but a folder of images
    assert len(benign) == 334
    assert benign[0]["case"] == "benign (2)"


def test_what_was_drawn_is_no_image_unless_it_is_all_there_is(tmp_path):
    for name in ("a.png", "a_mask.png", "a_mask_1.png", "a_overlay.png", "b_mask.png", "mask.png"):
        save(tmp_path / name)
    assert [case["case"] for case in inputs(tmp_path, "dce_us")] == ["a", "b_mask"]
    (tmp_path / "lone").mkdir()
    save(tmp_path / "lone" / "mask.png")
    assert [case["case"] for case in inputs(tmp_path / "lone", "dce_us")] == ["mask"]


def results(shape, pred, case="a"):
    batch = [{"case": case, "original": torch.rand(3, *shape)}]
    return SimpleNamespace(state=SimpleNamespace(batch=batch, output=[{"pred": pred}]))


def test_little_and_nothing_are_told_apart(tmp_path, capsys):
    pred = torch.zeros(1, 60, 40)
    PictureMasks(tmp_path)(results((60, 40), pred))
    assert "a_mask.png: nothing found, picture" in capsys.readouterr().out
    with Image.open(tmp_path / "a_mask.png") as mask:
        assert mask.getextrema() == (0, 0)
    pred[0, 50, 3] = 1
    PictureMasks(tmp_path)(results((60, 40), pred))
    assert "less than 0.1 % of the image segmented" in capsys.readouterr().out
    with Image.open(tmp_path / "a_mask.png") as mask:
        assert mask.getpixel((50, 3)) == 255
        assert np.asarray(mask).sum() == 255


def test_a_mask_of_another_size_is_not_written(tmp_path):
    with pytest.raises(DataError, match=r"a: expected a prediction of the image's size, 60x40, found 32x64"):
        PictureMasks(tmp_path)(results((60, 40), torch.zeros(1, 32, 64)))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_half_mask(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(Image.SAVE, "PNG", full)
    with pytest.raises(DataError, match=r"expected room to write .*a_mask.png, found the disk full"):
        PictureMasks(tmp_path)(results((60, 40), torch.zeros(1, 60, 40)))
    assert not list(tmp_path.iterdir())


def test_a_file_and_a_folder_of_them(tmp_path, capsys):
    for name in ("b10.png", "b9.JPG", "a.tiff"):
        save(tmp_path / name)
    write_dicom(tmp_path / "1.2.3", BLACK)
    write_dicom(tmp_path / "1.2.4", BLACK)
    write_dicom(tmp_path / "DICOMDIR", BLACK)
    for name in (".hidden.png", "groups.csv", "notes.txt", "Thumbs.db"):
        (tmp_path / name).write_text("a note")
    (tmp_path / "sub").mkdir()
    found = inputs(tmp_path, "dce_us")
    assert [case["case"] for case in found] == ["1.2.3", "1.2.4", "a", "b9", "b10"]
    assert capsys.readouterr().out.strip().endswith("DICOM: DICOMDIR, Thumbs.db, groups.csv, notes.txt")
    assert found[3] == {"image": str(tmp_path / "b9.JPG"), "case": "b9"}
    assert inputs(tmp_path / "1.2.3", "dce_us") == [{"image": str(tmp_path / "1.2.3"), "case": "1.2.3"}]


def test_what_was_drawn_on_an_image_is_not_segmented(tmp_path):
    for name in ("a.png", "a_mask.png", "a_mask_1.png", "a_overlay.png", "b_mask.png"):
        save(tmp_path / name)
    assert [case["case"] for case in inputs(tmp_path, "dce_us")] == ["a", "b_mask"]


def paired(root):
    for name in ("Patient001_img1", "Patient001_img2"):
        save(root / "images" / f"{name}.png")
        save(root / "masks" / f"{name}.png")
    return root


def test_a_dataset_in_its_own_layout_gives_its_images_and_not_its_masks(tmp_path):
    found = inputs(paired(tmp_path), "dce_us")
    assert [case["case"] for case in found] == ["Patient001_img1", "Patient001_img2"]
    assert all("label" not in case and "/images/" in case["image"] for case in found)
    save(tmp_path / "other.png")
    with pytest.raises(DataError, match=r"found both, such as .*other.png; put them into folders"):
        inputs(tmp_path, "dce_us")


def test_what_cannot_be_segmented_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("a note")
    with pytest.raises(DataError, match=r"expected a picture .* or a folder of them, found .*notes.txt"):
        inputs(tmp_path / "notes.txt", "dce_us")
    with pytest.raises(DataError, match=r"at .*none, found nothing there; see --dataset_dir"):
        inputs(tmp_path / "none", "dce_us")
    with pytest.raises(DataError, match=r"expected in .* a picture .*, a DICOM file, found none$"):
        inputs(tmp_path, "dce_us")
    (tmp_path / "masks only" / "images").mkdir(parents=True)
    save(tmp_path / "masks only" / "masks" / "Patient001_img1.png")
    with pytest.raises(DataError, match=r"masks only a picture .* found none$"):
        inputs(tmp_path / "masks only", "dce_us")
    save(tmp_path / "a.png")
    save(tmp_path / "a.jpg")
    with pytest.raises(
        DataError, match=r"a name of its own for each image, found .*a.jpg and .*a.png, whose"
    ):
        inputs(tmp_path, "dce_us")


def test_a_dicom_file_that_is_damaged_is_not_passed_over(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "b.dcm").write_bytes(b"")
    with pytest.raises(DataError, match=r"b.dcm: expected a whole picture, found one that cannot be read"):
        segment(tmp_path, tmp_path / "out")


def clips_dataset(entries):
    def index(root, labelled=True):
        raise DataError("no such layout")

    return SimpleNamespace(index=index, entries=entries)


def test_a_dataset_may_make_several_cases_of_a_file(tmp_path, monkeypatch):
    def entries(file):
        return [{"image": f"{file}#{frame}", "case": f"{file[-7:-4]}_{frame}"} for frame in (3, 8)]

    monkeypatch.setattr(datasets, "get", lambda name: clips_dataset(entries))
    for name in ("one.mp4", "two.avi", "notes.txt"):
        (tmp_path / name).write_bytes(b"a clip")
    found = inputs(tmp_path, "ceus")
    assert [case["case"] for case in found] == ["one_3", "one_8", "two_3", "two_8"]
    assert inputs(tmp_path / "two.avi", "ceus") == found[2:]
    (tmp_path / "one.avi").write_bytes(b"a clip")
    with pytest.raises(DataError, match=r"found .*one.avi and .*one.mp4, whose masks would have the same"):
        inputs(tmp_path, "ceus")


def test_a_video_is_no_image_for_a_dataset_of_pictures(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"a clip")
    with pytest.raises(DataError, match=r"found .*a.mp4; give it its ending"):
        inputs(tmp_path / "a.mp4", "dce_us")


def test_a_large_grey_image_of_many_levels_is_shown_smaller_and_its_mask_is_not(tmp_path):
    values = torch.linspace(0, 9000, 1100)[None, :, None].repeat(1, 1, 1300)
    values[:, 1050:1080, 20:40] = 16000  # burned in, fewer than a thousandth of the pixels
    mask = torch.zeros(1, 1100, 1300)
    mask[:, 900:1000, 100:200] = 1
    engine = SimpleNamespace(
        state=SimpleNamespace(batch=[{"case": "a", "original": values}], output=[{"pred": mask}])
    )
    PictureMasks(tmp_path)(engine)
    with Image.open(tmp_path / "a_mask.png") as written:
        assert np.array_equal(np.asarray(written), 255 * mask[0].T.numpy())
    with Image.open(tmp_path / "a_overlay.png") as drawn:
        assert max(drawn.size) < 900
        colours = np.asarray(drawn.convert("RGB")).astype(int)
    orange = np.argwhere((colours[..., 0] - colours[..., 2])[: drawn.height // 2] > 100)
    assert orange[:, 1].min() > 0.7 * drawn.width  # far to the right, and above the legend
    # The brightest grey is that of the ramp's end, to which the letter is cut.
    grey = colours[(colours[..., 0] == colours[..., 2]) & (colours[..., 0] < 250)][:, 0]
    assert np.percentile(grey, 95) > 200

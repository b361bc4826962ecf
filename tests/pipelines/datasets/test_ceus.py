from __future__ import annotations

import hashlib
import json
import shutil
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines import clips
from pipelines.datasets import ceus, ceus_frames, masks
from pipelines.datasets.ceus_writers import IDENTITY, write_clip
from pipelines.errors import DataError
from pipelines.key_frames import changes, choose, largest_changes, sample
from pipelines.threshold import band_rows, best_band
from tests.conftest import SHARED
from transforms.panels import SplitDualPaneld

REAL = SHARED / "ceus"
PANELS = {"contrast": [0, 0, 32, 40], "bmode": [0, 42, 32, 40]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A phantom of six patients, and its index."""
    folder = tmp_path_factory.mktemp("ceus")
    ceus.phantom(folder / "data", cases=6, size=64)
    return folder / "data", ceus.index(folder / "data", frames_dir=folder / "frames"), folder / "frames"


@pytest.fixture
def simple(tmp_path):
    """Three patients of three pictures or frames with given panels, which take no time."""
    root = tmp_path / "data"
    for name, form in (("P2", "png"), ("P10", "rgb"), ("P1", "png")):
        (root / name).mkdir(parents=True)
        frames = [np.full((32, 82, 3), 20 + 30 * n, np.uint8) for n in range(3)]
        write_clip(root / name / ("" if form == "png" else "IM1"), frames, 1, form)
        Image.fromarray(np.full((32, 82), 255, np.uint8)).save(root / name / "mask.png")
    (root / "panels.json").write_text(json.dumps(PANELS))
    return root


def recipe(clip):
    """The numbers of a clip's key frames, put together from the parts."""
    frames = largest_changes(changes(sample(clips.read_clip(clip))))
    files = [clip] if isinstance(clip, Path) else clip
    digest = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files))
    return [frame.index for frame in choose(frames, digest.hexdigest())]


def test_an_entry_has_all_that_a_chain_needs(whole):
    root, found, frames = whole
    assert len(found) == 12
    assert [entry["patient"] for entry in found[6:8]] == ["P004达峰"] * 2
    for entry in found:
        folder = root / entry["patient"]
        name, number = entry["case"].rsplit("_", 1)
        assert name == entry["patient"]
        assert entry["label"] == str(folder / "mask.png")
        assert entry.keys() == {"case", "patient", "image", "label", "panels"}
        with Image.open(entry["image"]) as picture, Image.open(entry["label"]) as mask:
            assert picture.mode == "RGB"
            assert picture.size == mask.size
        pictures = entry["patient"] == "P005"
        expected = folder / f"frame-{number}.png" if pictures else None
        assert (entry["image"] == str(expected)) == pictures
        assert entry["image"].startswith(str(root if pictures else frames))


def test_key_frames_are_those_of_the_recipe_and_written_as_they_are_in_the_clip(whole):
    root, found, _ = whole
    clip = root / "P003/clip.dcm"
    indices = recipe(clip)
    entries = [entry for entry in found if entry["patient"] == "P003"]
    assert [entry["case"] for entry in entries] == [f"P003_{index}" for index in indices]
    decoded = [frame.image for frame in clips.read_clip(clip)]
    for index, entry in zip(indices, entries, strict=True):
        with Image.open(entry["image"]) as picture:
            assert np.array_equal(np.asarray(picture), decoded[index])


def test_an_entry_goes_through_the_split_with_its_whole_lesion(whole):
    entry = whole[1][0]
    with Image.open(entry["image"]) as picture:
        frame = np.asarray(picture).transpose(2, 0, 1).astype(np.float32)
    mask = masks.read(entry["label"])[None]
    split = SplitDualPaneld(keys=("image", "label"))({**entry, "image": frame, "label": mask})
    assert split["ceus"].shape == split["us"].shape == split["label"].shape
    assert split["label"].sum() == mask.sum() > 0


def test_another_seed_or_count_draws_others_and_the_order_is_natural(simple, tmp_path):
    found = ceus.index(simple, count=1, frames_dir=tmp_path / "frames")
    assert [entry["patient"] for entry in found] == ["P1", "P2", "P10"]
    assert all(entry["panels"] == PANELS for entry in found)
    seeds = {
        tuple(e["case"] for e in ceus.index(simple, count=1, seed=seed, frames_dir=tmp_path / "frames"))
        for seed in range(6)
    }
    assert len(seeds) > 2
    few = ceus.index(simple, count=5, frames_dir=tmp_path / "frames")
    assert [entry["case"] for entry in few] == [f"{p}_{n}" for p in ("P1", "P2", "P10") for n in range(3)]


def test_a_patients_own_panels_go_before_those_of_the_root(simple, tmp_path):
    own = {"contrast": [0, 42, 32, 40], "bmode": [0, 0, 32, 40]}
    (simple / "P2/panels.json").write_text(json.dumps(own))
    found = ceus.index(simple, frames_dir=tmp_path / "frames")
    assert {entry["patient"]: entry["panels"] for entry in found} == {"P1": PANELS, "P2": own, "P10": PANELS}


def test_several_masks_are_a_list(simple, tmp_path):
    shutil.copy(simple / "P2/mask.png", simple / "P2/mask_1.png")
    label = [entry["label"] for entry in ceus.index(simple, frames_dir=tmp_path / "frames")][2]
    assert label == [str(simple / "P2/mask.png"), str(simple / "P2/mask_1.png")]


def test_without_labels_no_mask_is_needed(simple, tmp_path):
    (simple / "P2/mask.png").unlink()
    with pytest.raises(DataError, match=r"P2: expected a mask.png, found none; see .* check ceus"):
        ceus.index(simple, frames_dir=tmp_path / "frames")
    found = ceus.index(simple, labelled=False, frames_dir=tmp_path / "frames")
    assert len(found) == 6
    assert not any("label" in entry for entry in found)
    origins = {entry["patient"]: entry.get("clip") for entry in found}
    assert origins == {"P1": None, "P2": None, "P10": str(simple / "P10/IM1")}


def test_a_missing_or_second_clip_is_an_error_with_and_without_labels(simple, tmp_path):
    shutil.copy(simple / "P10/IM1", simple / "P10/IM2")
    for labelled in (True, False):
        with pytest.raises(DataError, match="P10: expected one clip, or frames, found IM1 and IM2"):
            ceus.index(simple, labelled, frames_dir=tmp_path / "frames")


def test_data_beside_a_phantom_is_no_part_of_it(tmp_path):
    root, frames = tmp_path / "data", tmp_path / "frames"
    ceus.phantom(root, cases=1, size=64)
    shutil.copytree(root / "P001", root / "Jane")
    with pytest.raises(DataError, match=r"Jane/IM_0001: .* a folder of its own, found 2 files beside"):
        ceus.index(root, frames_dir=frames)
    found = {(f.severity, f.kind, f.file) for f in ceus.check(root, workers=1)}
    assert ("error", "phantom", "Jane/IM_0001") in found
    assert len(ceus.index(root, labelled=False, frames_dir=frames)) == 4  # to segment them does no harm


def test_processes_that_index_at_once_agree(simple, tmp_path):
    with get_context("fork").Pool(2) as pool:  # spawn would import everything anew
        running = [pool.apply_async(ceus.index, (simple,), {"frames_dir": tmp_path / "frames"}) for _ in "12"]
        found = [result.get(60) for result in running]
    assert found[0] == found[1] == ceus.index(simple, frames_dir=tmp_path / "frames")
    assert not [path for path in (tmp_path / "frames").rglob("*") if path.name.startswith(".")]


def times(entries):
    return [Path(entry["image"]).stat().st_mtime_ns for entry in entries]


def index_in(rank, root, frames):
    """Index as one of two processes of a distributed run.

    Returns:
        The entries, the times of change of their images, and which pictures this process wrote; or an error.
    """
    written, real = [], ceus_frames.written_whole
    ceus_frames.written_whole = lambda path: written.append(str(path)) or real(path)
    meeting = f"file://{frames.parent / 'meeting'}"
    torch.distributed.init_process_group("gloo", meeting, timedelta(seconds=60), 2, rank)
    try:
        found = ceus.index(root, frames_dir=frames)
        return found, times(found), written
    except DataError as error:
        return str(error)
    finally:
        torch.distributed.destroy_process_group()


def index_in_two(root, frames):
    with get_context("fork").Pool(2) as pool:
        running = [pool.apply_async(index_in, (rank, root, frames)) for rank in (0, 1)]
        return [result.get(90) for result in running]


def test_processes_of_one_run_see_files_that_change_no_more(whole, tmp_path):
    root, expected, frames = whole
    first, second = index_in_two(root, tmp_path / "frames")
    found = [
        {**entry, "image": entry["image"].replace(str(frames), str(tmp_path / "frames"))}
        for entry in expected
    ]
    assert first[0] == second[0] == found
    assert first[1] == second[1] == times(found)
    patients = list(dict.fromkeys(entry["patient"] for entry in found))
    for rank, (*_, written) in enumerate((first, second)):
        own = [entry["image"] for entry in found if entry["patient"] in patients[rank::2]]
        assert sorted(written) == sorted(image for image in own if str(tmp_path) in image)


def test_all_processes_of_a_run_hear_of_a_clip_that_one_could_not_read(simple, tmp_path):
    root = simple.rename(tmp_path / "达峰")
    (root / "P2/frame-1.png").write_bytes(b"no picture")  # the second patient, so that of the second process
    first, second = index_in_two(root, tmp_path / "frames")
    assert first == second
    assert "达峰/P2/frame-1.png: " in first


def test_no_identity_of_a_header_gets_anywhere(whole):
    root, found, frames = whole
    findings = ceus.check(root, workers=1)
    text = repr(found) + repr(findings) + " ".join(map(str, frames.rglob("*")))
    content = b"".join(path.read_bytes() for path in frames.rglob("*") if path.is_file())
    assert b"Mustermann" in (root / "P001/IM_0001").read_bytes()
    for value in IDENTITY.values():
        for part in value.split("^"):
            assert part not in text
            assert part.encode() not in content


class TestEntries:
    def test_a_clip_gives_its_key_frames(self, whole, tmp_path):
        clip = whole[0] / "P002/bolus.mp4"
        found = ceus.entries(clip, frames_dir=tmp_path)
        indices = recipe(clip)
        assert [entry["case"] for entry in found] == [f"bolus_{index}" for index in indices]
        assert all(entry["panels"] == whole[1][2]["panels"] for entry in found)
        assert [(entry["clip"], entry["frame"]) for entry in found] == [
            (str(clip), index) for index in indices
        ]

    def test_a_name_with_dots_is_not_cut(self, whole, tmp_path):
        found = ceus.entries(whole[0] / "P006/1.2.826.0.1", frames_dir=tmp_path)
        assert {entry["case"].rsplit("_", 1)[0] for entry in found} == {"1.2.826.0.1"}

    def test_a_picture_gives_itself_with_panels_where_given(self, simple):
        picture = simple / "P1/frame-1.png"
        assert ceus.entries(picture) == [{"case": "frame-1", "image": str(picture)}]
        (simple / "P1/panels.json").write_text(json.dumps(PANELS))
        assert ceus.entries(picture) == [{"case": "frame-1", "image": str(picture), "panels": PANELS}]

    def test_what_is_neither_is_an_error(self, simple):
        for path in (simple / "panels.json", simple, simple / "absent.png"):
            with pytest.raises(DataError, match=r"expected a picture .* or a clip"):
                ceus.entries(path)


@pytest.mark.skipif(not REAL.exists(), reason="the real frames are not here")
class TestRealFrames:
    def test_frames_of_one_panel_are_refused(self, tmp_path):
        with pytest.raises(DataError, match=r"frames28/ceus-10.png: expected a contrast and a B-mode panel"):
            ceus.index(REAL, frames_dir=tmp_path)

    def test_check_says_so_and_that_a_name_is_not_ascii(self):
        found = [(f.severity, f.kind, f.file) for f in ceus.check(REAL, workers=1)]
        assert found == [
            ("error", "panels", "frames28/ceus-10.png"),
            ("note", "not-ascii", "frames28/ceus-15达峰.png"),
        ]

    def test_a_dual_panel_frame_beside_its_mask_is_indexed(self, tmp_path):
        folder = tmp_path / "data/P1"
        folder.mkdir(parents=True)
        shutil.copy(REAL / "dual_panel.png", folder)
        with Image.open(folder / "dual_panel.png") as picture:
            Image.new("L", picture.size, 255).save(folder / "mask.png")
        (entry,) = ceus.index(tmp_path / "data", frames_dir=tmp_path / "frames")
        assert entry["case"] == "P1_0"
        # As measured by hand in the enlarged picture.
        assert np.abs(np.array(entry["panels"]["contrast"]) - (9, 1, 332, 360)).max() <= 2


def test_a_case_is_read_as_the_grey_levels_of_its_contrast_panel(whole):
    for entry in whole[1][::4]:
        values, truth, spacing = ceus.read(entry, [1])
        with Image.open(entry["image"]) as picture:
            frame = np.asarray(picture.convert("RGB")).transpose(2, 0, 1).astype(np.float32)
        mask = masks.read(entry["label"])[None]
        split = SplitDualPaneld(keys=("image", "label"))({**entry, "image": frame, "label": mask})
        top, left, height, width = entry["panels"]["contrast"]
        panel = np.zeros(mask[0].shape, bool)
        panel[top : top + height, left : left + width] = True
        assert values.dtype == np.int16
        np.testing.assert_allclose(values[panel].reshape(height, width), split["ceus"][0], atol=1)
        assert (values[~panel] == -1).all()
        np.testing.assert_array_equal(truth, mask[0])
        assert truth.any()
        assert spacing == (1, 1)
    assert ceus.LEVELS[1:] == (0, 255)


def test_a_threshold_sees_the_contrast_panel_only_but_a_missed_lesion_costs_the_frames_diagonal(whole):
    values, truth, spacing = ceus.read(whole[1][0], [1])
    inside = values >= 0
    # The same levels wherever nothing is masked: what lies outside belongs to no band.
    assert best_band([(values, truth)], ceus.LEVELS) == best_band(
        [(values[inside], truth[inside])], ceus.LEVELS
    )
    (all_levels,) = band_rows([("P001", values, truth, spacing)], (0, 255))
    assert all_levels["prediction_area"] == inside.sum() < values.size
    (missed,) = band_rows([("P001", np.full_like(values, -1), truth, spacing)], (0, 255))
    assert missed["missed"]
    assert missed["hd95"] == pytest.approx(np.hypot(*np.subtract(values.shape, 1)))


def test_panels_that_a_frame_does_not_hold_are_an_error_of_the_case(whole):
    entry = {**whole[1][0], "panels": {"contrast": [0, 0, 32, 4000], "bmode": [0, 4000, 32, 4000]}}
    with pytest.raises(DataError, match=r"(?s)frame.*expected panels within the frame"):
        ceus.read(entry, [1])

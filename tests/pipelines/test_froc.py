from __future__ import annotations

import csv

import ignite.distributed as idist
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import NumpyReader
from PIL import Image
from scipy import ndimage

from pipelines import froc
from pipelines.froc import Froc, Hits, curve, detections, hits

MASS, CALCIFICATION, OTHER = 1, 2, 3


def image(*spots, size=(40, 60)):
    """Probabilities: `(value, x, y, side)` for each square of one value."""
    probability = np.zeros(size, np.float32)
    for value, x, y, side in spots:
        probability[x : x + side, y : y + side] = value
    return probability


def test_a_detection_is_a_component_with_its_peak():
    probability = image((0.3, 2, 3, 5), (0.9, 3, 4, 1), (0.2, 20, 30, 4), (0.05, 30, 50, 4))
    probability[7, 8] = 0.4  # a corner of the first one, which holds together
    peaks, places = detections(probability, 0.1)
    assert peaks.tolist() == pytest.approx([0.9, 0.2])
    assert places.tolist() == [[3, 4], [21, 31]]  # of a plateau of 4 x 4 one of the pixels in its middle
    assert len(detections(probability, 0.25)[0]) == 1
    assert [len(part) for part in detections(probability, 0.95)] == [0, 0]


def test_the_peak_of_a_sure_component_is_in_its_middle():
    # A sigmoid in single precision is 1 for logits above 17: all of a lesion, and a tail of it.
    _, places = detections(image((1, 10, 10, 21)), 0.1)
    assert places.tolist() == [[20, 20]]


def test_components_are_those_of_scikit_image():
    from skimage.measure import label, regionprops

    probability = np.random.default_rng(0).random((50, 70), dtype=np.float32)
    peaks, places = detections(probability, 0.8)
    regions = regionprops(label(probability > 0.8, connectivity=2), probability)
    assert sorted(peaks) == pytest.approx(sorted(region.intensity_max for region in regions))
    assert probability[tuple(places.T)] == pytest.approx(peaks)


def test_lesions_are_found_by_peaks_and_others_ignored():
    wanted, ignored = (np.zeros((40, 60), bool) for _ in range(2))
    wanted[2:8, 2:8] = wanted[20:30, 20:30] = wanted[32:36, 50:55] = True
    ignored[2:8, 40:50] = ignored[22:24, 22:24] = True  # beside the lesions, and on one
    found = hits(
        image((0.9, 3, 3, 2), (0.4, 6, 6, 1), (0.8, 22, 22, 2), (0.7, 3, 42, 3), (0.6, 12, 12, 3)),
        wanted,
        ignored,
        threshold=0.1,
    )
    assert found.false.tolist() == pytest.approx([0.6])
    assert found.lesions.tolist() == pytest.approx([0.9, 0.8, 0])


def scored(false, lesions):
    return Hits(np.float32(false), np.float32(lesions))


def test_the_curve_is_the_one_computed_by_hand():
    found = curve([scored([0.8, 0.3], [0.9, 0]), scored([0.7], [0.6])])
    assert (found.lesions, found.images) == (3, 2)
    assert found.thresholds.tolist() == pytest.approx([0.3, 0.6, 0.7, 0.8, 0.9])
    assert found.false_per_image.tolist() == [1.5, 1, 1, 0.5, 0, 0]
    assert found.sensitivity.tolist() == pytest.approx(np.array([2, 2, 1, 1, 1, 0]) / 3)
    assert [found.at(rate) for rate in froc.RATES] == pytest.approx(np.array([1, 1, 2, 2, 2, 2]) / 3)
    assert found.score == pytest.approx(10 / 18)


def test_the_lowest_detection_counts_where_no_lesion_is_missed():
    # MONAI by itself leaves the lowest value out, here that of the only lesion.
    assert curve([scored([], [0.5])]).score == 1
    assert curve([scored([0.9], [0.5])]).false_per_image.tolist() == [1, 1, 0]
    assert curve([scored([0.9], [0.5])]).score == pytest.approx(4 / 6)


def test_of_images_without_a_lesion_there_is_no_curve():
    assert curve([scored([0.5], [])]) is None


LABELS = {"a": np.zeros((40, 60), np.uint8), "b": np.zeros((40, 60), np.uint8), "c": np.zeros((40, 60))}
LABELS["a"][2:12, 2:12] = MASS
LABELS["a"][5:8, 5:8] = CALCIFICATION  # on the mass
LABELS["a"][20:22, 40:42] = CALCIFICATION
LABELS["b"][30:36, 30:36] = MASS
LABELS["b"][2:8, 50:58] = OTHER
SEEN = {
    "a": image((0.9, 6, 6, 1), (0.5, 30, 5, 3)),  # the mass and its calcification; a false one
    "b": image((0.6, 32, 32, 2), (0.8, 4, 52, 2), (0.3, 15, 15, 1)),  # the mass; the region; a false one
    "c": image((0.7, 10, 10, 2)),  # a false one in a normal image
}


class Drawing(NumpyReader):
    """Label maps with the labels asked for, a mass whole where a calcification lies on it."""

    def __init__(self, labels):
        super().__init__()
        self.labels = labels

    def get_data(self, img):
        array, meta = super().get_data(img)
        if MASS in self.labels and CALCIFICATION not in self.labels:
            array = np.where(ndimage.binary_fill_holes(array == MASS), MASS, array)
        return array * np.isin(array, self.labels), meta


@pytest.fixture
def data(tmp_path):
    for case, array in LABELS.items():
        np.save(tmp_path / f"{case}.npy", array)
    return [{"case": case, "label": str(tmp_path / f"{case}.npy")} for case in LABELS]


def evaluated(data, kinds=(("mass", MASS), ("calcification", CALCIFICATION)), cases=tuple(LABELS)):
    scores = Froc(
        data, Drawing, dict(kinds), others=[label for label in (1, 2, 3) if label not in dict(kinds).values()]
    )

    def step(engine, case):
        engine.state.batch = [{"case": case}]
        return [{"probability": torch.from_numpy(SEEN[case])[None]}]

    engine = Engine(step)
    scores.attach(engine, "test_froc")
    engine.run(list(cases))
    return scores, engine.state.metrics


def test_masses_and_calcifications_each_and_together(data):
    scores, metrics = evaluated(data)
    # Masses: both found at 0.9 and 0.6, false ones at 0.7, 0.5 and 0.3 in three images.
    mass = scores.curves["mass"]
    assert (mass.lesions, mass.images) == (2, 3)
    assert mass.false_per_image.tolist() == pytest.approx([1, 2 / 3, 1 / 3, 1 / 3, 0, 0])
    assert mass.sensitivity.tolist() == [1, 1, 1, 0.5, 0.5, 0]
    assert metrics["test_froc_mass"] == mass.score
    # Calcifications: one of two, by the peak that lies on the mass too, and the same false ones: what is
    # seen in the other mass and in the region counts for nothing.
    calcification = scores.curves["calcification"]
    assert calcification.lesions == 2
    assert calcification.false_per_image.tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0, 0])
    assert calcification.sensitivity.tolist() == [0.5, 0.5, 0.5, 0.5, 0]
    # Together: the mass with its calcification is one lesion, so there are three.
    assert scores.curves[""].lesions == metrics["test_froc_lesions"] == 3
    assert metrics["test_froc"] == scores.curves[""].score


def test_a_kind_that_is_not_looked_for_has_no_curve(data):
    scores, metrics = evaluated(data, kinds=[("mass", MASS)])
    assert "test_froc_calcification" not in metrics
    assert metrics["test_froc"] == metrics["test_froc_mass"]
    assert list(scores.write(data[0]["label"] + "-out")) != []
    scores, metrics = evaluated(data, cases=["c"])
    assert np.isnan(metrics["test_froc"])
    assert scores.figures() == scores.facts() == {}


def test_the_report_has_a_table_a_picture_and_a_line_for_each(data, tmp_path):
    scores, _ = evaluated(data)
    (picture,) = scores.write(tmp_path / "out").values()
    with Image.open(picture) as drawn:
        assert min(drawn.size) > 300
    with open(tmp_path / "out/froc.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["lesions"] for row in rows} == {"all", "mass", "calcification"}
    mass = [row for row in rows if row["lesions"] == "mass"]
    assert [row["threshold"] for row in mass] == ["0.3", "0.5", "0.6", "0.7", "0.9", ""]
    assert float(mass[1]["sensitivity"]) == 1
    lines = scores.facts()
    (masses,) = (line for name, line in lines.items() if name.endswith("an image, masses"))
    assert masses.startswith("0.500, 1.000, 1.000, 1.000, 1.000, 1.000; mean 0.917 (2 in 3 images")
    assert any(name.endswith("calcifications") for name in lines)


def test_processes_of_a_distributed_run_know_of_all_cases(data, monkeypatch):
    whole, _ = evaluated(data)
    first, _ = evaluated(data, cases=["a"])
    second, _ = evaluated(data, cases=["b", "c"])

    def gather(parts, own):
        parts[:] = [own, second.found]

    monkeypatch.setattr(idist, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    assert first.compute() == whole.curves[""].score
    assert first.figures() == whole.figures()

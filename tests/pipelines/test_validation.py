import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from pipelines import shown, significance
from pipelines.scoring import read_cases, score_case
from pipelines.validation import BestCases, CaseScores, EvaluationReport, StopEarly

AFFINE = torch.diag(torch.tensor([-2.0, -1.0, 3.0, 1.0], dtype=torch.float64))


def volume(boxes, shape=(10, 12, 6)):
    array = torch.zeros(1, *shape)
    for box in boxes:
        array[0][box] = 1
    return MetaTensor(array, affine=AFFINE)


BOX, SHIFTED = np.s_[2:6, 2:6, 1:3], np.s_[4:8, 2:6, 1:3]
# What the network should find, what it finds: right, half right, missed, a false alarm, rightly nothing.
PAIRS = [([BOX], [BOX]), ([BOX], [SHIFTED]), ([BOX], []), ([], [BOX]), ([], [])]
DICE = [1.0, 0.5, 0.0, 0.0, 1.0]


def evaluate(scores, handlers=()):
    def step(engine, number):
        truth, prediction = PAIRS[number]
        image = MetaTensor(torch.rand(1, 10, 12, 6) * 4000 - 1000, affine=AFFINE)
        engine.state.batch = [{"image": image, "label": volume(truth), "case": f"volume-{12 - number}"}]
        return [{"pred": volume(prediction)}]

    engine = Engine(step)
    scores.attach(engine, "val_dice")
    for handler in handlers:
        handler.attach(engine, "other") if isinstance(handler, CaseScores) else handler.attach(engine)
    engine.state.best_metric_epoch = 1
    engine.run(range(len(PAIRS)))
    return engine


def test_every_case_counts_by_the_policy():
    scores = CaseScores("val")
    metrics = evaluate(scores).state.metrics
    assert metrics["val_dice"] == pytest.approx(np.mean(DICE))
    assert metrics["val_dice_std"] == pytest.approx(np.std(DICE))
    assert metrics["val_cases_missed"] == metrics["val_cases_false_alarm"] == 1
    assert metrics["val_iou"] == pytest.approx(np.mean([1, 1 / 3, 0, 0, 1]))
    diagonal = np.linalg.norm(np.array([9, 11, 5]) * [2, 1, 3])
    by_case = {row["case"]: row for row in scores.rows}
    assert by_case["volume-10"]["hd95"] == by_case["volume-9"]["hd95"] == pytest.approx(diagonal)
    assert by_case["volume-11"]["hd95"] == pytest.approx(4.0)
    assert [row["case"] for row in scores.rows] == [f"volume-{number}" for number in range(8, 13)]


def test_slices_are_scored_where_they_are_asked_for():
    assert "val_slice_iou" not in evaluate(CaseScores("val")).state.metrics
    metrics = evaluate(CaseScores("val", slices=True)).state.metrics
    # Each volume has six slices, two of them with a box where there is one.
    assert metrics["val_slices"] == 30
    assert metrics["val_slice_iou"] == pytest.approx(np.mean([1, (4 + 2 / 3) / 6, 4 / 6, 4 / 6, 1]))
    assert metrics["val_slice_dice"] == pytest.approx(np.mean([1, (4 + 2 * 0.5) / 6, 4 / 6, 4 / 6, 1]))
    assert metrics["val_slices_missed"] == metrics["val_slices_false_alarm"] == 2
    # Attached under the name of one of its figures it is that figure, and others keep theirs.
    scores = CaseScores("val", slices=True)
    engine = Engine(lambda engine, batch: None)
    scores.attach(engine, "val_slice_iou")
    scores.rows = [{"case": "a", **score_case(*[np.ones((2, 2, 2))] * 2, (1, 1, 1))}]
    scores.rows[0] |= {"slices": 2, "slice_iou": 0.25, "slice_dice": 0.4}
    scores.rows[0] |= {"slices_missed": 1, "slices_false_alarm": 0}
    scores.completed(engine, "val_slice_iou")
    assert (engine.state.metrics["val_slice_iou"], engine.state.metrics["val_dice"]) == (0.25, 1)


def test_the_best_epoch_leaves_its_cases_and_pictures(tmp_path):
    scores = CaseScores("val", display_range=(-100, 200))
    evaluate(scores, [BestCases(tmp_path, scores)])
    rows = read_cases(tmp_path / "cases.csv")
    assert sorted(row["dice"] for row in rows) == sorted(DICE)
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert pictures == ["best.png", "cases.png", "median.png", "worst.png"]
    image = scores.shown["volume-12"]["image"]
    assert image.shape == (10, 12, 2)
    assert scores.shown["volume-12"]["numbers"] == [1, 2]
    assert (image.min(), image.max()) == (-100, 200)


def test_pictures_are_in_ras(tmp_path):
    scores = CaseScores("val")
    evaluate(scores)
    # The affine above points left and back, so both axes are turned round.
    expected = np.zeros((10, 12), bool)
    expected[BOX[:2]] = True
    assert np.array_equal(scores.shown["volume-12"]["truth"][..., 0], expected[::-1, ::-1])


def test_a_worse_epoch_leaves_the_cases_of_the_best_alone(tmp_path):
    engine = Engine(lambda engine, batch: None)
    engine.state.best_metric_epoch, engine.state.epoch = 7, 8
    BestCases(tmp_path, CaseScores("val"))(engine)
    assert not list(tmp_path.iterdir())


def test_an_evaluation_is_reported(tmp_path, capsys):
    scores = CaseScores("test")
    on_grid = CaseScores("test_grid", image_key=None, unit="pixels")
    recorded = []
    report = EvaluationReport(
        tmp_path, scores, "lits", {"network": "Identity"}, on_grid, lambda *record: recorded.append(record)
    )
    evaluate(scores, [on_grid, report])
    out = capsys.readouterr().out
    assert "0.500 ± 0.447" in out
    assert "missed 1, false alarm 1" in out
    diagonal = np.linalg.norm([9, 11, 5])  # the pixels of the second scores have no millimetres
    expected = f"HD95 {np.mean([0, 2, diagonal, diagonal, 0]):.1f}"
    assert expected in out.split("On the network's grid: Dice 0.500")[1]
    assert "of 5 cases 1 missed, 1 false alarms" in out
    page = (tmp_path / "report.md").read_text()
    assert "Identity" in page
    assert expected in page
    assert len(read_cases(tmp_path / "cases_on_grid.csv")) == 5
    assert on_grid.shown == {}
    assert list(shown.Album(tmp_path / "shown.npz")) == list(scores.shown)
    figures, folder = recorded[0]
    assert figures["test_dice"] == figures["test_grid_dice"] == pytest.approx(0.5)
    # Five cases of 0, 0, 0.5, 1 and 1 could have had about any mean.
    assert 0 <= figures["test_dice_low"] < 0.3 and 0.7 < figures["test_dice_high"] <= 1
    assert f"{figures['test_dice_low']:.3f} to {figures['test_dice_high']:.3f}" in out
    assert folder == tmp_path


def test_an_evaluation_tells_of_its_slices_in_both_geometries(tmp_path, capsys):
    scores, on_grid = CaseScores("test", slices=True), CaseScores("test_grid", image_key=None, slices=True)
    recorded = []
    report = EvaluationReport(tmp_path, scores, "a", {}, on_grid, lambda *record: recorded.append(record))
    evaluate(scores, [on_grid, report])
    words = "Dice 0.833, IoU 0.822; of 30 axial slices 2 missed, 2 false alarms"
    out, page = capsys.readouterr().out, (tmp_path / "report.md").read_text()
    for where in ("lice by slice", "lice by slice, on the network's grid"):
        assert f"S{where}: {words}." in out
        assert f"| s{where} | {words} |" in page
    assert (
        recorded[0][0]["test_slice_iou"]
        == recorded[0][0]["test_grid_slice_iou"]
        == pytest.approx(0.8222, abs=1e-4)
    )
    assert read_cases(tmp_path / "cases.csv")[0]["slices"] == 6


class Counting:
    """A metric of sorts beside the scores."""

    def facts(self):
        return {"cases counted": "five"}

    def figures(self):
        return {"test_count": 5.0}

    def write(self, folder):
        shown.write(folder / "count.npz", {})
        return {"A count": folder / "count.npz"}


def test_an_evaluation_tells_of_further_metrics(tmp_path, capsys):
    recorded, on_grid = [], CaseScores("test_grid", image_key=None)
    report = EvaluationReport(
        *(tmp_path, CaseScores("test"), "a", {}, on_grid, lambda *record: recorded.append(record)),
        further=[Counting()],
    )
    evaluate(report.scores, [on_grid, report])
    page = (tmp_path / "report.md").read_text()
    assert "Cases counted: five." in capsys.readouterr().out
    assert "| cases counted | five |" in page
    assert "![A count](count.npz)" in page
    assert recorded[0][0]["test_count"] == 5 and "test_dice" in recorded[0][0]


def test_large_pictures_are_kept_smaller():
    scores = CaseScores("val", unit="pixels")
    mask = MetaTensor(torch.zeros(1, 2100, 90))
    mask[0, 2000, 80] = 1
    scores.update(({"label": mask, "image": torch.rand(1, 2100, 90), "case": "a"}, {"pred": mask}))
    kept = scores.shown["a"]
    assert kept["image"].shape == kept["truth"].shape == (700, 30)
    assert kept["truth"].sum() == kept["prediction"].sum() == 1
    assert scores.rows[0]["true_positive"] == 1  # scores are in all pixels


def test_cases_whose_images_were_brought_onto_one_grid_are_told_of(tmp_path, capsys):
    scores, on_grid = CaseScores("test"), CaseScores("test_grid", image_key=None)
    report = EvaluationReport(tmp_path, scores, "a", {}, on_grid)
    said = "registered by header only: FLAIR 20x20x5 -> T1gd 10x12x6"

    def step(engine, number):
        image = MetaTensor(
            torch.rand(1, 10, 12, 6), affine=AFFINE, meta={"registration": said * (number == 1)}
        )
        engine.state.batch = [{"image": image, "label": volume([BOX]), "case": f"volume-{number}"}]
        return [{"pred": volume([BOX])}]

    engine = Engine(step)
    for metric in (scores, on_grid):
        metric.attach(engine, "any")
    report.attach(engine)
    engine.run(range(3))
    assert "Registered by header only: 1 of 3 cases, see cases.csv." in capsys.readouterr().out
    assert (
        "| registered by header only | 1 of 3 cases, see cases.csv |" in (tmp_path / "report.md").read_text()
    )
    rows = read_cases(tmp_path / "cases.csv")
    assert [row.get("registration") for row in rows] == [None, said, None]


def test_cases_of_one_patient_are_numbered_as_such_and_count_as_one(tmp_path, capsys):
    scores, on_grid = CaseScores("test"), CaseScores("test_grid", image_key=None)
    # Volumes 8 and 9 (right, a false alarm) are one patient's, 10 (missed) another's; the rest tell none.
    data = [
        {"case": f"volume-{number}", "image": "x", "patient": patient}
        for number, patient in ((8, "Roe"), (9, "Roe"), (10, "Doe"))
    ]
    recorded = []
    report = EvaluationReport(
        tmp_path, scores, "lits", {}, on_grid, lambda *record: recorded.append(record), data
    )
    evaluate(scores, [on_grid, report])
    for name in ("cases.csv", "cases_on_grid.csv"):
        rows = read_cases(tmp_path / name)
        assert [row.get("patient") for row in rows] == ["2", "2", "1", None, None]
        assert "Roe" not in (tmp_path / name).read_text()
    # Patients have a mean Dice of 0.5, 0, 0.5 and 1.
    _, low, high = significance.interval([0.5, 0.0, 0.5, 1.0])
    assert (recorded[0][0]["test_dice_low"], recorded[0][0]["test_dice_high"]) == (low, high)


def test_pictures_of_two_axes_are_scored_in_pixels_and_shown_whole():
    scores = CaseScores("val", pred_key="grid", unit="pixels")
    affine = torch.diag(torch.tensor([2.0, 2.0, 1.0, 1.0]))
    truth, prediction = torch.zeros(1, 20, 30), torch.zeros(1, 20, 30)
    truth[0, 5:8, 5], prediction[0, 5:8, 9] = 1, 1
    image = torch.stack([torch.full((20, 30), value) for value in (10.0, 20.0, 60.0)])
    source = {"image": MetaTensor(image), "label": MetaTensor(truth, affine=affine), "case": "a"}
    scores.update((source, {"grid": MetaTensor(prediction)}))
    assert scores.rows[0]["hd95"] == 4
    assert scores.rows[0]["truth_area"] == 3
    assert scores.shown["a"]["image"].shape == (20, 30, 3)
    assert scores.shown["a"]["image"][4, 5].tolist() == [10, 20, 60]


@pytest.mark.parametrize(("patience", "epochs"), [(2, 3), (3, 4), (None, 9)])
def test_training_stops_once_it_no_longer_improves(patience, epochs):
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state.best_metric_epoch = 1
    trainer = Engine(lambda engine, batch: None)
    StopEarly(evaluator, patience).attach(trainer)
    trainer.run([0], max_epochs=9)
    assert trainer.state.epoch == epochs

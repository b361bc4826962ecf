import json
import re
from dataclasses import replace

import pytest

from pipelines import sweep_progress
from pipelines.sweep_plan import Job
from pipelines.sweep_progress import Progress, Spent, in_words, spent, time_left
from pipelines.sweep_run import DONE, FAILED, LATER, SKIPPED, Outcome

SMALL = Job("small-seed0", "study", ("train.json",), (), (("network", "small"),), 0, 0)
LARGE = Job("large-seed0", "study", ("train.json",), (), (("network", "large"),), 0, 0)


def seeds(job, *numbers):
    return [replace(job, name=f"{job.name[:-1]}{number}", seed=number) for number in numbers]


def journal(job, *records):
    """Write a journal of records, each as seconds and content."""
    job.folder.mkdir(parents=True)
    lines = [json.dumps({"time": int(1000 * seconds), **content}) for seconds, content in records]
    (job.folder / "tracking.jsonl").write_text("\n".join(lines) + '\n{"kind": "met')


def status(word):
    return {"kind": "status", "status": word}


def epoch(number):
    return {"kind": "metrics", "step": number, "values": {"train_loss": 1.0}}


PARAMS = {"kind": "params", "values": {"max_epochs": 10}}
EVALUATION = {"kind": "metrics", "step": None, "values": {"test_dice": 0.5}}


def trained(job, seconds, epochs):
    journal(
        job,
        (0, status("RUNNING")),
        (0, PARAMS),
        *((seconds / epochs * n, epoch(n)) for n in range(1, epochs + 1)),
    )


def test_what_a_run_took_is_without_its_pauses(workspace):
    journal(
        SMALL,
        *((100, status("RUNNING")), (101, PARAMS), (110, epoch(1)), (120, epoch(2)), (125, status("FAILED"))),
        *((900, status("RUNNING")), (912, epoch(2)), (922, epoch(3)), (923, status("FINISHED"))),
        *((5000, EVALUATION), (5001, {"kind": "artifact", "path": "a"})),
    )
    assert spent(SMALL) == Spent(25 + 23 + 1, 3, 10)
    assert spent(LARGE) is None


def test_a_run_before_its_first_epoch_took_nothing_yet(workspace):
    journal(SMALL, (0, status("RUNNING")), (1, PARAMS))
    assert spent(SMALL) is None


def test_nothing_is_known_before_the_first_epoch(workspace):
    assert time_left([SMALL, LARGE], [], 2) is None
    assert time_left([SMALL], [Outcome(LARGE, FAILED, "", 50.0)], 2) is None
    assert in_words(None) == ""


def test_running_trainings_go_on_at_their_pace(workspace):
    trained(SMALL, 40, 4)  # of 10 epochs: 60 seconds are left
    assert time_left([SMALL], [], 1) == pytest.approx(60)
    # What is not known takes as long as what is, 100 seconds.
    assert time_left([SMALL, LARGE], [], 1) == pytest.approx(160)
    assert time_left([SMALL, LARGE], [], 2) == pytest.approx(100)


def test_finished_runs_say_what_others_of_their_kind_take(workspace):
    done, running, waiting = seeds(SMALL, 0, 1, 2)
    trained(done, 50, 5)  # stopped early
    trained(running, 24, 2)  # 12 seconds an epoch, 3 epochs left
    ended = [Outcome(done, DONE, "", 70.0)]  # with its start and evaluation
    assert time_left([running], ended, 1) == pytest.approx(36)
    assert time_left([waiting], ended, 1) == pytest.approx(70)
    assert time_left([running, waiting], ended, 1) == pytest.approx(36 + 70)
    assert time_left([running, waiting, LARGE], ended, 2) == pytest.approx(36 + (70 + 60) / 2)
    assert time_left([waiting], [Outcome(done, SKIPPED)], 1) == pytest.approx(50)


def test_durations_in_words():
    assert in_words(29) == "about 0 min left"
    assert in_words(59.9 * 60) == "about 1 h 0 min left"
    assert in_words(3 * 3600 + 20 * 60) == "about 3 h 20 min left"


def test_a_line_for_each_run_that_ends_and_one_for_each_that_waits(workspace, capsys):
    jobs = seeds(SMALL, 0, 1, 2)
    trained(jobs[0], 600, 10)
    with Progress(jobs, 1) as progress:
        progress.add(Outcome(jobs[2], SKIPPED, "Dice 0.5"))
        for _ in range(3):
            progress.add(Outcome(jobs[1], LATER, "another process is at it"))
        progress.add(Outcome(jobs[0], DONE, "Dice 0.700", 600.0))
        progress.add(Outcome(jobs[1], FAILED, "training: why", 90.0))
    assert capsys.readouterr().out.splitlines() == [
        "small-seed1: waits, another process is at it",
        "small-seed0: done, Dice 0.700 (10.0 min); 2 of 3 runs, about 10 min left",
        "small-seed1: failed, training: why (1.5 min); 3 of 3 runs",
    ]
    assert list(progress.outcomes) == ["small-seed2", "small-seed0", "small-seed1"]


def test_the_bar_shows_the_estimate(workspace, monkeypatch, capsys):
    real = sweep_progress.tqdm
    monkeypatch.setattr(sweep_progress, "tqdm", lambda **options: real(**{**options, "disable": False}))
    trained(SMALL, 240, 4)
    with Progress([SMALL, LARGE], 1) as progress:
        progress.refresh()
    shown = re.split(r"[\r\n]", capsys.readouterr().err)
    assert any(
        line.startswith("sweep: 0/2 runs |") and line.endswith(", about 16 min left") for line in shown
    )


def test_a_stopped_sweep_says_how_to_go_on(workspace, capsys):
    with pytest.raises(KeyboardInterrupt), Progress([SMALL], 1):
        raise KeyboardInterrupt
    assert capsys.readouterr().out == "stopped after 0 of 1 runs; the same command goes on\n"

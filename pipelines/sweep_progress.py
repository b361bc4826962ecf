"""How far a sweep is, and for how long it will go on."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from types import TracebackType

from tqdm import tqdm

from pipelines.runs import Run
from pipelines.sweep_plan import Job
from pipelines.sweep_run import DONE, LATER, SKIPPED, Outcome
from pipelines.tracking import Tracker

REFRESH_SECONDS = 10.0


@dataclass(frozen=True)
class Spent:
    """What a run has taken so far: seconds in its trainings, and epochs of as many as it may take."""

    seconds: float
    epochs: int
    max_epochs: int


def spent(job: Job) -> Spent | None:
    """What the journal of a run says it took, without the time in which nothing ran; None before an epoch."""
    records = [one for one in Tracker(Run(str(job.folder), job.experiment)).records() if one]
    epochs = {one["step"] for one in records if one["kind"] == "metrics" and one["step"] is not None}
    params = [one["values"] for one in records if one["kind"] == "params"]
    if not epochs or not params:
        return None
    # A run pauses before it is resumed, and may pause between its end and its evaluation.
    going = [
        (after["time"] - before["time"]) / 1000
        for before, after in pairwise(records)
        if after.get("status") != "RUNNING" and before.get("status") in (None, "RUNNING")
    ]
    return Spent(sum(going), len(epochs), int(params[0]["max_epochs"]))


def time_left(open_jobs: Sequence[Job], ended: Sequence[Outcome], slots: int) -> float | None:
    """Seconds until every run is over, or None where they are, or nothing is known yet.

    A run that has begun goes on at its own pace, for as many epochs as finished runs of its network and
    overlay took, else for all of them. One that has not takes what those took, else the mean of all known.

    Args:
        open_jobs: the runs that are not over, in their order.
        ended: those that are.
        slots: how many runs go on at a time.
    """
    whole: dict[str, list[Spent]] = {}
    for outcome in ended:
        took = spent(outcome.job) if outcome.state in (DONE, SKIPPED) else None
        if took is not None:
            seconds = max(took.seconds, outcome.seconds)  # the latter has start and evaluation in it
            whole.setdefault(_kind(outcome.job), []).append(Spent(seconds, took.epochs, took.max_epochs))
    lengths, left = [one.seconds for some in whole.values() for one in some], []
    for job in open_jobs:
        like, own = whole.get(_kind(job), []), spent(job)
        if own is not None:
            epochs = mean(one.epochs for one in like) if like else own.max_epochs
            pace = own.seconds / own.epochs
            lengths.append(pace * epochs)
            left.append(pace * max(0.0, epochs - own.epochs))
        else:
            left.append(mean(one.seconds for one in like) if like else None)
    if not left or not lengths:
        return None
    ends = [0.0] * slots
    for seconds in left:  # each run begins where a slot is free first
        heapq.heapreplace(ends, ends[0] + (mean(lengths) if seconds is None else seconds))
    return max(ends)


def _kind(job: Job) -> str:
    return str((job.files, job.training_files, job.options))


def in_words(seconds: float | None) -> str:
    """A duration as read in a progress bar, such as "about 3 h 20 min left"; nothing where it is None."""
    if seconds is None:
        return ""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"about {f'{hours} h ' if hours else ''}{minutes} min left"


class Progress:
    """A bar with an estimate, and a line for each run that ends; used as a context.

    Args:
        jobs: the runs of the sweep.
        slots: how many of them go on at a time.
    """

    def __init__(self, jobs: Sequence[Job], slots: int) -> None:
        self.jobs = jobs
        self.slots = slots
        self.outcomes: dict[str, Outcome] = {}
        self._said: dict[str, str] = {}
        form = "{desc}: {n_fmt}/{total_fmt} runs |{bar}| {elapsed}{postfix}"
        self._bar = tqdm(total=len(jobs), desc="sweep", disable=None, bar_format=form)
        self._refreshed = -REFRESH_SECONDS

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if isinstance(error, KeyboardInterrupt):
            self._say(
                f"stopped after {len(self.outcomes)} of {len(self.jobs)} runs; the same command goes on"
            )

    def add(self, outcome: Outcome) -> None:
        """Take in how a run ended, and say so; of one that waits, once why."""
        job = outcome.job
        if outcome.state == LATER:
            if self._said.get(job.name) != outcome.words:
                self._say(f"{job.name}: waits, {outcome.words}")
            self._said[job.name] = outcome.words
            return
        self.outcomes[job.name] = outcome
        self._bar.update()
        if outcome.state != SKIPPED:
            took = f" ({outcome.seconds / 60:.1f} min)" if outcome.seconds else ""
            words = [f"{len(self.outcomes)} of {len(self.jobs)} runs", in_words(self.left())]
            self._say(f"{job.name}: {outcome.state}, {outcome.words}{took}; {', '.join(filter(None, words))}")

    def left(self) -> float | None:
        """Seconds until the sweep is over, None where that is not known yet."""
        ended = [self.outcomes[job.name] for job in self.jobs if job.name in self.outcomes]
        return time_left([job for job in self.jobs if job.name not in self.outcomes], ended, self.slots)

    def refresh(self) -> None:
        """Show the estimate in the bar, every ten seconds."""
        elapsed = self._bar.format_dict["elapsed"] if not self._bar.disable else 0.0
        if not self._bar.disable and elapsed - self._refreshed >= REFRESH_SECONDS:
            self._refreshed = elapsed
            self._bar.set_postfix_str(in_words(self.left()))

    def _say(self, line: str) -> None:
        self._bar.write(line)
        sys.stdout.flush()  # a sweep of days is read in its log

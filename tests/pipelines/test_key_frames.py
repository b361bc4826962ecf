from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pipelines.clips import Frame
from pipelines.key_frames import KeyFrame, changes, choose, largest_changes, pick, sample


def clip(times, levels=None):
    """Frames of one grey level each."""
    levels = range(len(times)) if levels is None else levels
    return [
        Frame(time, np.full((4, 6, 3), level, np.uint8)) for time, level in zip(times, levels, strict=True)
    ]


def indices(times, per_second=1.0):
    return [index for index, _ in sample(clip(times), per_second)]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([n / 25 for n in range(101)], [0, 25, 50, 75, 100]),
        ([n * 0.033333 for n in range(91)], [0, 30, 60, 90]),  # whole milliseconds of a header fall short
        ([n / 12 for n in range(30)], [0, 12, 24]),
        ([0, 0.9, 1.2, 1.9, 2.05, 3.4], [0, 1, 4, 5]),
        ([0, 1.1, 2.2, 3.3, 4.4, 5.5], [0, 1, 2, 3, 4, 5]),
        ([0, 2, 4, 6], [0, 1, 2, 3]),  # slower than the clock
        ([0, 0.5, 0.6, 5.2, 5.3], [0, 2, 3]),  # a pause: 0.6 is the nearest to 1, 5.2 to 2 to 5
        ([0, 0.5, 1.5], [0, 1]),  # of two as near the earlier
        ([0, 0.2, 0.4], [0]),
        ([0], [0]),
        ([], []),
    ],
)
def test_a_frame_a_second_by_the_frames_own_times(times, expected):
    assert indices(times) == expected


def test_another_rate():
    assert indices([n / 10 for n in range(21)], per_second=2) == [0, 5, 10, 15, 20]
    assert indices([n / 10 for n in range(41)], per_second=0.5) == [0, 20, 40]


def test_change_is_that_of_the_grey_level_from_the_frame_before():
    levels = [10, 10, 30, 25, 25, 125]
    found = changes(sample(clip(range(6), levels)))
    assert [frame.change for frame in found] == pytest.approx([0, 0, 20, 5, 0, 100], abs=1e-3)
    assert [frame.index for frame in found] == list(range(6))
    first = changes(sample(clip(range(2), [0, 7])))
    assert first[0].change == pytest.approx(7, abs=1e-4)  # it has no frame before it
    assert [frame.change for frame in changes(sample(clip([0])))] == [0]


def test_change_of_half_an_image_and_of_one_colour():
    still = np.zeros((4, 6, 3), np.uint8)
    half, red = still.copy(), still.copy()
    half[:2] = 100
    red[..., 0] = 100
    found = changes(enumerate([Frame(0, still), Frame(1, half), Frame(2, still), Frame(3, red)]))
    assert [frame.change for frame in found[1:]] == pytest.approx([50, 50, 29.9], abs=1e-3)


def test_largest_changes_in_their_order_in_time():
    frames = [KeyFrame(n, n / 2, change) for n, change in enumerate([5, 1, 9, 5, 5, 7])]
    assert [frame.index for frame in largest_changes(frames, 3)] == [0, 2, 5]
    assert largest_changes(frames, 40) == frames
    assert len(largest_changes([KeyFrame(n, n, n % 7) for n in range(100)])) == 40


def test_choice_depends_on_patient_and_seed_only():
    candidates = list(range(40))
    assert choose(candidates, "P1") == choose(candidates, "P1")
    assert choose([5], "P1") == [5]
    assert choose([], "P1") == []
    chosen = [choose(candidates, f"P{n}") for n in range(500)]
    assert all(len(set(two)) == 2 and two == sorted(two) for two in chosen)
    assert len({tuple(two) for two in chosen}) > 250
    assert choose(candidates, "P1", seed=1) != choose(candidates, "P1", seed=2)
    times = Counter(one for two in chosen for one in two)
    assert max(times.values()) < 3 * 1000 / 40 and len(times) == 40  # every candidate has its chance


def test_pick_reads_no_further_than_it_must():
    def frames():
        yield from clip(range(5))
        raise AssertionError("read beyond the last frame asked for")

    assert [frame.time for frame in pick(frames(), [4, 2, 2])] == [2, 4]
    assert pick(clip(range(3)), []) == []

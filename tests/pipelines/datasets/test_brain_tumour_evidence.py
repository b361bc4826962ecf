from __future__ import annotations

import numpy as np
import pytest

from pipelines.datasets import brain_tumour_evidence as evidence


def cube(edema=1, core=2):
    """A core of 4 x 4 x 4 in a cube of 8 x 8 x 8."""
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[2:10, 2:10, 2:10] = edema
    labels[4:8, 4:8, 4:8] = core
    return labels


def test_faces_are_counted_by_hand():
    assert evidence.outer_faces(cube()) == {1: 6 * 64, 2: 0}
    half = np.zeros((12, 12, 12), np.uint8)
    half[2:6, 2:6, 2:6], half[6:10, 2:6, 2:6] = 1, 3
    assert evidence.outer_faces(half) == {1: 5 * 16, 3: 5 * 16}


def test_a_label_of_a_few_voxels_and_the_border_of_the_image_tell_nothing():
    labels = cube()
    labels[0, 0, :5] = 3
    assert 3 not in evidence.outer_faces(labels)
    full = np.ones((4, 4, 4), np.uint8)
    assert evidence.outer_faces(full) == {1: 0}


@pytest.mark.parametrize(
    ("coding", "faces", "expected"),
    [
        ("msd", {1: 100, 2: 5, 3: 9}, (0, 1)),
        ("msd", {1: 5, 2: 100}, (1, 1)),
        ("brats2023", {1: 100, 2: 5}, (1, 1)),
        ("brats2023", {1: 5, 2: 100}, (0, 1)),
        ("brats", {1: 5, 2: 100, 4: 3}, (0, 1)),
        ("msd", {2: 100, 3: 4}, (0, 0)),
        ("msd", {1: 7, 2: 7}, (0, 1)),
    ],
)
def test_edema_is_what_borders_the_outside(coding, faces, expected):
    assert evidence.contradicts_coding(coding, [faces]) == expected


def test_most_is_more_than_half_of_three_or_more():
    assert [evidence.mostly(*pair) for pair in ((3, 3), (2, 3), (2, 4), (2, 2), (0, 0))] == [
        *(True, True, False, False, False),
    ]


def sequences(rng=0):
    """FLAIR, T1w, T1gd and T2w of the cube with a rim: brain 100, water brighter or darker, rim in T1gd."""
    random = np.random.default_rng(rng)
    images = [random.normal(100, 10, (12, 12, 12)) for _ in range(4)]
    tumour, rim = cube() > 0, cube(1, 3) == 3
    for image, rest, edge in zip(images, (40, -20, -20, 40), (30, -10, 60, 20), strict=True):
        image[tumour & ~rim] += rest
        image[rim] += edge
    return images, tumour, rim


def test_sequences_in_their_order_contradict_nothing():
    assert evidence.wrong_order(*sequences()) == ""


def test_t1_and_t1gd_interchanged():
    (flair, t1, t1gd, t2), *masks = sequences()
    said = evidence.wrong_order((flair, t1gd, t1, t2), *masks)
    assert said.startswith("enhancing tumour is brighter in T1w (+")


# Orders in which other data comes: MONAI's BraTS bundle has T1gd first, files by name have T1gd before T1w.
@pytest.mark.parametrize("order", [(2, 1, 3, 0), (1, 2, 3, 0), (3, 0, 1, 2), (1, 0, 2, 3)])
def test_water_sequences_in_the_place_of_others(order):
    images, tumour, rim = sequences()
    images = [images[number] for number in order]
    assert evidence.wrong_order(images, tumour, rim)
    said = evidence.wrong_order(images, tumour, np.zeros_like(rim))
    assert said.startswith("tumour that does not enhance is brighter in T1")


def test_a_small_tumour_is_not_judged():
    images, tumour, _ = sequences()
    small = np.zeros_like(tumour)
    small[5, 5, :10] = True
    assert evidence.wrong_order(images, small, np.zeros_like(small)) is None

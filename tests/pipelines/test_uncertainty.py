"""Doubt about what may be a lesion: hand-computed, and in what a network makes of views of an image."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer, SliceInferer
from monai.transforms import Flip
from torch import nn

from pipelines.uncertainty import CANDIDATE, LEAST, SMALL, VIEWS, candidates, doubt, probabilities


def blobs(shape, *marked):
    """Samples of two views: the mean of both is what is marked."""
    mean = np.zeros(shape, np.float32)
    for where, value in marked:
        mean[where] = value
    return np.stack([mean + 0.05 * (mean > 0), mean - 0.05 * (mean > 0)])


def test_candidates_are_components_of_the_mean():
    sure, unsure = (slice(2, 6), slice(2, 7)), (slice(10, 13), slice(10, 14))
    assert candidates(blobs((20, 20), (sure, 0.9), (unsure, 0.5))) == 2


def test_what_touches_by_a_corner_is_one_and_specks_are_none():
    corner = blobs((12, 12), ((slice(2, 5), slice(2, 5)), 0.5), ((slice(5, 8), slice(5, 8)), 0.5))
    assert candidates(corner) == 1
    assert candidates(blobs((12, 12), ((slice(0, 1), slice(0, LEAST)), 0.5))) == 1
    assert candidates(blobs((12, 12), ((slice(0, 1), slice(0, LEAST - 1)), 0.5))) == 0
    assert candidates(blobs((12, 12), ((slice(0, 6), slice(0, 6)), CANDIDATE - 0.01))) == 0


def test_in_a_volume_a_candidate_goes_through_slices():
    assert candidates(blobs((9, 9, 5), ((slice(2, 5), slice(2, 5), slice(1, 4)), 0.6))) == 1
    apart = ((slice(2, 5), slice(2, 5), 0), 0.6), ((slice(2, 5), slice(2, 5), 2), 0.6)
    assert candidates(blobs((9, 9, 5), *apart)) == 2


def test_a_study_where_nothing_is_seen_is_not_doubted():
    nothing = np.zeros((VIEWS, 8, 8), np.float32)
    assert candidates(nothing) == 0 and doubt(nothing) == 0


def test_doubt_is_one_less_the_dice_of_the_views_by_pairs():
    views = np.zeros((3, 40, 40), np.float32)
    views[0, :20, :20] = views[1, :20, 10:30] = views[2, :20, :20] = 1
    half = 1 - (2 * 200 + SMALL) / (400 + 400 + SMALL)
    assert doubt(views) == pytest.approx((half + half + 0) / 3)
    assert doubt(views[:1].repeat(4, 0)) == pytest.approx(0)
    assert doubt(0.5 * views[:2]) == pytest.approx(1 - (0.5 * 200 + SMALL) / (200 + SMALL))


def test_views_that_see_different_things_are_doubted_but_little_where_these_are_small():
    def apart(side):
        views = np.zeros((2, 60, 60), np.float32)
        views[0, :side, :side] = views[1, 30 : 30 + side, :side] = 1
        return doubt(views)

    assert apart(2) < 0.1 < apart(8) < 0.9 < apart(30)


class Bright(nn.Module):
    """Sees a lesion where an image is bright: the same in every view."""

    def forward(self, image):
        return 20 * (image[:, :1] - 0.5)


class Left(nn.Module):
    """Sees a lesion where an image is bright and left of the middle: mirrored views do not agree."""

    def forward(self, image):
        logits = 20 * (image[:, :1] - 0.5)
        logits[:, :, image.shape[2] // 2 :] = -20
        return logits


def square(*shape):
    image = torch.zeros(1, *shape)
    image[:, 8:16, 14:22] = 1
    return image


def infer(network, inferer=None):
    inferer = inferer or SimpleInferer()
    return lambda batch: inferer(batch, network)


def test_views_are_brought_back_onto_the_image():
    image = square(48, 40)
    found = probabilities(image, infer(Bright()), views=6)
    assert found.shape == (6, 48, 40) and found.dtype == np.float32
    truth = image[0].numpy() > 0
    for view in found:
        inside, both = view > 0.5, (view > 0.5) & truth
        assert 2 * both.sum() / (inside.sum() + truth.sum()) > 0.85
    assert len({view.tobytes() for view in found}) == 6


def test_views_that_do_not_agree_are_doubted_more():
    image = square(48, 40)
    same, other = (probabilities(image, infer(one), views=8) for one in (Bright(), Left()))
    assert candidates(same) == candidates(other) == 1
    assert doubt(other) > 2 * doubt(same)


def test_a_volume_is_turned_within_its_slices():
    image = torch.zeros(1, 48, 40, 4)
    image[:, 8:16, 14:22, 2] = 1
    network = Bright()
    found = probabilities(image, infer(network, SliceInferer(roi_size=[48, 40], spatial_dim=2)), views=3)
    assert found.shape == (3, 48, 40, 4)
    assert found[..., [0, 1, 3]].max() < 0.01
    assert found[..., 2].max() > 0.9


def test_how_an_image_was_prepared_is_not_taken_back():
    image = square(48, 40)
    prepared = Flip(0)(Flip(0)(MetaTensor(image)))
    first, other = (probabilities(one, infer(Bright()), views=2) for one in (image, prepared))
    assert np.array_equal(first, other)


def test_what_a_network_gives_may_know_its_image():
    def tracked(batch):
        return MetaTensor(20 * (batch[0] - 0.5), meta={"filename_or_obj": "a"})[None]

    found = probabilities(square(48, 40), tracked, views=2)
    assert np.array_equal(found, probabilities(square(48, 40), infer(Bright()), views=2))


def test_the_same_seed_gives_the_same_views():
    image = square(48, 40)
    first, again, other = (probabilities(image, infer(Bright()), 2, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_several_labels_count_as_their_highest():
    class Two(nn.Module):
        def forward(self, image):
            return torch.cat([image[:, :1] * 0 - 20, 20 * (image[:, :1] - 0.5)], 1)

    assert probabilities(square(48, 40), infer(Two()), views=2).max() > 0.9

from __future__ import annotations

import numpy as np
import pytest

from pipelines.datasets.shapes import capsule, coverage, ellipsoid, grain, paint, union, waves


def grid(half: float, step: float):
    axis = np.arange(-half, half + step / 2, step, dtype=np.float32)
    return np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)


def test_distance_to_a_sphere_is_exact():
    points = grid(20, 1)
    expected = np.sqrt(sum(p**2 for p in points)) - 8
    assert np.allclose(ellipsoid(points, (0, 0, 0), (8, 8, 8)), expected, atol=1e-4)


def test_ellipsoid_has_its_analytic_volume():
    points = grid(20, 0.5)
    inside = ellipsoid(points, (0.1, 0.2, 0.3), (6, 9, 14)) < 0
    assert inside.sum() * 0.5**3 == pytest.approx(4 / 3 * np.pi * 6 * 9 * 14, rel=0.01)


def test_coverage_sums_to_the_volume_although_the_grid_is_coarse():
    shares = coverage(ellipsoid(grid(12, 2), (0.3, 0.5, 0.7), (5, 5, 5)), 2)
    assert shares.sum() * 2**3 == pytest.approx(4 / 3 * np.pi * 5**3, rel=0.05)


def test_distance_to_a_capsule_beside_and_beyond_its_axis():
    points = (np.float32([0, 0]), np.float32([5, 0]), np.float32([3, 14]))
    assert capsule(points, (0, 0, 0), (0, 0, 10), 2) == pytest.approx([3, 2])


def test_union_is_the_smaller_distance_where_the_shapes_are_apart_and_rounds_their_crease():
    first, second = np.float32([-5, 9, 1]), np.float32([3, -2, 1])
    assert union(first, second, 4) == pytest.approx([-5, -2, 0])


def test_paint_mixes_by_coverage():
    image = np.zeros(3, np.float32)
    paint(image, np.float32([-2, 0, 2]), 100, 2)
    assert image == pytest.approx([100, 50, 0])


def test_waves_are_the_same_field_on_a_finer_grid():
    coarse = waves(grid(30, 2), np.random.default_rng(3), 20)
    fine = waves(grid(30, 1), np.random.default_rng(3), 20)
    assert np.allclose(fine[::2, ::2, ::2], coarse, atol=1e-3)
    assert 0.6 < fine.std() < 1.4


def test_grain_has_unit_deviation_and_is_correlated_along_the_blurred_axis_only():
    noise = grain(np.random.default_rng(0), (60, 60, 20), (1.5, 0.01, 0.01))
    assert noise.std() == pytest.approx(1, abs=1e-4)
    along = np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]
    across = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
    assert along > 0.8
    assert abs(across) < 0.05

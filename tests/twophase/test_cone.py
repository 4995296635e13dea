"""Geometry of kernels from their Gram matrix, against the kernels themselves and against cones of known half-angle."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twophase import cone
from twophase.enclosing_cone import enclosing_cone

TIGHT = 1e-10
"""Products of some hundred float64 numbers of order 1 are exact to 1e-13, and an angle of 0.1 to ten times that."""


def rng(seed=0):
    return np.random.default_rng(seed)


def kernels(num=9, size=6, seed=0):
    roots = rng(seed).normal(size=(num, size, 3 * size)) + 0.5
    return (roots @ roots.transpose(0, 2, 1)).reshape(num, -1) * np.geomspace(1, 50, num)[:, None]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def on_cone(half_angle, num=12, size=20, seed=0):
    """Directions on the surface of a cone, spread all around its axis."""
    across = rng(seed).normal(size=(num, size - 1))
    across = unit(np.concatenate([across, -across]))  # both sides: the axis is then the smallest cone's own
    return np.column_stack([np.full(len(across), math.cos(half_angle)), math.sin(half_angle) * across])


def test_all_of_it_agrees_with_the_kernels_themselves():
    taken = kernels()
    gram = taken @ taken.T
    between, u = cone.distances(gram), unit(taken)
    assert (np.diag(cone.angles(gram)) == 0).all()
    off = ~np.eye(len(u), dtype=bool)
    np.testing.assert_allclose(cone.angles(gram)[off], np.arccos((u @ u.T)[off]), rtol=TIGHT)
    mean = unit(u.mean(axis=0))
    np.testing.assert_allclose(cone.from_mean(between), np.arccos(u @ mean), rtol=TIGHT)
    assert cone.half_angle(between, 0.5) == pytest.approx(np.median(np.arccos(u @ mean)), rel=TIGHT)
    np.testing.assert_allclose(cone.norm_ratios(gram), np.linalg.norm(taken, axis=1) / np.linalg.norm(taken[0]))
    for is_unit, vectors in ((False, taken), (True, u)):
        found = cone.apex_distances(gram, 2, is_unit=is_unit)
        assert np.isnan(found[2]).all()
        kept = [0, 1, *range(3, len(u))]
        away = unit(vectors[kept] - vectors[2])
        np.testing.assert_allclose(found[np.ix_(kept, kept)], 1 - away @ away.T, atol=TIGHT)
    values = np.linalg.svd(u - u.mean(axis=0), compute_uv=False) ** 2
    assert cone.participation_ratio(between) == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=TIGHT)


def test_coordinates_keep_the_axis_and_lose_nothing_of_three_dimensions():
    u = on_cone(0.4, size=3)
    found = cone.coordinates(cone.distances(u @ u.T))
    np.testing.assert_allclose(found.points @ found.points.T, u @ u.T, atol=TIGHT)
    np.testing.assert_allclose(found.points[:, 2], math.cos(0.4), atol=TIGHT)
    assert found.shown_fraction == pytest.approx(1.0)
    wide = on_cone(0.4, size=20)
    seen = cone.coordinates(cone.distances(wide @ wide.T))
    assert (np.linalg.norm(seen.points[:, :2], axis=1) <= math.sin(0.4) + TIGHT).all()
    assert 0 < seen.shown_fraction < 0.9


@pytest.mark.parametrize("half_angle", [1e-5, 0.01, 0.3, 1.2])
def test_a_cone_of_known_size_is_found_about_the_mean_and_as_the_smallest(half_angle):
    inside = unit(on_cone(half_angle / 2, seed=1) + 1e-3 * half_angle)
    u = np.concatenate([on_cone(half_angle), inside])
    between = np.sum((u[:, None] - u[None]) ** 2, axis=2) / 2
    # Coordinates of order 1 hold a half-angle of 1e-5 to 1e-16 / 1e-5.
    close = max(TIGHT, 1e-9 * half_angle) if half_angle > 1e-4 else 1e-10
    found = enclosing_cone(between)
    assert found.half_angle == pytest.approx(half_angle, abs=close)
    assert found.gap <= close
    assert cone.half_angle(between[:24, :24]) == pytest.approx(half_angle, abs=close)


@given(st.integers(1, 14), st.integers(1, 6), st.integers(0, 10_000))
def test_no_axis_makes_a_smaller_cone(num, size, seed):
    u = unit(np.abs(rng(seed).normal(size=(num, size))) + 0.05)
    u[num // 2] = u[0]  # one direction twice
    between = np.sum((u[:, None] - u[None]) ** 2, axis=2) / 2
    found = enclosing_cone(between)
    axis = found.weights @ u
    # Holds all, is no larger than its own bound, and a step of the axis anywhere makes it wider.
    assert np.arccos(np.clip(unit(axis) @ u.T, -1, 1)).max() == pytest.approx(found.half_angle, abs=3e-8)
    assert found.gap < TIGHT
    assert found.weights.sum() == pytest.approx(1.0)
    moved = unit(unit(axis) + 0.01 * rng(seed + 1).normal(size=(40, size)))
    assert (np.arccos(np.clip(moved @ u.T, -1, 1)).max(axis=1) >= found.half_angle - 3e-8).all()
    assert cone.half_angle(between) >= found.half_angle - TIGHT


def test_what_is_not_finite_stays_unknown():
    taken = kernels(5)
    gram = taken @ taken.T
    gram[3] = gram[:, 3] = math.nan
    between = cone.distances(gram)
    assert np.isnan(cone.angles(gram)[3]).all()
    assert np.isfinite(cone.angles(gram)[0, [0, 1, 2, 4]]).all()
    for value in (
        cone.half_angle(between),
        enclosing_cone(between).half_angle,
        enclosing_cone(between).gap,
        cone.participation_ratio(between),
        cone.coordinates(between).shown_fraction,
        cone.norm_ratios(gram)[3],
    ):
        assert math.isnan(value)
    assert math.isnan(enclosing_cone(1.0 - np.array([[1.0, -1.0], [-1.0, 1.0]])).half_angle)  # in no half-space

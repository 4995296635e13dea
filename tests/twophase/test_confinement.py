"""Confinement to a cone: walks pass at the stated rate, cones are found, and nothing is claimed of too little."""

import math

import numpy as np
import pytest

from twophase import sphere_walk
from twophase.angle_growth import growth_exponent
from twophase.confinement import confinement, drift_share, natural_p_value, walk_test

NUM = 8
"""Checkpoints after τ: all 128 ways to reverse their steps are taken."""

WALKS = {"even": np.full(NUM, 0.2), "shrinking": 0.4 * np.linspace(1.0, 0.02, NUM), "wide": np.full(NUM, 0.7)}


def rng(seed=0):
    return np.random.default_rng(seed)


def jitter(drawn, num=NUM, dimension=20, size=0.3, decay=1.0, axis_walk=0.0):
    """Independent jitter about an axis that stands still or walks; it shrinks to `decay`."""
    noise = drawn.standard_normal((num + 1, dimension)) * np.linspace(1.0, decay, num + 1)[:, None]
    moved = axis_walk * drawn.standard_normal((num + 1, dimension)).cumsum(axis=0)
    points = np.column_stack([np.ones(num + 1), size / math.sqrt(dimension) * (noise + moved)])
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def judged(points, **options):
    return confinement(points @ points.T, np.arange(len(points), dtype=float) * 10, 0.0, **options)


def test_a_path_rolled_out_again_is_itself_and_a_reversed_one_keeps_its_steps():
    points = sphere_walk.isotropic_walks(WALKS["wide"], 4, 1, rng())[0]
    steps = sphere_walk.unrolled(points)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 0.7, atol=1e-12)
    np.testing.assert_allclose(steps @ points[0], 0.0, atol=1e-12)
    signs = rng(1).choice([-1.0, 1.0], (5, NUM))
    signs[0] = 1.0
    paths = sphere_walk.reversed_walks(points, signs)
    np.testing.assert_allclose(paths[0], points, atol=1e-12)
    adjacent = np.arccos((paths[:, 1:] * paths[:, :-1]).sum(axis=2))
    np.testing.assert_allclose(adjacent, 0.7, atol=1e-12)
    # A straight path is a great circle, and its reversal at the end goes back over it.
    circle = np.column_stack([np.cos(0.3 * np.arange(4)), np.sin(0.3 * np.arange(4))])
    (back,) = sphere_walk.reversed_walks(circle, np.array([[1.0, 1.0, -1.0]]))
    np.testing.assert_allclose(back, circle[[0, 1, 2, 1]], atol=1e-12)


@pytest.mark.parametrize(
    ("sizes", "dimension"),
    [
        ("even", 15),
        ("shrinking", 2),
        *(pytest.param(sizes, d, marks=pytest.mark.slow) for sizes in WALKS for d in (2, 5, 15, 60)),
    ],
)
def test_five_percent_of_walks_are_rejected_whatever_their_steps(sizes, dimension):
    walks = sphere_walk.isotropic_walks(WALKS[sizes], dimension, 500, rng(7))
    share = np.mean([walk_test(points, rng())[0] <= 0.05 for points in walks])
    # 6 of 128 is 4.7 %; 500 draws have a standard error of 1 %.
    assert 0.03 <= share <= 0.07


def test_of_walks_hardly_any_is_called_confined_and_of_jitter_nearly_all():
    walks = sphere_walk.isotropic_walks(WALKS["shrinking"], 10, 20, rng(3))
    drawn = rng(4)
    verdicts = [judged(points).verdict for points in walks]
    assert verdicts.count("confined") <= 1
    assert verdicts.count("not_confined") >= 14  # the others have all but stopped after a few steps: too little to tell
    for decay in (1.0, 0.1):  # a shrinking learning rate
        cones = [judged(jitter(drawn, decay=decay)) for _ in range(20)]
        assert [found.verdict for found in cones].count("confined") >= 19
    angle = np.linspace(0.0, 1.0, NUM + 1)
    straight = np.column_stack([np.cos(angle), np.sin(angle)])
    assert judged(straight).verdict == "not_confined"
    assert judged(jitter(drawn, axis_walk=3.0)).verdict == "not_confined"


def test_drift_share_is_nothing_for_jitter_half_for_walks_and_three_quarters_for_straight_paths():
    drawn = rng(5)

    def mean(paths):
        return np.mean([drift_share(1.0 - p @ p.T) for p in paths])

    for decay in (1.0, 0.1):
        assert abs(mean(jitter(drawn, decay=decay) for _ in range(100))) < 0.01
    assert mean(sphere_walk.isotropic_walks(np.full(60, 0.02), 20, 100, drawn)) == pytest.approx(0.5, abs=0.02)
    angle = np.linspace(0.0, 0.1, 400)
    assert mean([np.column_stack([np.cos(angle), np.sin(angle)])]) == pytest.approx(0.75, abs=0.005)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("dimension", [2, 30])
def test_the_interval_of_an_exponent_holds_it(gamma, dimension):
    lags = np.array([1.0, 2, 5, 10, 20, 30, 40, 50, 60])
    powers = lags ** (2 * gamma)
    gaps = np.abs(lags[:, None] - lags)
    covariance = 0.5 * (powers[:, None] + powers - np.where(gaps > 0, gaps ** (2 * gamma), 0.0))
    paths = np.linalg.cholesky(covariance) @ rng(6).standard_normal((100, len(lags), dimension))
    found = [growth_exponent(lags, angles, dimension) for angles in np.linalg.norm(paths, axis=2)]
    assert np.mean([exponent.low <= gamma <= exponent.high for exponent in found]) >= 0.9
    assert np.mean([exponent.value for exponent in found]) == pytest.approx(gamma, abs=0.06)
    assert growth_exponent(lags, 0.1 * lags**gamma, dimension).value == pytest.approx(gamma)


def test_exponents_over_steps_and_over_learning_rates_are_told_apart():
    steps = np.arange(12.0) * 10
    clock = np.sqrt(steps)  # a decaying rate
    angle = 0.1 * clock
    points = np.column_stack([np.cos(angle), np.sin(angle)])
    found = confinement(points @ points.T, steps, 0.0, lr_integral=clock)
    assert found.gamma_step.value == pytest.approx(0.5)
    assert found.gamma_lr.value == pytest.approx(1.0)
    assert math.isnan(confinement(points @ points.T, steps, 0.0).gamma_lr.value)


def test_other_runs_that_are_as_close_forbid_a_cone():
    points = jitter(rng(8))
    to_tau = np.arccos(points[1:] @ points[0])
    far, near = np.tile(to_tau + 0.2, (4, 1)), np.tile(to_tau - 0.01, (4, 1))
    far[2] = near[3, :5] = math.nan  # a run that isn't there, and one that is in part
    assert natural_p_value(to_tau, far) == pytest.approx(1 / 4)
    assert natural_p_value(to_tau, near) == 1.0
    assert judged(points, natural=far).verdict == "confined"
    assert judged(points, natural=near).verdict == "not_confined"


def test_too_little_is_undetermined_and_what_is_unknown_stays_so():
    points = jitter(rng(9), num=12)
    gram, steps = points @ points.T, np.arange(13.0)
    late = confinement(gram, steps, 8.0)
    assert (late.verdict, late.num_later) == ("undetermined", 4)
    assert "only 4 checkpoints" in late.reason
    assert late.half_angle > 0
    gram[10] = gram[:, 10] = math.nan
    lost = confinement(gram, steps, 2.0)
    assert lost.verdict == "undetermined"
    assert all(map(math.isnan, (lost.p_walk, lost.half_angle, lost.gamma_step.low, lost.drift_share)))
    assert confinement(np.ones((9, 9)), np.arange(9.0), 0.0).reason == "the kernel doesn't turn"


def test_the_same_seed_gives_the_same_verdict_to_the_last_bit():
    points = jitter(rng(10), num=14)
    assert judged(points) == judged(points)

"""Accelerated failure times: against lifelines, exact t intervals, known coefficients, and what has no maximum."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from twophase.errors import BadInput
from twophase.survival import effect, fit_times, is_covered, read_times

REFERENCE = json.loads(Path(__file__).with_name("aft_reference.json").read_text(encoding="utf-8"))
GRID = np.array([0, 10, 25, 50, 100, 200, 400], dtype=float)


def seen_at(times, grid=GRID):
    cell = np.searchsorted(grid, times)
    return grid[cell - 1], np.append(grid, np.inf)[cell]


def made(rng, *, settings=12, seeds=4, line=(5.6, 0.4), tau=0.2, sigma=0.3):
    """Times of settings along a line in one covariate, each setting off the line, each seed off its setting."""
    x = np.repeat(np.linspace(-1.5, 1.5, settings), seeds)
    place = np.repeat(np.arange(settings), seeds)
    logs = line[0] + line[1] * x + tau * rng.normal(size=settings)[place] + sigma * rng.normal(size=len(x))
    return np.c_[np.ones_like(x), x], np.exp(logs), place


def test_the_same_as_lifelines():
    data = {name: np.array(values, dtype=float) for name, values in REFERENCE["data"].items()}
    design = np.c_[np.ones(len(data["low"])), data["octaves"], data["depth"]]
    found = fit_times(read_times(design, data["low"], data["high"]))
    assert found.coefficients == pytest.approx(list(REFERENCE["coefficients"].values()), abs=1e-3)
    assert found.scale == pytest.approx(REFERENCE["scale"], abs=1e-3)
    assert found.log_likelihood == pytest.approx(REFERENCE["log_likelihood"], abs=1e-4)


def test_times_that_are_seen_give_the_exact_t_interval_of_the_settings_means():
    design, times, place = made(np.random.default_rng(0))
    read = read_times(design, times, times, place.tolist())
    found = effect(read, fit_times(read), 1)
    means = np.log(times).reshape(12, 4).mean(axis=1)
    line = stats.linregress(design[::4, 1], means)
    half = stats.t.ppf(0.975, 10) * line.stderr
    # The search for an end stops within 1e-4.
    assert found.estimate == pytest.approx(line.slope, abs=1e-5)
    assert (found.low, found.high) == pytest.approx((line.slope - half, line.slope + half), abs=2e-4)
    assert found.p_value == pytest.approx(line.pvalue, rel=1e-3)
    assert (found.num_units, found.degrees) == (12, 10)


def test_a_factor_within_clusters_is_the_paired_t_test():
    rng = np.random.default_rng(1)
    of_seed = rng.normal(size=8)
    first, second = of_seed + 0.2 * rng.normal(size=8), of_seed + 0.4 + 0.2 * rng.normal(size=8)
    times = np.exp(np.r_[first, second])
    design = np.c_[np.ones(16), np.repeat([0.0, 1.0], 8)]
    read = read_times(design, times, times, [*range(8), *range(8)])
    found = effect(read, fit_times(read), 1)
    paired = stats.ttest_rel(second, first)
    assert found.p_value == pytest.approx(paired.pvalue, rel=1e-2)
    ends = paired.confidence_interval()
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), abs=2e-3)
    assert found.degrees == 7


def test_seeds_of_one_cell_tell_no_more_than_the_cell():
    low, high = np.array([50.0] * 4 + [200.0] * 4), np.array([100.0] * 4 + [400.0] * 4)
    read = read_times(np.c_[np.ones(8), np.repeat([0.0, 1.0], 4)], low, high)
    found = effect(read, fit_times(read), 1)
    assert found.low < math.log(200 / 100) + 0.05
    assert found.high > math.log(400 / 50) - 0.05
    assert math.log(2) < found.estimate < math.log(8)


def test_a_group_that_never_crossed_has_no_upper_end():
    low, high = np.array([50.0, 25, 50, 100, *[400.0] * 4]), np.array([100.0, 50, 100, 200, *[math.inf] * 4])
    read = read_times(np.c_[np.ones(8), np.repeat([0.0, 1.0], 4)], low, high)
    found = effect(read, fit_times(read), 1)
    assert found.estimate == found.high == math.inf
    # The other way about, the same with its sign turned.
    turned = read_times(np.c_[np.ones(8), np.repeat([1.0, 0.0], 4)], low, high)
    mirrored = effect(turned, fit_times(turned), 1)
    assert (mirrored.estimate, mirrored.low) == (-math.inf, -math.inf)
    assert mirrored.high == pytest.approx(-found.low, abs=1e-3)
    assert 0.5 < found.low < 3


def test_units_of_a_covariate_do_not_matter():
    design, times, place = made(np.random.default_rng(3), settings=6, seeds=3)
    low, high = seen_at(times)
    plain = read_times(design, low, high, place.tolist())
    scaled = read_times(design * [1, 1000.0], 60 * low, 60 * high, place.tolist())
    one, other = (effect(read, fit_times(read), 1) for read in (plain, scaled))
    assert other.estimate * 1000 == pytest.approx(one.estimate, abs=1e-3)
    assert other.p_value == pytest.approx(one.p_value, rel=2e-2)


def covered_share(num, **how):
    rng = np.random.default_rng(5)
    hits, censored = 0, 0.0
    for _ in range(num):
        design, times, place = made(rng, **how)
        low, high = seen_at(times)
        censored += float(np.isinf(high).mean()) / num
        read = read_times(design, low, high, place.tolist())
        hits += is_covered(read, fit_times(read), 1, 0.4)
    return hits / num, censored


def test_intervals_cover_a_known_coefficient_under_censoring():
    share, censored = covered_share(25, settings=6, seeds=3, line=(5.65, 0.4))
    assert 0.2 < censored < 0.4
    # 25 draws of 95 %: fewer than 21 hits would happen once in 140 times.
    assert share >= 21 / 25


@pytest.mark.slow
@pytest.mark.parametrize("tau", [0.0, 0.2, 0.6])
@pytest.mark.parametrize(("settings", "seeds"), [(6, 3), (12, 4)])
def test_intervals_cover_over_many_draws(tau, settings, seeds):
    share, _ = covered_share(200, settings=settings, seeds=seeds, tau=tau, line=(5.65, 0.4))
    assert 0.905 <= share <= 0.995  # three standard errors of 200 draws of 95 %


@pytest.mark.slow
def test_coefficients_are_recovered():
    rng = np.random.default_rng(11)
    found = []
    for _ in range(200):
        design, times, place = made(rng)
        found.append(fit_times(read_times(design, *seen_at(times), place.tolist())).coefficients)
    # Four standard errors of the mean of 200 draws of a spread of about .1.
    assert np.mean(found, axis=0) == pytest.approx([5.6, 0.4], abs=0.03)


@pytest.mark.parametrize(
    ("design", "low", "high", "words"),
    [
        ([[1.0], [1.0]], [1.0, 2.0], [0.5, 3.0], "0 <= low <= high"),
        ([[1.0, 2.0]] * 3, [1.0] * 3, [2.0] * 3, "don't depend on each other"),
        ([[1.0]], [1.0], [2.0], "need more times"),
        ([[1.0], [1.0]], [1.0], [2.0], r"design \[times, coefficients\]"),
    ],
)
def test_bad_times_are_one_line(design, low, high, words):
    with pytest.raises(BadInput, match=words):
        read_times(design, low, high)


def test_a_trend_of_two_settings_has_no_degrees_of_freedom():
    read = read_times(np.c_[np.ones(6), np.repeat([0.0, 1.0], 3)], [50.0] * 6, [100.0] * 6, [0, 0, 0, 1, 1, 1])
    found = effect(read, fit_times(read), 1)
    assert math.isnan(found.p_value)
    assert (found.low, found.high) == (-math.inf, math.inf)

"""Other estimands than the threshold, on curves whose answers are known."""

import math

import numpy as np
import pytest

from benchmarks.coverage import FINE, LOCATED, estimates
from twophase.errors import BadInput
from twophase.estimands import ESTIMANDS, fit_logistic, octaves_of_change
from twophase.transition import BIMODAL, locate_transition

STEPS = np.array([0, 10, 20, 40, 80, 160, 320, 640, 1280], dtype=float)


def logistic(middle, width, plateau=1.0, steps=STEPS):
    return plateau / (1 + np.exp((np.log1p(steps) - math.log1p(middle)) / width))


def located(curve, estimand, threshold=0.05):
    return locate_transition(STEPS, [curve, curve], threshold=threshold, estimand=estimand)


@pytest.mark.parametrize("plateau", [0.4, 1.0, 3.0])
def test_a_fitted_logistic_gives_its_middle_and_width_whatever_the_plateau(plateau):
    curve = logistic(100.0, 0.4, plateau)
    assert fit_logistic(STEPS, curve) == pytest.approx((math.log1p(100.0), 0.4), rel=1e-5)
    found = located(curve, "logistic")
    assert found.step == pytest.approx(100.0, rel=1e-4)
    assert (found.low, found.high) == (80.0, 160.0)
    dense = np.arange(0.0, 5000.0)
    wide = 2 * math.log(9) * 0.4 / math.log(2)
    assert octaves_of_change(dense, logistic(100.0, 0.4, plateau, dense)) == pytest.approx(wide, rel=0.02)


def test_half_height_moves_with_the_plateau_and_the_threshold_does_not():
    """Two parts, one that stays and one that falls early: only the first decides when children connect."""
    late = logistic(300.0, 0.1, 0.3)
    early = logistic(15.0, 0.1, 2.0)
    half = [located(curve, "half_height").step for curve in (late, late + early)]
    thresholds = [located(curve, "threshold").step for curve in (late, late + early)]
    assert half[1] < half[0] / 5
    assert thresholds[1] == pytest.approx(thresholds[0], rel=0.05)


def test_a_change_point_is_a_cell_and_none_where_nothing_changes():
    curve = np.where(STEPS < 100, 1.0, 0.02)
    found = located(curve, "change_point")
    assert (found.low, found.high) == (80.0, 160.0)
    assert found.step == pytest.approx(math.expm1((math.log1p(80) + math.log1p(160)) / 2))
    level = np.random.default_rng(0).normal(1.0, 0.1, STEPS.size)
    assert located(level, "change_point").verdict == "chaotic_throughout"


@pytest.mark.parametrize("estimand", ESTIMANDS)
def test_what_is_never_above_or_never_falls_is_never_located(estimand):
    assert located(np.full(STEPS.size, 0.01), estimand).verdict == "stable_from_start"
    assert located(np.full(STEPS.size, 1.0), estimand).verdict == "chaotic_throughout"
    diverged = np.where(STEPS < 100, np.inf, 0.0)
    found = located(diverged, estimand)
    assert found.verdict == "located"
    assert 80 <= found.step <= 160 * (1 + 1e-9)


def test_reopenings_and_sharpness_are_told():
    curve = [1.0, 0.5, 0.01, 0.01, 0.3, 0.01, 0.0, 0.0, 0.0]
    found = located(curve, "threshold")
    assert found.reopenings == (80.0,)
    assert 80 < found.step < 160
    assert located(logistic(100.0, 0.1), "threshold").reopenings == ()
    assert located(logistic(100.0, 0.1), "threshold").octaves < located(logistic(100.0, 0.4), "threshold").octaves


def test_bimodal_outcomes_are_flagged_and_usual_ones_are_not():
    flagged = {}
    for world in LOCATED:
        found = [BIMODAL in one.method for one in estimates(world, FINE, num_seeds=5, num_draws=40)]
        flagged[world.name] = np.mean(found)
    assert flagged.pop("half of the directions see nothing") > 0.8
    assert flagged.pop("loud directions (.8)") < 0.5
    assert max(flagged.values()) < 0.1


def test_an_unknown_estimand_is_told():
    with pytest.raises(BadInput, match="unknown estimand 'median'; known: change_point, half_height, logistic, thresh"):
        located(np.ones(STEPS.size), "median")


@pytest.mark.parametrize("estimand", ESTIMANDS)
def test_names_gaps_and_repetition_change_no_estimand(estimand):
    """Seeds by other names in another order, a fork step that nobody has, and every direction twice."""
    curves = [logistic(middle, 0.3, plateau) for middle, plateau in ((60.0, 1.0), (100.0, 2.0), (90.0, 0.5))]
    known = locate_transition(STEPS, curves, groups=["a", "b", "c"], estimand=estimand)
    renamed = locate_transition(STEPS, curves[::-1], groups=[3, 1, 2], estimand=estimand)
    gap = locate_transition([*STEPS, 5000], [[*curve, math.nan] for curve in curves], estimand=estimand)
    twice = locate_transition(STEPS, curves * 2, groups=["a", "b", "c"] * 2, estimand=estimand)
    assert known.verdict == "located"
    for other in (renamed, gap, twice):
        assert (other.step, other.low, other.high) == pytest.approx((known.step, known.low, known.high), rel=1e-9)
        assert (other.num_seeds, other.verdict) == (3, "located")

"""The critical magnitude, seed by seed and in the median."""

import math

import numpy as np
import pytest
from scipy import stats

from twophase.boundary import locate_boundary
from twophase.errors import BadInput

SIZES = [1e-4, 1e-3, 1e-2]


def test_a_boundary_by_hand():
    # Linear in the logarithm: .05 is halfway between 0 and .1, a quarter of the way to .2, and three quarters from .02.
    found = locate_boundary(SIZES, [[0.0, 0.1, 1.0], [0.0, 0.2, 1.0], [0.0, 0.02, 0.06]])
    logs = np.array([-3.5, -3.75, -2.25])
    assert math.log10(found.magnitude) == pytest.approx(-3.5)
    assert (found.censoring, found.num_seeds) == ("none", 3)
    half = stats.t.ppf(0.975, 2) * logs.std(ddof=1) / math.sqrt(3)
    assert logs.mean() - half < -4  # past what was tested: open
    assert (found.low, found.high) == (0.0, math.inf)
    close = locate_boundary(SIZES, [[0.0, 0.1, 1.0]] * 3)
    assert (close.low, close.high) == (1e-4, 1e-3)


@pytest.mark.parametrize(
    ("curves", "censoring", "low", "high"),
    [
        ([[1.0, 1.0, 1.0]] * 3, "left", 0.0, 1e-4),
        ([[0.0, 0.0, 0.05]] * 3, "right", 1e-2, math.inf),
        ([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], "both", 0.0, math.inf),
        ([[1.0, 1.0, 1.0]] * 2 + [[0.0, 0.1, 1.0]] * 2, "left", 0.0, 1e-3),
        ([[0.0, 0.1, 1.0]], "undetermined", math.nan, math.nan),
    ],
)
def test_what_lies_past_the_tested_magnitudes_is_censored(curves, censoring, low, high):
    found = locate_boundary(SIZES, curves)
    assert math.isnan(found.magnitude)
    assert found.censoring == censoring
    assert (found.low, found.high) == pytest.approx((low, high), nan_ok=True)


def test_the_first_magnitude_that_disconnects_counts_whatever_larger_ones_do():
    one = locate_boundary(SIZES, [[0.0, 0.1, 0.0]] * 2)
    assert math.log10(one.magnitude) == pytest.approx(-3.5)


def test_a_diverged_child_disconnects_and_a_missing_one_tells_nothing():
    assert locate_boundary(SIZES, [[0.0, math.inf, 1.0]] * 2).magnitude == pytest.approx(1e-4)
    assert math.log10(locate_boundary(SIZES, [[0.0, math.nan, 0.1]] * 2).magnitude) == pytest.approx(-3.0)


def test_directions_are_averaged_within_their_seed():
    found = locate_boundary(SIZES, [[0.0, 0.0, 0.0], [0.0, 0.2, 0.2], [0.0, 0.1, 0.1]], groups=[0, 0, 1])
    assert found.num_seeds == 2
    assert math.log10(found.magnitude) == pytest.approx(-3.5)


def test_magnitudes_must_rise():
    with pytest.raises(BadInput, match="increasing"):
        locate_boundary([1e-2, 1e-3], [[0.0, 1.0]])

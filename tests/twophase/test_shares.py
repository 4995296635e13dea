"""Shares and their tests, against closed forms and scipy's own."""

import math

import pytest
from scipy.stats import fisher_exact

from twophase.shares import fisher, holm, share


def test_the_exact_interval():
    # Of none in n: the upper end solves (1 − p)^n = .025 (Clopper & Pearson 1934).
    none = share(0, 4)
    assert (none.value, none.low, none.high) == pytest.approx((0.0, 0.0, 1 - 0.025**0.25))
    every = share(4, 4)
    assert (every.low, every.high) == pytest.approx((0.025**0.25, 1.0))
    assert math.isnan(share(0, 0).value)


@pytest.mark.parametrize("table", [(0, 4, 4, 4), (1, 16, 10, 16), (2, 5, 2, 7), (3, 3, 3, 3)])
def test_one_pair_is_fisher_s_own_test(table):
    a, n, b, m = table
    assert fisher([(share(a, n), share(b, m))]) == pytest.approx(fisher_exact([[a, n - a], [b, m - b]]).pvalue)


def test_pairs_together_tell_more_than_each():
    pair = (share(0, 4), share(4, 4))
    # The one table of its margins that is as extreme, or its mirror: 2 of 70; of two such pairs 2 of 70².
    assert fisher([pair]) == pytest.approx(2 / 70)
    assert fisher([pair, pair]) == pytest.approx(2 / 70**2)
    # Pairs that all had it, or that have nobody, tell nothing.
    assert fisher([pair, (share(3, 3), share(5, 5)), (share(0, 0), share(1, 2))]) == pytest.approx(2 / 70)
    # Opposite pairs cancel, though pooled over pairs nothing would remain to see either.
    assert fisher([pair, pair[::-1]]) == pytest.approx(1.0)
    assert math.isnan(fisher([]))


def test_holm_by_hand():
    corrected = holm([0.01, 0.04, math.nan, 0.03, 0.5])
    assert corrected == pytest.approx([0.04, 0.09, math.nan, 0.09, 0.5], nan_ok=True)
    assert holm([0.6, 0.9]) == [1.0, 1.0]

"""Shares of seeds and what two of them tell: exact intervals, Fisher's test, and p-values of many comparisons."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy

from twophase.errors import BadInput


class Share(NamedTuple):
    """How many of how many, with an exact interval for the share; NaN of none."""

    hits: int
    num: int
    value: float
    low: float
    high: float


def share(count: int, num: int, confidence: float = 0.95) -> Share:
    """Estimate a share from a count, with the exact interval of Clopper & Pearson (1934), which covers for any number.

    Args:
        count: How many had it.
        num: Of how many.
        confidence: Least coverage, inside (0, 1).

    Raises:
        BadInput: `count` isn't between 0 and `num`.
    """
    if not 0 <= count <= num:
        raise BadInput(f"count must be between 0 and num = {num}, got {count}")
    if num == 0:
        return Share(0, 0, math.nan, math.nan, math.nan)
    ends = scipy.stats.binomtest(count, num).proportion_ci(confidence, method="exact")
    return Share(count, num, count / num, float(ends.low), float(ends.high))


def fisher(pairs: Sequence[tuple[Share, Share]]) -> float:
    """Two-sided p-value that within every pair the two shares are the same: Fisher's exact test, stratified.

    Given how many had it in each pair, the number among the first of pair s is hypergeometric; their sum over pairs
    has the convolved distribution, and the p-value is the probability of all sums no likelier than the one seen. For
    one pair that is Fisher's own test (Agresti 2013, Categorical Data Analysis, section 7.3.5).

    Args:
        pairs: Shares of two groups, pair by pair, such as context by context; pairs with a share of none don't count.

    Returns:
        The p-value; NaN if no pair counts.
    """
    counting = [(one, other) for one, other in pairs if one.num and other.num]
    if not counting:
        return math.nan
    chances, seen = np.ones(1), 0
    for one, other in counting:
        hits, total = one.hits + other.hits, one.num + other.num
        chances = np.convolve(chances, scipy.stats.hypergeom(total, hits, one.num).pmf(np.arange(one.num + 1)))
        seen += one.hits
    return float(min(1.0, chances[chances <= chances[seen] * (1 + 1e-7)].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number: p_(k) -> max_{j<=k} min(1, (m − j + 1) p_(j)) (Holm 1979).

    Args:
        p_values: Of one family of comparisons; NaN where none was made, which don't count.

    Returns:
        In the same order; NaN stays NaN.
    """
    values = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(values.shape, np.nan)
    order = np.argsort(values, kind="stable")[: int(np.isfinite(values).sum())]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, factors * values[order]))
    return [float(value) for value in corrected]

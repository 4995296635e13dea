"""Two ways of dating a transition: how far apart, in the same order or not, and where there is one alone."""

import math

import numpy as np
import pytest
from scipy import stats

from twophase.agreement import Dated, agreement, fisher_z
from twophase.errors import BadInput


def located(step):
    return Dated(step, step / 1.5, step * 1.5, "located")


def test_one_way_twice_as_late_as_the_other():
    steps = [10.0, 20, 40, 80, 160, 320]
    found = agreement([located(step) for step in steps], [located(2 * step) for step in steps])
    assert (found.ratio, found.ratio_low, found.ratio_high) == pytest.approx((2, 2, 2))
    assert found.correlation == pytest.approx(1.0)
    assert found.correlation_high == pytest.approx(1.0)
    # [s / 1.5, 1.5 s] and [2 s / 1.5, 3 s] meet; four times as late they would not.
    assert found.overlap.value == 1.0
    assert agreement([located(10.0)] * 2, [located(40.0)] * 2).overlap.value == 0.0


def test_the_ratio_s_interval_is_student_s():
    first, second = [10.0, 20, 30], [12.0, 15, 60]
    found = agreement([located(step) for step in first], [located(step) for step in second])
    logs = np.log(np.array(second) / np.array(first))
    half = stats.t.ppf(0.975, 2) * logs.std(ddof=1) / math.sqrt(3)
    assert math.log(found.ratio_high) == pytest.approx(logs.mean() + half)
    assert found.correlation == pytest.approx(stats.spearmanr(first, second).statistic)
    assert math.isnan(found.correlation_low)  # three settings tell nothing of a correlation


def test_one_without_the_other_is_counted():
    none, start = Dated(math.nan, math.nan, math.nan, "undetermined"), Dated(math.nan, 0.0, 0.0, "stable_from_start")
    found = agreement([located(10.0), none, start, located(9.0)], [none, located(10.0), start, located(9.0)])
    assert (found.num_settings, found.num_both, found.only_first, found.only_second) == (4, 1, 1, 1)
    assert (found.ratio, math.isnan(found.ratio_low)) == (1.0, True)
    assert math.isnan(agreement([none], [none]).ratio)


def test_fisher_s_z():
    low, high = fisher_z(0.5, 28)
    assert (math.atanh(low), math.atanh(high)) == pytest.approx(
        (math.atanh(0.5) - 0.392, math.atanh(0.5) + 0.392), abs=1e-3
    )
    # Ranks of few pairs tell less.
    assert fisher_z(0.5, 28, rank=True)[0] < low
    with pytest.raises(BadInput, match="at least 4 pairs"):
        fisher_z(0.5, 3)

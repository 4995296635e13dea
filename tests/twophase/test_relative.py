"""Indicators relative to controls, by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twophase.chaos import INDICATORS
from twophase.errors import BadInput
from twophase.relative import RELATIVE_INDICATORS, relative

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("child", "control", "share", "difference"),
    [
        (0.6, 1.2, 0.5, -0.6),
        (1.2, 0.6, 2.0, 0.6),
        (0.0, 0.6, 0.0, -0.6),
        (0.0, 0.05, NAN, NAN),  # at the threshold the control is connected itself: unknown, not 0
        (0.04, 0.0, NAN, NAN),
        (0.6, NAN, NAN, NAN),  # no control
        (0.6, INF, NAN, NAN),  # a control that diverged says nothing of a share, least of all that it is 0
        (NAN, 1.2, NAN, NAN),
        (INF, 1.2, INF, INF),  # a child that diverged is not connected, whatever its control does
        (INF, INF, INF, INF),
        (INF, NAN, INF, INF),
        (INF, 0.01, INF, INF),
    ],
)
def test_by_hand(child, control, share, difference):
    for name, expected in (("test_barrier_over_control", share), ("excess_disagreement", difference)):
        (found,) = relative(name, [child], [control], control_threshold=0.05)
        assert found == pytest.approx(expected, nan_ok=True)


@given(
    values=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=5),
    control=st.floats(1e-3, 1e3),
    unit=st.sampled_from([2.0, 1e-3, 7.0]),
)
def test_a_share_has_no_unit_and_is_1_where_a_child_parts_as_its_control_does(values, control, unit):
    controls = np.full(len(values), control)
    found = relative("test_barrier_over_control", values, controls, control_threshold=0.0)
    scaled = relative("test_barrier_over_control", unit * np.array(values), unit * controls, control_threshold=0.0)
    assert scaled == pytest.approx(found, rel=1e-12)  # two roundings
    assert relative("test_barrier_over_control", controls, controls, control_threshold=0.0) == pytest.approx(1.0)


def test_names_are_those_of_known_indicators_and_no_others():
    assert {kind.indicator for kind in RELATIVE_INDICATORS.values()} <= set(INDICATORS)
    assert not set(RELATIVE_INDICATORS) & set(INDICATORS)
    with pytest.raises(
        BadInput, match="unknown relative indicator 'excess_disagreemnt'; did you mean 'excess_disagreement'"
    ):
        relative("excess_disagreemnt", [1.0], [1.0], control_threshold=0.05)

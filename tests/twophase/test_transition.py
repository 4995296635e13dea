"""`locate_transition` by hand: crossings, verdicts, intervals, replicates, input and output."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from twophase.transition import Transition, locate_transition

NAN, INF = math.nan, math.inf

# log(1 + t) of these is 0, 1, 2, 3, 4 times log 2, so that crossings can be worked out by hand.
STEPS = [0, 1, 3, 7, 15]

# Rounding only: a few operations on numbers of order 1, then expm1 of at most log(1 + 10⁴) ≈ 9.
ROUNDING = 1e-12


def octave(position: float) -> float:
    """The step whose log(1 + t) is `position` times log 2."""
    return 2.0**position - 1


def single(curve: list[float], fork_steps: list[int] = STEPS, threshold: float = 0.5) -> float:
    """The crossing of one seed with this curve."""
    (crossing,) = locate_transition(fork_steps, [curve], threshold=threshold).crossings
    return crossing


def ends(transition: Transition) -> tuple[float, float]:
    return transition.low, transition.high


# --- one seed's crossing, by hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("curve", "crossing"),
    [
        ([1.0, 0.9, 0.1, 0.0, 0.0], octave(1.5)),  # halfway down in log(1 + t) between 1 and 3; in t it would be 2
        ([1.0, 1.0, 1.0, 0.75, 0.35], octave(3.625)),  # (.75 - .5) / (.75 - .35) of the last cell
        ([1.0, 0.0, 0.0, 0.9, 0.1], octave(3.5)),  # re-opens late: its first time below doesn't count
        ([0.0, 0.0, 0.9, 0.1, 0.0], octave(2.5)),  # below at first, but not for good
        ([1.0, 0.9, 0.1, 0.3, 0.0], octave(1 + 0.4 / 0.6)),  # the cell's right side is the running maximum, .3, not .1
        ([0.7, 0.9, 0.1, 0.0, 0.0], octave(1.5)),
        ([0.9, 0.1, 0.0, 0.0, 0.0], octave(0.5)),
        ([1.0, INF, 0.1, 0.0, 0.0], 3.0),  # infinite on the left: the upper end
        ([INF, 0.9, 0.1, 0.0, 0.0], octave(1.5)),  # infinite elsewhere: no matter
        ([1.0, 0.0, 0.0, INF, 0.1], 15.0),
        ([1.0, 0.5, 0.1, 0.0, 0.0], 1.0),  # equal to the threshold counts as settled
        ([1.0, 0.9, 0.5, 0.5, 0.5], 3.0),
        ([1.0, 0.9, NAN, 0.1, 0.0], octave(2.0)),  # a hole widens the cell: halfway between 1 and 7
        ([NAN, 0.9, 0.1, NAN, NAN], octave(1.5)),
        ([1e308, 0.9, 0.1, -1e308, 0.0], octave(1.5)),
        ([1.0, 1.0, 1e308, -1e308, -1e308], 7.0),  # their difference is beyond float64, so the upper end
        ([0.5, 0.5, 0.5, 0.5, 0.5], 0.0),
        ([0.0, -0.1, 0.0, 0.0, 0.0], 0.0),
        ([NAN, NAN, 0.1, 0.0, 0.0], 0.0),
        ([0.0, 0.0, 0.0, 0.0, 0.6], INF),
        ([0.0, 0.0, 0.0, 0.0, INF], INF),
        ([0.0, 0.9, NAN, NAN, NAN], INF),  # still above where it was last seen
    ],
)
def test_crossing_of_one_seed_by_hand(curve: list[float], crossing: float) -> None:
    assert single(curve) == pytest.approx(crossing, rel=ROUNDING)


def test_threshold_defaults_to_declared_five_hundredths() -> None:
    transition = locate_transition([0, 10, 20], [[1.0, 0.05, 0.05], [1.0, 0.05, 0.05]])
    assert (transition.threshold, transition.confidence) == (0.05, 0.95)
    assert transition.step == 10


# --- verdicts, by hand ------------------------------------------------------------------------------------------------

STABLE, CHAOTIC, EARLY, LATE = [0.0] * 5, [1.0] * 5, [0.9, 0.1, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.9, 0.1]
UNSEEN_START = [NAN, 0.0, 0.0, 0.0, 0.0]
MISSING = [NAN] * 5


@pytest.mark.parametrize(
    ("curves", "verdict", "step", "low", "high"),
    [
        ([STABLE, STABLE], "stable_from_start", NAN, 0.0, 0.0),
        ([STABLE, STABLE, CHAOTIC], "stable_from_start", NAN, 0.0, 0.0),
        ([CHAOTIC, CHAOTIC], "chaotic_throughout", NAN, 15.0, INF),
        ([CHAOTIC, CHAOTIC, EARLY], "chaotic_throughout", NAN, 15.0, INF),
        ([[*CHAOTIC[:3], NAN, NAN]] * 2, "chaotic_throughout", NAN, 3.0, INF),  # the last fork step anybody saw
        ([CHAOTIC, [*CHAOTIC[:3], NAN, NAN]], "chaotic_throughout", NAN, 15.0, INF),
        ([UNSEEN_START, UNSEEN_START], "undetermined", NAN, NAN, NAN),
        ([STABLE, UNSEEN_START], "undetermined", NAN, NAN, NAN),  # step 0 in the grid is not step 0 of each seed
        ([STABLE, STABLE, UNSEEN_START], "stable_from_start", NAN, 0.0, 0.0),
        ([EARLY, LATE, STABLE, CHAOTIC], "undetermined", NAN, NAN, NAN),  # half is not more than half
        ([EARLY, STABLE, CHAOTIC], "undetermined", NAN, NAN, NAN),  # the most frequent is not the majority
        ([EARLY, LATE, STABLE, CHAOTIC, UNSEEN_START], "undetermined", NAN, NAN, NAN),
        ([EARLY], "undetermined", NAN, NAN, NAN),
        ([STABLE], "undetermined", NAN, NAN, NAN),
        ([EARLY, MISSING], "undetermined", NAN, NAN, NAN),  # a seed without data is no seed
        ([MISSING, MISSING], "undetermined", NAN, NAN, NAN),
        ([EARLY, EARLY], "located", octave(0.5), 0.0, 1.0),
        ([EARLY, EARLY, MISSING, CHAOTIC], "located", octave(0.5), 0.0, INF),
    ],
)
def test_verdicts_by_hand(curves: list[list[float]], verdict: str, step: float, low: float, high: float) -> None:
    transition = locate_transition(STEPS, curves, threshold=0.5)
    assert transition.verdict == verdict
    assert (transition.step, *ends(transition)) == pytest.approx((step, low, high), rel=ROUNDING, nan_ok=True)
    assert transition.num_seeds == len(transition.crossings) == sum(curve is not MISSING for curve in curves)


def test_no_rows_and_no_columns_are_undetermined() -> None:
    assert locate_transition(STEPS, np.empty((0, 5))).verdict == "undetermined"
    transition = locate_transition([], [[], []])
    assert (transition.verdict, transition.num_seeds, transition.crossings) == ("undetermined", 0, ())


@pytest.mark.parametrize(
    ("fork_step", "value", "verdict", "low", "high"),
    [
        (0, 0.0, "stable_from_start", 0, 0),
        (100, 0.0, "undetermined", NAN, NAN),
        (0, 1.0, "chaotic_throughout", 0, INF),
        (100, 1.0, "chaotic_throughout", 100, INF),
    ],
)
def test_single_fork_step_is_never_located(fork_step: int, value: float, verdict: str, low: float, high: float) -> None:
    transition = locate_transition([fork_step], [[value]] * 3)
    assert transition.verdict == verdict
    assert ends(transition) == pytest.approx((low, high), nan_ok=True)


@given(
    num_located=st.integers(2, 6),
    data=st.data(),
)
def test_strict_majority_located_has_a_finite_step(num_located: int, data: st.DataObject) -> None:
    others = data.draw(st.lists(st.sampled_from([STABLE, CHAOTIC, UNSEEN_START]), max_size=num_located - 1))
    located = data.draw(st.lists(st.sampled_from([EARLY, LATE]), min_size=num_located, max_size=num_located))
    transition = locate_transition(STEPS, data.draw(st.permutations(located + others)), threshold=0.5)
    assert transition.verdict == "located"
    assert octave(0.5) * (1 - ROUNDING) <= transition.step <= octave(3.5) * (1 + ROUNDING)


# --- the estimate and its interval, by hand ---------------------------------------------------------------------------


def test_odd_number_of_seeds_by_hand() -> None:
    # Crossings at .5, 1.5, 3.5 octaves; the t quantile of two degrees of freedom at confidence c is c √(2 / (1 − c²)).
    transition = locate_transition(STEPS, [LATE, EARLY, [1.0, 0.9, 0.1, 0.0, 0.0]], threshold=0.5, confidence=0.6)
    assert transition.crossings == pytest.approx([octave(3.5), octave(0.5), octave(1.5)], rel=ROUNDING)
    assert transition.step == pytest.approx(octave(1.5), rel=ROUNDING)
    centre, spread = 5.5 / 3, math.sqrt(((0.5 - 5.5 / 3) ** 2 + (1.5 - 5.5 / 3) ** 2 + (3.5 - 5.5 / 3) ** 2) / 2)
    half_width = 0.6 * math.sqrt(2 / 0.64) * spread / math.sqrt(3)  # .93 octaves: .91 to 2.76
    assert ends(transition) == pytest.approx((octave(centre - half_width), octave(centre + half_width)), rel=1e-9)


def test_even_number_of_seeds_by_hand() -> None:
    # The quantile of one degree of freedom at confidence 1/2 is 1: the t interval goes from one crossing to the other.
    transition = locate_transition(STEPS, [LATE, EARLY], threshold=0.5, confidence=0.5)
    assert transition.step == pytest.approx((octave(0.5) + octave(3.5)) / 2, rel=ROUNDING)  # mean in steps, not in logs
    assert ends(transition) == (0.0, 15.0)  # and from there to the far ends of both their cells


def test_cell_of_the_median_seed_alone_is_joined() -> None:
    curves = [EARLY, [1.0, 0.9, 0.1, 0.0, 0.0], LATE]
    assert ends(locate_transition(STEPS, curves, threshold=0.5, confidence=1e-9)) == (1.0, 3.0)


def test_cells_of_both_middle_seeds_are_joined() -> None:
    middle = [[1.0, 0.9, 0.1, 0.0, 0.0], [1.0, 1.0, 0.9, 0.1, 0.0]]
    assert ends(locate_transition(STEPS, [EARLY, *middle, LATE], threshold=0.5, confidence=1e-9)) == (1.0, 7.0)


def test_cells_of_tied_seeds_are_joined_in_any_order() -> None:
    tied = [
        [INF, INF, INF, 0.0, 0.0],
        [INF, NAN, NAN, 0.0, 0.0],
    ]  # both cross at 7; one is last seen above at 3, one at 0
    for curves in (tied, tied[::-1], [EARLY, *tied, LATE, LATE], [EARLY, *tied[::-1], LATE, LATE]):
        assert ends(locate_transition(STEPS, curves, threshold=0.5, confidence=1e-9)) == (0.0, 7.0)


def test_seeds_that_agree_to_the_last_digit_leave_the_cell() -> None:
    transition = locate_transition([0, 100, 200, 400], [[1.0, 0.8, 0.2, 0.0]] * 5, threshold=0.5)
    assert ends(transition) == (100.0, 200.0)


def test_interval_holds_the_median_where_t_alone_does_not() -> None:
    curves = [[1.0, 0.9, 0.1, 0.0, 0.0]] * 9 + [STABLE] * 8
    transition = locate_transition(STEPS, curves, threshold=0.5)
    logs = np.log1p(transition.crossings)
    t_high = math.expm1(logs.mean() + stats.t.ppf(0.975, 16) * logs.std(ddof=1) / math.sqrt(17))
    assert t_high < transition.step
    assert ends(transition)[1] == 3.0


def test_one_unsettled_seed_opens_the_high_end_and_is_censored_in_the_low_end() -> None:
    curves = [[1.0, 0.9, 0.1, 0.0, 0.0], [1.0, 0.9, 0.1, 0.0, 0.0], [1.0, 1.0, 1.0, INF, NAN], MISSING]
    transition = locate_transition(
        [0, 1, 3, 7, 15], [*curves, [0.9, 0.1, 0.0, 0.0, 0.0]], threshold=0.5, confidence=0.5
    )
    assert transition.crossings == pytest.approx([octave(1.5), octave(1.5), INF, octave(0.5)], rel=ROUNDING)
    # In octaves: .5, 1.5, 1.5 and 4, the last fork step.
    low, _ = stats.t.interval(0.5, 3, loc=7.5 / 4, scale=np.std([0.5, 1.5, 1.5, 4], ddof=1) / 2)
    assert low > 1  # so the cell [1, 3] decides unless the t interval reaches below it
    assert ends(transition) == pytest.approx((min(octave(low), 1.0), INF), rel=1e-9)
    wide = locate_transition([0, 1, 3, 7, 15], [*curves, [0.9, 0.1, 0.0, 0.0, 0.0]], threshold=0.5, confidence=0.8)
    low, _ = stats.t.interval(0.8, 3, loc=7.5 / 4, scale=np.std([0.5, 1.5, 1.5, 4], ddof=1) / 2)
    assert 0 < low < 1
    assert ends(wide) == pytest.approx((octave(low), INF), rel=1e-9)


def test_two_seeds_far_apart_say_nothing_of_the_far_end() -> None:
    # The t interval of crossings at 10 and 40 ends near 90,600, in a grid that ends at 40: no such step was looked at.
    transition = locate_transition([0, 10, 30, 40], [[1.0, INF, INF, 0.0], [INF, 0.0, 0.0, 0.0]], threshold=0.5)
    assert transition.crossings == (40.0, 10.0)
    assert ends(transition) == (0.0, INF)


def test_a_high_end_at_the_last_fork_step_is_no_rounding_past_it() -> None:
    for last in range(1, 3000, 7):
        transition = locate_transition([0, last], [[INF, 0.0]] * 3, threshold=0.5)
        assert ends(transition) == (0.0, float(last))


def test_interval_never_below_zero_and_never_overflows() -> None:
    far = [[1.0] * 4 + [0.0], [0.9, 0.1, 0.0, 0.0, 0.0]]
    transition = locate_transition([0, 1, 3, 7, 10**9], far, threshold=0.5, confidence=0.9999)
    assert ends(transition) == (0.0, INF)


# --- replicates of a seed ---------------------------------------------------------------------------------------------


def test_directions_are_averaged_before_anything_else() -> None:
    values = [
        [1.0, 1.0, 0.0, 0.0, 0.0],  # seed a: mean 1, .9, .1, 0, 0
        [1.0, 1.0, 1.0, 0.9, 0.1],  # seed b, alone
        [1.0, 0.8, 0.2, NAN, 0.0],  # seed a: NaN is ignored, not averaged in as 0
    ]
    transition = locate_transition(STEPS, values, groups=["a", "b", "a"], threshold=0.5)
    assert transition.num_seeds == 2
    assert transition.crossings == pytest.approx([octave(1.5), octave(3.5)], rel=ROUNDING)


def test_one_diverged_direction_is_a_diverged_seed() -> None:
    values = [[0.0, 0.0, INF, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, NAN, 0.0, 0.0]]
    assert locate_transition(STEPS, values, groups=[0, 0, 0], threshold=0.5).crossings == (7.0,)


def test_missing_is_not_zero_in_the_mean() -> None:
    # .6, .8 and a hole: .7, above. With the hole as 0 it would be .47, below.
    values = [[0.9, 0.6, 0.4, 0.0, 0.0], [0.9, NAN, 0.4, 0.0, 0.0], [0.9, 0.8, 0.4, 0.0, 0.0]]
    crossing = octave(1 + 0.2 / 0.3)
    assert locate_transition(STEPS, values, groups=[0, 0, 0], threshold=0.5).crossings == pytest.approx([crossing])


def test_order_of_replicates_does_not_change_the_rounding() -> None:
    # (.1 + .2 + .3) / 3 is above .2 in float64, (.3 + .2 + .1) / 3 is below.
    crossings = {
        locate_transition([0, 1], [[1.0, value] for value in column], groups=[0, 0, 0], threshold=0.2).crossings
        for column in itertools.permutations([0.1, 0.2, 0.3])
    }
    assert len(crossings) == 1


@pytest.mark.parametrize("count", range(1, 12))
def test_mean_of_values_at_the_threshold_is_the_threshold(count: int) -> None:
    values = [[1.0, 0.05, 0.05]] * count  # np.mean of three of them is 0.05000000000000001
    assert locate_transition([0, 10, 20], values, groups=[0] * count).crossings == (10.0,)


def test_mean_of_huge_values_is_not_a_divergence() -> None:
    values = [[1e308, 0.0, 0.0]] * 3
    finite = locate_transition([0, 10, 20], values, groups=[0, 0, 0]).crossings[0]
    assert finite == pytest.approx(10)


@pytest.mark.parametrize(
    "groups",
    [
        [7, 7, 3],
        ("x", "x", "y"),
        np.array([7, 7, 3]),
        np.array(["x", "x", "y"]),
        torch.tensor([7, 7, 3]),
        list(torch.tensor([7, 7, 3])),
        [("a", 0), ("a", 0), ("a", 1)],
        [None, None, 0],
        iter([7, 7.0, 3]),
    ],
    ids=lambda groups: type(groups).__name__,
)
def test_groups_of_any_kind(groups: object) -> None:
    transition = locate_transition(STEPS, [EARLY, EARLY, LATE], groups=groups, threshold=0.5)
    assert transition.num_seeds == 2
    assert transition.crossings == pytest.approx([octave(0.5), octave(3.5)], rel=ROUNDING)


def test_labels_one_and_its_text_are_two_seeds() -> None:
    assert locate_transition(STEPS, [EARLY, LATE], groups=[1, "1"]).num_seeds == 2


# --- input and output -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [list, np.array, torch.tensor], ids=["list", "numpy", "torch"])
def test_lists_arrays_and_tensors_give_the_same(convert: type) -> None:
    curves = [[1.0, 0.75, 0.25, 0.0, 0.0], [1.0, 1.0, 0.75, 0.25, 0.0]]  # exact in float32 too
    expected = locate_transition(STEPS, curves, threshold=0.5)
    assert locate_transition(convert(STEPS), convert(curves), threshold=0.5) == expected


def test_inputs_are_left_alone() -> None:
    fork_steps, values = np.array(STEPS, dtype=float), np.array([LATE, [1.0, NAN, 0.9, 0.1, 0.0]])
    before = fork_steps.copy(), values.copy()
    locate_transition(fork_steps, values, groups=[0, 0], threshold=0.5)
    np.testing.assert_array_equal(fork_steps, before[0])
    np.testing.assert_array_equal(values, before[1])


def test_result_is_frozen_and_made_of_plain_python() -> None:
    transition = locate_transition(np.array(STEPS), np.array([EARLY, CHAOTIC, EARLY]), threshold=np.float64(0.5))
    with pytest.raises(dataclasses.FrozenInstanceError):
        transition.step = 0.0
    for name in ("step", "low", "high", "threshold", "confidence"):
        assert type(getattr(transition, name)) is float
    assert type(transition.num_seeds) is int
    assert type(transition.crossings) is tuple
    assert {type(crossing) for crossing in transition.crossings} == {float}
    assert "median" in transition.method
    assert "Student t" in transition.method


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fork_steps": [-5, 0, 1]}, r"fork_steps must be whole numbers of updates >= 0, got -5"),
        ({"fork_steps": [0, 1.5, 2.25]}, r"fork_steps must be whole .*, got 1\.5, 2\.25"),
        ({"fork_steps": [0, 1, NAN]}, r"fork_steps must be whole .*, got nan"),
        ({"fork_steps": [0, 1, INF]}, r"fork_steps must be whole .*, got inf"),
        ({"fork_steps": [0, 25, 25]}, r"fork_steps must not repeat, got 25 more than once"),
        ({"fork_steps": [25, 0, 25]}, r"fork_steps must not repeat, got 25 more than once"),
        ({"fork_steps": [0, 50, 25]}, r"fork_steps must be increasing, got 25 after 50"),
        ({"fork_steps": [[0, 1, 2]]}, r"fork_steps must have one axis, got shape \(1, 3\)"),
        ({"fork_steps": 3}, r"fork_steps must have one axis, got shape \(\)"),
        ({"fork_steps": ["a", "b", "c"]}, r"fork_steps must be an array of numbers, got list"),
        ({"values": [1.0, 0.0, 0.0]}, r"values must be \[replicates, fork steps\], got shape \(3,\)"),
        ({"values": np.zeros((1, 2, 3))}, r"values must be \[replicates, fork steps\], got shape \(1, 2, 3\)"),
        ({"values": [[1.0, 0.0], [1.0, 0.0]]}, r"values must have one column per fork step, 3, got shape \(2, 2\)"),
        ({"values": [[1.0, 0.0, 0.0], [1.0, 0.0]]}, r"values must be an array of numbers, got list"),
        ({"values": [[1.0, 0.0, 0.0], [1.0, -INF, 0.0]]}, r"values must be finite.*got -inf at \[1, 1\]"),
        ({"groups": [0]}, r"groups must have one label per replicate, 2, got 1"),
        ({"groups": [0, 1, 2]}, r"groups must have one label per replicate, 2, got 3"),
        ({"groups": [0, NAN]}, r"groups must hold hashable labels, none of them missing, got nan"),
        ({"groups": np.array([0, NAN])}, r"groups must hold hashable labels, none of them missing, got nan"),
        ({"groups": [[0], [1]]}, r"groups must hold hashable labels, none of them missing, got \[0\]"),
        ({"groups": torch.tensor([[0], [1]])}, r"groups must hold hashable labels, none of them missing"),
        ({"threshold": NAN}, r"threshold must be finite, got nan"),
        ({"threshold": INF}, r"threshold must be finite, got inf"),
        ({"confidence": 0.0}, r"confidence must be inside \(0, 1\), got 0\.0"),
        ({"confidence": 1.0}, r"confidence must be inside \(0, 1\), got 1\.0"),
        ({"confidence": 95}, r"confidence must be inside \(0, 1\), got 95"),
        ({"confidence": NAN}, r"confidence must be inside \(0, 1\), got nan"),
    ],
)
def test_bad_input_names_field_rule_and_value(change: dict[str, object], message: str) -> None:
    arguments = {"fork_steps": [0, 10, 20], "values": [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], **change}
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        locate_transition(**arguments)
    assert "\n" not in str(caught.value)

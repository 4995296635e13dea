"""`locate_transition`: by hand, against a naive transcription of its contract, and against what must not matter."""

import dataclasses
import itertools
import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import assume, given
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


# --- random sweeps ----------------------------------------------------------------------------------------------------

# 64ths, so that sums are exact and values meet the threshold (0.25 or another 64th) often.
level = st.integers(-8, 64).map(lambda n: n / 64)
cell_value = st.one_of(level, level, level, st.just(0.25), st.just(NAN), st.just(INF))


@dataclasses.dataclass(frozen=True)
class Sweep:
    fork_steps: list[int]
    values: list[list[float]]
    groups: list[int]
    threshold: float


@st.composite
def sweeps(draw: st.DrawFn, *, first: int = 0, last: int = 5000) -> Sweep:
    fork_steps = sorted(draw(st.sets(st.integers(first, last), min_size=1, max_size=6)))
    if draw(st.booleans()) and first == 0:
        fork_steps = sorted({0, *fork_steps})
    num_seeds = draw(st.integers(1, 6))
    groups = draw(st.permutations([*range(num_seeds), *draw(st.lists(st.integers(0, num_seeds - 1), max_size=4))]))
    values = []
    for _ in groups:
        row = [draw(cell_value) for _ in fork_steps]
        if draw(st.integers(0, 3)):  # mostly falling, so that every verdict comes up
            row.sort(key=lambda value: -1 if math.isnan(value) else value, reverse=True)
        values.append(row)
    return Sweep(fork_steps, values, groups, draw(st.sampled_from([0.25, 0.25, 0.05, 0.5])))


def locate(sweep: Sweep, **change: object) -> Transition:
    arguments = {"confidence": 0.95, **dataclasses.asdict(sweep), **change}
    return locate_transition(arguments.pop("fork_steps"), arguments.pop("values"), **arguments)


def assert_same(one: Transition, other: Transition, rel: float = 0.0) -> None:
    for field in dataclasses.fields(Transition):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.name == "crossings":
            mine, theirs = sorted(mine), sorted(theirs)
        if isinstance(mine, float | list):
            assert mine == pytest.approx(theirs, rel=rel, abs=0.0, nan_ok=True), field.name
        else:
            assert mine == theirs, field.name


def naive_curve(sweep: Sweep, seed: int) -> dict[int, float]:
    """Mean of the seed's replicates by fork step, where it has any."""
    curve = {}
    for k, step in enumerate(sweep.fork_steps):
        column = [row[k] for row, group in zip(sweep.values, sweep.groups, strict=True) if group == seed]
        column = [value for value in column if not math.isnan(value)]
        if column:
            curve[step] = INF if INF in column else statistics.fmean(column)
    return curve


def naive_crossing(steps: list[int], curve: list[float], threshold: float) -> tuple[float, float, float, str]:
    """Crossing, lower and upper end of its cell, the seed's verdict."""
    settled = [k for k in range(len(steps)) if all(value <= threshold for value in curve[k:])]
    if not settled:
        return INF, steps[-1], INF, "chaotic_throughout"
    if settled[0] == 0:
        return 0.0, 0.0, steps[0], "stable_from_start" if steps[0] == 0 else "undetermined"
    k = settled[0]
    before, after = max(curve[k - 1 :]), max(curve[k:])
    crossing = float(steps[k])
    if not math.isinf(before):
        # np.interp wants increasing abscissae, so the falling curve is mirrored.
        log_steps = [math.log(1 + steps[k - 1]), math.log(1 + steps[k])]
        crossing = math.exp(np.interp(-threshold, [-before, -after], log_steps)) - 1
    return crossing, steps[k - 1], steps[k], "located"


def naive_interval(seeds: list[tuple[float, float, float, str]], last: float, confidence: float) -> tuple[float, float]:
    crossings = [seed[0] for seed in seeds]
    logs = [math.log(1 + min(crossing, last)) for crossing in crossings]
    low = high = statistics.fmean(logs)
    if statistics.stdev(logs) > 0:
        low, high = stats.t.interval(confidence, len(logs) - 1, low, statistics.stdev(logs) / math.sqrt(len(logs)))
    low, high = math.exp(low) - 1, math.exp(high) - 1
    for middle in (statistics.median_low(crossings), statistics.median_high(crossings)):
        for crossing, lower, upper, _ in seeds:
            if math.isclose(crossing, middle, rel_tol=ROUNDING):
                low, high = min(low, lower), max(high, upper)
    # Rounding alone must not tell a high end at the last fork step from one past it.
    return max(low, 0.0), INF if INF in crossings or high > last * (1 + ROUNDING) + ROUNDING else high


def naive_transition(sweep: Sweep, confidence: float) -> tuple[str, float, float, float, list[float]]:
    """The contract, sentence by sentence, in plain Python: verdict, step, low, high, crossings."""
    curves = [curve for seed in dict.fromkeys(sweep.groups) if (curve := naive_curve(sweep, seed))]
    seeds = [naive_crossing(list(curve), list(curve.values()), sweep.threshold) for curve in curves]
    crossings, verdicts = [seed[0] for seed in seeds], [seed[3] for seed in seeds]
    majority = [verdict for verdict in set(verdicts) if verdicts.count(verdict) > len(seeds) / 2]
    verdict = majority[0] if majority and len(seeds) >= 2 else "undetermined"
    if verdict == "undetermined":
        return verdict, NAN, NAN, NAN, crossings
    if verdict == "stable_from_start":
        return verdict, NAN, 0.0, 0.0, crossings
    last = max(step for curve in curves for step in curve)
    if verdict == "chaotic_throughout":
        return verdict, NAN, last, INF, crossings
    return verdict, statistics.median(crossings), *naive_interval(seeds, last, confidence), crossings


@given(sweep=sweeps(), confidence=st.sampled_from([0.3, 0.5, 0.8, 0.95]))
def test_equals_naive_transcription_of_the_contract(sweep: Sweep, confidence: float) -> None:
    transition = locate(sweep, confidence=confidence)
    verdict, step, low, high, crossings = naive_transition(sweep, confidence)
    assert transition.verdict == verdict
    # exp(x) − 1 loses digits near 0, hence the absolute part; the t quantile is good to about 1e-12, times the spread.
    assert transition.crossings == pytest.approx(crossings, rel=1e-9, abs=1e-9)
    assert transition.step == pytest.approx(step, rel=1e-9, abs=1e-9, nan_ok=True)
    assert transition.low == pytest.approx(low, rel=1e-8, abs=1e-9, nan_ok=True)
    assert transition.high == pytest.approx(high, rel=1e-8, abs=1e-9, nan_ok=True)
    assert transition.num_seeds == len(crossings)


@given(sweeps())
def test_verdict_and_numbers_agree(sweep: Sweep) -> None:
    transition = locate(sweep)
    if transition.verdict == "located":
        assert math.isfinite(transition.step)  # the median of crossings with 0 and +inf among them
        assert transition.step == np.median(transition.crossings)
        assert 0 <= transition.low <= transition.step <= transition.high
        assert transition.low < transition.high  # never narrower than a cell
        assert (transition.high == INF) or INF not in transition.crossings
        assert transition.high == INF or transition.high <= sweep.fork_steps[-1]  # nothing was seen past it
    else:
        assert math.isnan(transition.step)
    assert all(0 <= crossing <= sweep.fork_steps[-1] or crossing == INF for crossing in transition.crossings)


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


@given(sweep=sweeps(), data=st.data())
def test_order_of_rows_and_names_of_seeds_do_not_matter(sweep: Sweep, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(sweep.groups))))
    names = data.draw(st.permutations(["zebra", 10, "ant", -3, (0, 1), None]))
    values = [sweep.values[row] for row in order]
    groups = [names[sweep.groups[row]] for row in order]
    assert_same(locate(sweep), locate(sweep, values=values, groups=groups))


@given(sweep=sweeps(), times=st.integers(2, 5), data=st.data())
def test_repeating_a_seeds_replicates_changes_nothing(sweep: Sweep, times: int, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(sweep.groups))
    again = [row for row, group in enumerate(sweep.groups) if group == seed] * (times - 1)
    values = sweep.values + [sweep.values[row] for row in again]
    assert_same(locate(sweep), locate(sweep, values=values, groups=sweep.groups + [seed] * len(again)), rel=1e-9)


@given(sweep=sweeps(), data=st.data())
def test_columns_and_rows_without_data_are_ignored(sweep: Sweep, data: st.DataObject) -> None:
    new_step = data.draw(st.integers(0, 6000).filter(lambda step: step not in sweep.fork_steps))
    place = sum(step < new_step for step in sweep.fork_steps)
    fork_steps = [*sweep.fork_steps[:place], new_step, *sweep.fork_steps[place:]]
    values = [[*row[:place], NAN, *row[place:]] for row in sweep.values]
    seed = data.draw(st.integers(0, 9))  # of a known seed or of one never observed
    grown = locate(
        sweep, fork_steps=fork_steps, values=[*values, [NAN] * len(fork_steps)], groups=[*sweep.groups, seed]
    )
    assert_same(locate(sweep), grown)


@given(
    value=st.one_of(st.floats(-1e6, 1e6), st.just(INF), st.just(0.05)),
    fork_steps=st.sets(st.integers(0, 1000), min_size=1, max_size=6).map(sorted),
    num_seeds=st.integers(2, 5),
    num_directions=st.integers(1, 7),
)
def test_constant_curve_is_never_located(
    value: float, fork_steps: list[int], num_seeds: int, num_directions: int
) -> None:
    values = np.full((num_seeds * num_directions, len(fork_steps)), value)
    groups = [row % num_seeds for row in range(len(values))]
    verdict = locate_transition(fork_steps, values, groups=groups).verdict
    settled = "stable_from_start" if fork_steps[0] == 0 else "undetermined"
    assert verdict == (settled if value <= 0.05 else "chaotic_throughout")


@given(sweep=sweeps(), thresholds=st.tuples(st.floats(-0.2, 1.1), st.floats(-0.2, 1.1)).map(sorted))
def test_a_higher_threshold_never_delays_a_crossing(sweep: Sweep, thresholds: list[float]) -> None:
    strict, lenient = (locate(sweep, threshold=threshold).crossings for threshold in thresholds)
    for late, early in zip(strict, lenient, strict=True):
        assert early <= late * (1 + ROUNDING)


@given(sweep=sweeps(), shift=level)
def test_shifting_values_and_threshold_together_changes_nothing(sweep: Sweep, shift: float) -> None:
    # Adding 64ths is exact for 64ths; the means of three or more replicates round, hence the tolerance.
    assume(sweep.threshold * 64 == int(sweep.threshold * 64))
    values = [[value + shift for value in row] for row in sweep.values]
    moved = locate(sweep, values=values, threshold=sweep.threshold + shift)
    # Sharpness and what counts as bimodal go by multiples, which a shift changes.
    multiples = {"method": "", "octaves": math.nan}
    still = dataclasses.replace(locate(sweep), threshold=moved.threshold, **multiples)
    assert_same(still, dataclasses.replace(moved, **multiples), rel=1e-9)


@given(sweep=sweeps(first=1000, last=10000), factor=st.sampled_from([2, 10, 1000]))
def test_steps_in_another_unit_scale_the_estimate(sweep: Sweep, factor: int) -> None:
    # log(1 + ct) is log c + log(1 + t) − (1 − 1/c) / t and less: nothing in the limit of large steps. Here t >= 1e9,
    # and interpolation and mean multiply the error by no more than the quantile, 12.7, and the spread, log 10.
    large = locate(sweep, fork_steps=[10**6 * step for step in sweep.fork_steps])
    scaled = locate(sweep, fork_steps=[10**6 * factor * step for step in sweep.fork_steps])
    assert large.verdict == scaled.verdict
    assert scaled.crossings == pytest.approx([factor * crossing for crossing in large.crossings], rel=1e-6)
    assert scaled.step == pytest.approx(factor * large.step, rel=1e-6, nan_ok=True)
    if 0 not in large.crossings:  # log(1 + 0) stays 0 in any unit, so then the spread changes
        assert scaled.high == pytest.approx(factor * large.high, rel=1e-6, nan_ok=True)


@given(sweep=sweeps(), confidences=st.tuples(st.floats(0.01, 0.9999), st.floats(0.01, 0.9999)).map(sorted))
def test_more_confidence_is_never_narrower(sweep: Sweep, confidences: list[float]) -> None:
    narrow, wide = (locate(sweep, confidence=confidence) for confidence in confidences)
    assert narrow.step == pytest.approx(wide.step, rel=0, abs=0, nan_ok=True)
    assert narrow.verdict == wide.verdict
    if wide.verdict == "located":
        assert wide.low <= narrow.low
        assert narrow.high <= wide.high


@given(sweep=sweeps(), row=st.integers(0, 9), column=st.integers(0, 9))
def test_a_diverging_run_never_brings_the_crossing_forward(sweep: Sweep, row: int, column: int) -> None:
    row, column = row % len(sweep.values), column % len(sweep.fork_steps)
    values = [list(other) for other in sweep.values]
    assume(not math.isnan(values[row][column]))
    values[row][column] = INF
    for before, after in zip(locate(sweep).crossings, locate(sweep, values=values).crossings, strict=True):
        assert after >= before


def test_t_interval_covers_the_median_of_log_normal_crossings() -> None:
    # Nominal 90 % over five seeds, on a fine grid so that the cell adds little; the binomial error of 400 is 1.5 %.
    generator = np.random.default_rng(0)
    fork_steps = np.unique(np.geomspace(1, 1e5, 400).round())
    covered = 0
    for crossings in np.exp(generator.normal(np.log(1000), 0.4, size=(400, 5))):
        values = (fork_steps[None, :] < crossings[:, None]).astype(float)
        transition = locate_transition(fork_steps, values, threshold=0.5, confidence=0.9)
        covered += transition.low <= 1000 <= transition.high
    assert 0.86 <= covered / 400 <= 0.96

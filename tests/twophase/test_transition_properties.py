"""`locate_transition` on random sweeps: a naive transcription of its contract, and what must not matter."""

import dataclasses
import math
import statistics

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from twophase.transition import Transition, locate_transition

NAN, INF = math.nan, math.inf

# Rounding only: a few operations on numbers of order 1, then expm1 of at most log(1 + 10⁴) ≈ 9.
ROUNDING = 1e-12

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

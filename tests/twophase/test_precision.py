"""What to add for a wanted precision: by hand, and by following it in simulated studies."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.coverage import COARSE, USUAL, draw
from twophase.errors import BadInput
from twophase.precision import advise, between, beyond, seeds_wanted, t_width
from twophase.transition import locate_transition

STEPS = [0, 10, 20, 40, 80, 160]
STABLE, CHAOTIC = [0.0] * 6, [1.0] * 6


def falling(step):
    """A curve that crosses .05 at a step, in its cell, as the estimate interpolates."""
    logs = np.log1p(STEPS)
    return (0.05 - 0.02 * (logs - math.log1p(step))).tolist()


def asked(curves, ratio=1.5, last_step=1000, **how):
    return advise(STEPS, curves, ratio=ratio, last_step=last_step, **how)


@pytest.mark.parametrize(("spread", "ratio"), [(0.3, 1.5), (0.6, 1.25), (0.05, 2.0)])
def test_seeds_are_the_fewest_whose_t_interval_is_narrow_enough(spread, ratio):
    number = seeds_wanted(spread, math.log(ratio))
    low, high = stats.t.interval(0.95, number - 1, scale=spread / math.sqrt(number))
    assert t_width(spread, number) == pytest.approx(high - low)
    assert math.exp(high - low) <= ratio
    assert number == 3 or math.exp(t_width(spread, number - 1)) > ratio


def test_seeds_and_fork_steps_by_hand():
    """Crossings at 24, 30, 38 of 41 a step: s is log(39 / 25) / 2 about, and the median is in the cell [20, 40]."""
    said = asked([falling(24), falling(30), falling(38)])
    spread = np.std(np.log([25, 31, 39]), ddof=1)
    assert said.spread == pytest.approx(spread)
    assert said.num_seeds == seeds_wanted(spread, math.log(1.5)) > 3
    assert said.num_seeds_low < said.num_seeds < said.num_seeds_high
    # log(41 / 21) is 3.3 times half of log 1.5: four parts.
    assert said.fork_steps == (24, 28, 34)
    assert not said.is_enough
    assert math.isnan(said.direction_spread)
    assert said.expected_ratio <= 1.5


def test_cells_are_split_only_where_the_median_may_lie():
    assert between(np.array([0.0, 15.0, 255.0]), 32.0, 40.0, math.log(2.0)) == [31, 63]
    assert between(np.array([0.0, 15.0, 255.0]), 25.0, 70.0, math.log(2.0)) == [31, 63, 127]
    assert between(np.array([2.0, 3.0, 4.0]), 2.0, 4.0, 0.01) == []  # no step is between
    assert beyond(100, 1000) == [200, 400, 800]
    assert beyond(100, 1000, reach=300) == [200, 400]
    assert beyond(100, 150) == [150]
    assert beyond(100, 100) == []


def test_what_is_narrow_enough_is_left_alone():
    said = asked([falling(29), falling(30), falling(31)], ratio=2.0)
    assert said.is_enough
    assert (said.num_seeds, said.fork_steps) == (3, ())
    assert said.ratio == said.expected_ratio == pytest.approx(41 / 21)


def test_later_fork_steps_where_seeds_are_unsettled_or_likely_to_be():
    assert 320 in asked([falling(30), falling(33), CHAOTIC]).fork_steps
    assert asked([falling(100), falling(130), falling(150)]).fork_steps[-1] > 160
    assert max(asked([falling(24), falling(30), falling(38)]).fork_steps) < 40


def test_directions_where_they_are_most_of_the_spread():
    """Each seed's two directions cross at a quarter and four times the same step: their means hardly differ."""
    loud = [falling(step) for seed in (28, 30, 32) for step in (seed / 4, seed * 4)]
    quiet = [falling(step) for seed in (20, 30, 45) for step in (seed, seed)]
    groups = [0, 0, 1, 1, 2, 2]
    assert asked(loud, ratio=1.1, groups=groups).num_directions > 2
    assert asked(loud, ratio=1.1, groups=groups).direction_spread == pytest.approx(math.log(4) * math.sqrt(2), rel=0.05)
    said = asked(quiet, groups=groups)
    assert (said.num_directions, said.direction_spread) == (2, 0.0)


@pytest.mark.parametrize(
    ("curves", "num_seeds", "fork_steps", "is_enough", "words"),
    [
        ([STABLE] * 3, 3, (), True, "stable from the start"),
        ([CHAOTIC] * 2, 3, (320, 640), False, "not settled"),
        ([falling(30)], 3, (), False, "a verdict takes two seeds"),
        ([falling(30), STABLE], 3, (), False, "no majority"),
        ([falling(30), CHAOTIC, STABLE], 5, (320, 640), False, "no majority"),
        ([[math.nan, *STABLE[1:]]] * 3, 3, (0,), False, "not looked at from step 0"),
        ([[math.nan] * 6], 0, (), True, "no seed tells anything"),
    ],
)
def test_other_verdicts(curves, num_seeds, fork_steps, is_enough, words):
    said = asked(curves)
    assert (said.num_seeds, said.fork_steps, said.is_enough) == (num_seeds, fork_steps, is_enough)
    assert words in said.reason


def test_no_longer_run_no_later_fork():
    said = asked([CHAOTIC] * 3, last_step=160)
    assert said.fork_steps == ()
    assert "a longer run" in said.reason


@pytest.mark.parametrize("ratio", [1.0, 0.5, math.nan, math.inf])
def test_a_ratio_that_is_none(ratio):
    with pytest.raises(BadInput, match="ratio must be > 1"):
        asked([STABLE] * 3, ratio=ratio)


def test_following_it_gives_an_interval_about_as_narrow_as_asked():
    """Of 60 studies of five seeds on a coarse grid, each grown by what was said: the same seeds, more of them."""
    every, wanted, random = np.arange(0, 1281.0), math.log(2.0), np.random.default_rng(0)
    before, after = [], []
    for _ in range(60):
        values = draw(USUAL, every, 20, 2, random)
        groups = np.repeat(np.arange(20), 2)

        def located(num_seeds, steps, values=values, groups=groups):
            known = values[groups < num_seeds][:, steps]
            return {"fork_steps": steps, "values": known, "groups": groups[groups < num_seeds].tolist()}

        pilot = located(5, list(COARSE))
        said = advise(**pilot, ratio=2.0, last_step=1280)
        grown = located(min(said.num_seeds, 20), sorted({*COARSE, *said.fork_steps}))
        for study, widths in ((pilot, before), (grown, after)):
            found = locate_transition(**study)
            widths.append(math.log((1 + found.high) / (1 + found.low)) / wanted)
    # The spread over seeds is known from five: to a factor of 1.5 either way, and so is what comes of it.
    assert np.median(before) > 1.3
    assert 0.75 <= np.median(after) <= 1.1
    assert np.quantile(after, 0.9) < 1.5

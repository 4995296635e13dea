"""How many seeds and which fork steps a transition takes for a wanted precision, given the spread seen so far.

The interval of `twophase.transition.locate_transition` has two parts, and each has its own remedy: Student's t on
log(1 + step) over seeds narrows with seeds, the cell of the median with fork steps.
"""

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, ndtri, stdtrit

from twophase.errors import BadInput
from twophase.transition import Crossing, Transition, locate_transition, seed_crossings

Array = npt.NDArray[np.float64]

CONFIDENCE = 0.95
LEAST_SEEDS = 3
"""With two, Student's t alone is 13 standard errors to each side."""

MOST_SEEDS = 1000
MOST_DIRECTIONS = 8
CELL_SHARE = 0.5
"""Largest cell near the median, as a share of the wanted width, in logs: the half of the interval that is to each
side of its centre then covers the cell."""

LEAST_OPEN = 0.05
"""Probability that some seed is unsettled at the last fork step, which leaves the interval open, above which later ones
are added."""

LIKELY = 0.8
"""Confidence with which the spread over seeds and the place of the median are taken as known: one asks again."""


@dataclass(frozen=True)
class Advice:
    """What to add for an interval with a wanted ratio of its ends.

    Attributes:
        ratio: (1 + high) / (1 + low) now; +inf where the interval is open, NaN where there is none.
        spread: Standard deviation of log(1 + crossing) over seeds, s; NaN with fewer than two.
        direction_spread: Standard deviation of the same over directions of a seed, w; NaN with one direction each.
        num_seeds: Seeds wanted in all.
        num_seeds_low: The same if the spread over seeds is as small as the lower end of its 80 % interval.
        num_seeds_high: The same for the upper end; `MOST_SEEDS` stands for as many or more.
        num_directions: Directions wanted of each seed.
        fork_steps: Fork steps to add, ascending.
        expected_ratio: What the wanted seeds and fork steps are expected to give; NaN where that can't be told yet.
        is_enough: Whether nothing is to be added.
        reason: Why, in words.
    """

    ratio: float
    spread: float
    direction_spread: float
    num_seeds: int
    num_seeds_low: int
    num_seeds_high: int
    num_directions: int
    fork_steps: tuple[int, ...]
    expected_ratio: float
    is_enough: bool
    reason: str


def advise(
    fork_steps: npt.ArrayLike,
    values: npt.ArrayLike,
    *,
    ratio: float,
    last_step: int,
    threshold: float = 0.05,
    groups: Iterable[Any] | None = None,
) -> Advice:
    """Say what to add so that the interval's ends, counted from 1, are by a wanted ratio R apart.

    With n seeds, s the standard deviation of log(1 + t*) over them and t Student's quantile::

        n' = least n with 2 t_{n-1} s' / √n <= log R        seeds, beside at least as many as there are
        s'² = b² + w² / D',   s² = b² + w² / D              w over directions of a seed, D of them
        D' = least D' with w² / D' <= b²                    if directions are most of the spread, at most 8
        log((1 + t_{k+1}) / (1 + t_k)) <= ½ log R           fork steps, wherever the median may lie

    The median may lie in its t interval at 80 %, as far as seeds cross there. Where a seed hasn't settled, or one of n'
    is likely not to (one in 20 such studies), fork steps an octave apart are added beyond the last. s is known from n
    seeds only, so n' is too: `num_seeds_low` and `num_seeds_high` are the same for the ends of its χ² interval at 80 %.
    Add what is said, and ask again.

    Args:
        fork_steps: [fork steps] As `locate_transition` takes them.
        values: [replicates, fork steps] As `locate_transition` takes them.
        ratio: R, above 1.
        last_step: The last step at which a child can fork.
        threshold: As `locate_transition` takes it.
        groups: [replicates] As `locate_transition` takes them.

    Returns:
        The advice.

    Raises:
        BadInput: As `locate_transition` does; `ratio` isn't finite and above 1.
    """
    if not (math.isfinite(ratio) and ratio > 1):
        raise BadInput(f"ratio must be > 1, the upper end of the interval over the lower, got {ratio:g}")
    numbers = np.asarray(values, dtype=np.float64)
    labels = list(range(len(numbers))) if groups is None else list(groups)
    found = locate_transition(fork_steps, numbers, threshold=threshold, groups=labels)
    crossings = list(seed_crossings(fork_steps, numbers, threshold=threshold, groups=labels).values())
    steps = np.asarray(fork_steps, dtype=np.float64)
    steps = steps[~np.isnan(numbers).all(axis=0)] if numbers.size else steps[:0]
    if not crossings:
        return _nothing(found, 0, "no seed tells anything yet")
    last = float(steps[-1])
    logs = np.log1p(np.minimum([crossing.step for crossing in crossings], last))
    within = direction_spread(steps, numbers, labels, threshold)
    if found.verdict == "located":
        return _of_located(found, crossings, logs, within, steps, ratio=ratio, last_step=last_step)
    return _of_others(found, crossings, steps, last_step)


@dataclass(frozen=True)
class Within:
    """Spread of log(1 + crossing) over directions of a seed, and how many a seed has.

    Attributes:
        spread: Pooled over seeds; NaN where no seed has two directions that cross.
        num_directions: Of the seed with the most.
    """

    spread: float
    num_directions: int


def direction_spread(steps: Array, values: Array, groups: list[Hashable], threshold: float) -> Within:
    """Pool the variance of log(1 + crossing) over directions within seeds, each direction's crossing by itself.

    Directions that never cross or never part have none and are left out.
    """
    seen = values[:, ~np.isnan(values).all(axis=0)]
    logs: dict[Hashable, list[float]] = {}
    counts: dict[Hashable, int] = {}
    for row, crossing in seed_crossings(steps, seen, threshold=threshold).items():
        seed = groups[int(str(row))]
        counts[seed] = counts.get(seed, 0) + 1
        if crossing.verdict == "located":
            logs.setdefault(seed, []).append(math.log1p(crossing.step))
    several = [np.array(own) for own in logs.values() if len(own) > 1]
    degrees = sum(len(own) - 1 for own in several)
    squares = sum(float(((own - own.mean()) ** 2).sum()) for own in several)
    return Within(math.sqrt(squares / degrees) if degrees else math.nan, max(counts.values(), default=0))


def seeds_wanted(spread: float, log_ratio: float, *, least: int = LEAST_SEEDS) -> int:
    """Find the least number of seeds n with 2 t_{n-1} s / √n <= log R; at most `MOST_SEEDS`."""
    for number in range(max(least, 2), MOST_SEEDS):
        if t_width(spread, number) <= log_ratio:
            return number
    return MOST_SEEDS


def t_width(spread: float, num_seeds: int, confidence: float = CONFIDENCE) -> float:
    """Width of Student's t interval, in logs."""
    quantile = -float(stdtrit(num_seeds - 1, (1 - confidence) / 2))
    return 2 * quantile * spread / math.sqrt(num_seeds)


def between(steps: Array, low: float, high: float, widest: float) -> list[int]:
    """Split what cells have of [low, high] into ones of at most `widest` in log(1 + t), as far as whole steps allow."""
    added: list[int] = []
    for before, after in zip(steps[:-1].tolist(), steps[1:].tolist(), strict=True):
        if after <= low or before >= high:
            continue
        parts = math.ceil((math.log1p(after) - math.log1p(before)) / widest - 1e-9)
        cuts = np.expm1(np.linspace(math.log1p(before), math.log1p(after), parts + 1)).round()
        # And the next one to each side, so that every cell that reaches inside is a small one.
        is_near = (cuts[2:] > low) & (cuts[:-2] < high) & (cuts[1:-1] > before) & (cuts[1:-1] < after)
        added += [int(step) for step in cuts[1:-1][is_near]]
    return sorted(set(added))


def beyond(last: float, last_step: int, reach: float = math.inf) -> list[int]:
    """Fork steps past the last, an octave apart, until one is past `reach` or no child can fork any more."""
    added: list[int] = []
    step = max(last, 0.5)
    while 2 * step <= last_step and step < reach:
        step *= 2
        added.append(int(step))
    return added or ([last_step] if last < min(last_step, reach) else [])


def _of_located(
    found: Transition,
    crossings: list[Crossing],
    logs: Array,
    within: Within,
    steps: Array,
    *,
    ratio: float,
    last_step: int,
) -> Advice:
    wanted, spread, number = math.log(ratio), float(logs.std(ddof=1)), len(logs)
    now = (1 + found.high) / (1 + found.low)
    directions, expected = _directions(spread, within)
    if now <= ratio:
        return Advice(
            now, spread, within.spread, number, number, number, within.num_directions, (), now, True, "narrow enough"
        )
    low, high = (math.sqrt((number - 1) / float(chdtri(number - 1, tail))) for tail in _tails())
    seeds, fewest, most = (
        seeds_wanted(expected * factor, wanted, least=max(LEAST_SEEDS, number)) for factor in (1.0, low, high)
    )
    located = [crossing for crossing in crossings if crossing.verdict == "located"]
    ends = min(crossing.low for crossing in located), max(crossing.high for crossing in located)
    near = t_width(spread, number, LIKELY) / 2
    first, end = (math.expm1(math.log1p(found.step) + side * near) for side in (-1, 1))
    added = between(steps, max(first, ends[0]), min(end, ends[1]), CELL_SHARE * wanted)
    width = t_width(expected, seeds)
    reach = math.expm1(float(logs.mean()) - float(ndtri(LEAST_OPEN / seeds)) * spread)
    is_open = any(math.isinf(crossing.step) for crossing in crossings)
    added += beyond(float(steps[-1]), last_step, max(reach, 2.0 * steps[-1] if is_open else 0.0))
    words = [f"{seeds} seeds for {number}"] * (seeds > number)
    words += [f"{directions} directions for {within.num_directions}"] * (directions > within.num_directions)
    words += [f"{len(added)} fork steps more"] * bool(added)
    return Advice(
        now,
        spread,
        within.spread,
        seeds,
        fewest,
        most,
        directions,
        tuple(added),
        _expected(crossings, steps, added, width),
        not words,
        ", ".join(words) or "whole steps are coarser than that: the interval can't be narrower",
    )


def _tails() -> tuple[float, float]:
    """Upper tails of χ² for the least and the greatest likely spread."""
    return (1 - LIKELY) / 2, (1 + LIKELY) / 2


def _directions(spread: float, within: Within) -> tuple[int, float]:
    """How many directions, and the spread over seeds that they leave."""
    if math.isnan(within.spread):
        return within.num_directions, spread
    noise = within.spread**2
    own = max(spread**2 - noise / within.num_directions, 0.0)
    if noise <= within.num_directions * own:
        return within.num_directions, spread
    enough = math.ceil(noise / own) if own > 0 else MOST_DIRECTIONS
    number = max(within.num_directions, min(enough, MOST_DIRECTIONS))
    return number, math.sqrt(own + noise / number)


def _expected(crossings: list[Crossing], steps: Array, added: list[int], width: float) -> float:
    """Ratio of the ends if t's interval and the cell about the median have one centre."""
    if any(math.isinf(crossing.step) for crossing in crossings) and not added:
        return math.inf
    middle = float(np.median([crossing.step for crossing in crossings]))
    grid = np.unique([*steps.tolist(), *added])
    place = min(max(int(np.searchsorted(grid, middle)), 1), len(grid) - 1)
    cell = math.log1p(grid[place]) - math.log1p(grid[place - 1])
    return math.exp(max(width, cell))


def _of_others(found: Transition, crossings: list[Crossing], steps: Array, last_step: int) -> Advice:
    number, last = len(crossings), float(steps[-1])
    if found.verdict == "stable_from_start":
        return _nothing(found, number, "stable from the start: there is no step to narrow down")
    later = beyond(last, last_step) if any(math.isinf(crossing.step) for crossing in crossings) else []
    if found.verdict == "chaotic_throughout":
        reason = "not settled by the last fork step" + ("" if later else ", and no child can fork later: a longer run")
        return _more(found, max(number, LEAST_SEEDS), later, reason)
    if number < LEAST_SEEDS - 1:
        return _more(found, LEAST_SEEDS, later, "a verdict takes two seeds, an interval of use three")
    verdicts = {crossing.verdict for crossing in crossings}
    if verdicts == {"undetermined"}:
        return _more(found, number, [0], "nowhere above the threshold, but not looked at from step 0")
    return _more(found, number + 1 + number % 2, later, "no majority of seeds agrees: more seeds, an odd number")


def _more(found: Transition, num_seeds: int, added: list[int], reason: str) -> Advice:
    ratio = math.inf if math.isinf(found.high) else math.nan
    is_enough = num_seeds <= found.num_seeds and not added
    return Advice(
        ratio, math.nan, math.nan, num_seeds, num_seeds, num_seeds, 1, tuple(added), math.nan, is_enough, reason
    )


def _nothing(found: Transition, num_seeds: int, reason: str) -> Advice:
    ratio = 1.0 if found.verdict == "stable_from_start" else math.nan
    return Advice(ratio, math.nan, math.nan, num_seeds, num_seeds, num_seeds, 1, (), ratio, True, reason)

"""Where a setting goes from chaotic to stable: one crossing per seed, their median, an interval, a verdict.

The question is that of Zhou, Yang, Sugiyama, Yan 2025 (arXiv:2505.13900): from which fork step on do perturbed children
stay connected to their reference? The paper reads it off heatmaps. Here a seed's answer is the fork step from which its
indicator stays at or below a declared threshold for good (a threshold as in Frankle et al. 2020, arXiv:1912.05671), and
a setting's answer is the median over seeds.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from twophase.errors import BadInput, unknown
from twophase.estimands import (
    ESTIMANDS,
    WORDS,
    Crossing,
    Verdict,
    octaves_of_change,
    reopenings,
    threshold_crossing,
)

__all__ = ["Crossing", "Transition", "Verdict", "locate_transition", "over_seeds", "seed_crossings"]

BIMODAL = "outcomes are bimodal: of one seed's directions some part and others don't"
LEAST_SPLIT = 0.25
"""Share of the seeds."""

CLEARLY_APART = 4.0
"""Times the threshold: above it an outcome isn't near it."""

METHOD = "median over seeds; Student t on log(1+step), joined with the grid cell of the median"

_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Transition:
    """A setting's transition step, how sure we are of it, and what it rests on.

    **Verdict.** A seed is `located` if it crosses; `chaotic_throughout` if t* = +inf; `stable_from_start` if never
    above *and* observed at fork step 0, else `undetermined` (its t* is still 0). The setting's verdict is that of
    strictly more than half the seeds; `undetermined` if there is none, or with fewer than two seeds.

    **Interval**, if located: the Student t interval of log(1 + t*) over seeds, joined with the cell of the median seed
    (of both middle seeds for an even number, and of any seed that ties with them). The cell is part of it because
    between two fork steps nothing was seen: where inside the cell the crossing lies is what the interpolation assumes,
    and seeds that agree within one cell would else give an interval finer than the grid can tell. It also makes the
    interval, which is one for a mean, hold the median. Zeros enter as log(1 + 0) = 0. If any seed is unsettled, `high`
    is +inf, and such a seed enters `low` as censored at the last fork step. An upper end past the last fork step is
    +inf too: a crossing there would be seen as +inf, so a number between the two would claim what nobody looked at, and
    the last fork step itself what the seeds don't bear out. For the other verdicts the ends are 0 and
    0 (`stable_from_start`), the last fork step and +inf (`chaotic_throughout`), NaN and NaN (`undetermined`).

    Attributes:
        step: Median over seeds of the crossing, in completed updates; NaN unless `verdict` is `located`.
        low: Lower end of the interval, in completed updates; NaN if undetermined.
        high: Upper end of the interval, in completed updates, at most the last fork step; +inf where it lies past that,
            where nothing was seen; NaN if undetermined.
        verdict: `located`, `stable_from_start`, `chaotic_throughout` or `undetermined`.
        threshold: Level of the indicator at or below which a child counts as connected.
        crossings: Crossing of each observed seed, in completed updates, seeds in order of first appearance;
            0 if never above the threshold, +inf if still above it at the seed's last fork step.
        num_seeds: Number of seeds with at least one observation.
        method: How `step`, `low` and `high` were obtained, in words.
        confidence: Nominal coverage of the Student t part of the interval.
        octaves: Sharpness: octaves of 1 + step that a curve takes from 90 % to 10 % of its plateau, median over seeds;
            NaN unless located, and where a seed's curve doesn't fall to a tenth.
        reopenings: Fork steps at which some seed's curve is above the threshold again, after having been below it.
    """

    step: float
    low: float
    high: float
    verdict: Verdict
    threshold: float
    crossings: tuple[float, ...]
    num_seeds: int
    method: str
    confidence: float
    octaves: float = math.nan
    reopenings: tuple[float, ...] = ()


def locate_transition(
    fork_steps: npt.ArrayLike,
    values: npt.ArrayLike,
    *,
    threshold: float = 0.05,
    groups: Iterable[Any] | None = None,
    confidence: float = 0.95,
    estimand: str = "threshold",
) -> Transition:
    """Locate the fork step from which an indicator stays at or below a threshold for good.

    With c(t) the mean over the replicates of a seed forked at t, τ the threshold and u_k = log(1 + t_k)::

        m_k = max_{j >= k} c(t_j)                   running maximum from the last fork step backwards
        κ   = min {k : m_k <= τ}                    the seed crosses in the cell [t_{κ-1}, t_κ]
        log(1 + t*) = u_{κ-1} + (u_κ - u_{κ-1}) (m_{κ-1} - τ) / (m_{κ-1} - m_κ)

    and `step` is the median of t* over seeds. Where the cell's left side is infinite, t* is its upper end. A seed never
    above has t* = 0, one still above at its last fork step t* = +inf. NaN is a missing run: it is left out of the mean,
    and a fork step at which a seed has nothing is left out of that seed's curve. +inf is a diverged run: one is enough
    to make the mean +inf. A fork step at which no seed has anything is as if it were not in the grid.

    Verdict and interval follow by the rules that `Transition` states.

    Args:
        fork_steps: [fork steps] Completed updates at which children were forked: whole, >= 0, increasing.
        values: [replicates, fork steps] An indicator that falls as training settles, such as `test_barrier`, in its own
            units; NaN where a run is missing, +inf where it diverged.
        threshold: The declared level, in the units of `values`; a value equal to it counts as settled.
        groups: [replicates] The seed of each replicate, as any hashable labels. Directions of one seed are averaged,
            they never count as more seeds. Without groups, each replicate is a seed of its own.
        confidence: Nominal coverage of the interval over seeds, inside (0, 1).
        estimand: What a seed's crossing is, a name of `twophase.estimands.ESTIMANDS`: `threshold`, as above, or for
            comparison `half_height`, `logistic` or `change_point`. Verdicts and interval follow by the same rules.

    Returns:
        The transition, in completed updates.

    Raises:
        BadInput: A ValueError. `fork_steps` negative, fractional, not finite, repeated or not increasing; `values` not
            [replicates, fork steps] or with -inf; `groups` not one label per replicate; `threshold` not finite;
            `confidence` not inside (0, 1).
    """
    _check(threshold, confidence, estimand)
    steps = _read_fork_steps(fork_steps)
    numbers = read_values(values, num_fork_steps=steps.size)
    labels = _read_groups(groups, num_replicates=len(numbers))
    curves = list(seed_curves(numbers, labels).values())
    seen = [_seen(steps, curve) for curve in curves]
    found = over_seeds(
        [ESTIMANDS[estimand](*one, threshold) for one in seen],
        _last_fork_step(steps, curves),
        threshold,
        method=_method(estimand, _is_bimodal(numbers, labels, threshold)),
        confidence=confidence,
    )
    octaves = float(np.median([octaves_of_change(*one) for one in seen])) if found.verdict == "located" else math.nan
    reopened = {step for one in seen for step in reopenings(*one, threshold)}
    return replace(found, octaves=octaves, reopenings=tuple(sorted(reopened)))


def _check(threshold: float, confidence: float, estimand: str) -> None:
    if not math.isfinite(threshold):
        raise BadInput(f"threshold must be finite, got {threshold}")
    if not 0 < confidence < 1:
        raise BadInput(f"confidence must be inside (0, 1), got {confidence}")
    if estimand not in ESTIMANDS:
        raise unknown("estimand", estimand, ESTIMANDS)


def _seen(steps: _Array, curve: _Array) -> tuple[_Array, _Array]:
    """The fork steps at which a seed was seen, and its curve there."""
    is_seen = ~np.isnan(curve)
    return steps[is_seen], curve[is_seen]


def _method(estimand: str, is_bimodal: bool) -> str:
    words = METHOD if estimand == "threshold" else f"{WORDS[estimand]}; {METHOD}"
    return f"{words}; {BIMODAL}" if is_bimodal else words


def _is_bimodal(values: _Array, groups: list[Hashable], threshold: float) -> bool:
    """Tell whether at some fork step a quarter of the seeds have directions that part and others that don't.

    That is how pushes behave that are lost by chance: the mean over directions then stands for no direction, and the
    interval, which takes crossings for log-normal over seeds, covers less than it says.
    """
    every = [values[[label == seed for label in groups]] for seed in dict.fromkeys(groups)]
    seeds = [own for own in every if not np.isnan(own).all()]
    split = [
        (np.fmin.reduce(own, axis=0) <= threshold) & (np.fmax.reduce(own, axis=0) > CLEARLY_APART * threshold)
        for own in seeds
    ]
    return bool(split) and bool((np.mean(split, axis=0) >= LEAST_SPLIT).any())


def over_seeds(
    crossings: list[Crossing],
    last_step: float,
    threshold: float,
    *,
    method: str = METHOD,
    confidence: float = 0.95,
) -> Transition:
    """Join the seeds' crossings to the setting's transition, by the rules of `locate_transition`.

    Args:
        crossings: One per seed that was seen.
        last_step: The last step at which a crossing could have been seen.
        threshold: The declared level, handed on.
        method: What to say of how it was obtained.
        confidence: Nominal coverage of the interval over seeds.

    Returns:
        The transition.
    """
    verdict = _verdict(crossings)
    step, low, high = math.nan, math.nan, math.nan
    if verdict == "located":
        step = float(np.median([crossing.step for crossing in crossings]))
        low, high = _interval(crossings, last_step, confidence)
    elif verdict == "chaotic_throughout":
        low, high = last_step, math.inf
    elif verdict == "stable_from_start":
        low, high = 0.0, 0.0
    return Transition(
        step=step,
        low=low,
        high=high,
        verdict=verdict,
        threshold=float(threshold),
        crossings=tuple(crossing.step for crossing in crossings),
        num_seeds=len(crossings),
        method=method,
        confidence=float(confidence),
    )


def seed_crossings(
    fork_steps: npt.ArrayLike, values: npt.ArrayLike, *, threshold: float = 0.05, groups: Iterable[Any] | None = None
) -> dict[Hashable, Crossing]:
    """Find the crossing of each seed, as `locate_transition` does, with the cell it lies in.

    Args:
        fork_steps: As `locate_transition` takes them.
        values: As `locate_transition` takes them.
        threshold: As `locate_transition` takes it.
        groups: As `locate_transition` takes them.

    Returns:
        Label of the seed -> its crossing, in order of first appearance; seeds without any observation are left out.

    Raises:
        BadInput: As `locate_transition` does.
    """
    steps = _read_fork_steps(fork_steps)
    numbers = read_values(values, num_fork_steps=steps.size)
    if not math.isfinite(threshold):
        raise BadInput(f"threshold must be finite, got {threshold}")
    curves = seed_curves(numbers, groups)
    return {label: threshold_crossing(*_seen(steps, curve), threshold) for label, curve in curves.items()}


def seed_curves(values: _Array, groups: Iterable[Any] | None) -> dict[Hashable, _Array]:
    """Average the replicates of each seed that has any observation, seeds in order of first appearance."""
    rows_of: dict[Hashable, list[int]] = {}
    for row, label in enumerate(_read_groups(groups, num_replicates=len(values))):
        rows_of.setdefault(label, []).append(row)
    curves = {label: _mean_curve(values[rows]) for label, rows in rows_of.items()}
    return {label: curve for label, curve in curves.items() if not np.isnan(curve).all()}


def _mean_curve(values: _Array) -> _Array:
    """Average over replicates, the first axis: NaN left out, NaN where there is nothing else, +inf where one is.

    Sorted first, so that the order of rows can't change the rounding; kept between least and greatest, so that three
    times the threshold averages to the threshold (in float64, (0.05 + 0.05 + 0.05) / 3 > 0.05).
    """
    values = np.sort(values, axis=0)
    is_seen = ~np.isnan(values)
    with np.errstate(invalid="ignore", over="ignore"):  # 0 / 0 where nothing was seen; sums beyond float64
        mean: _Array = np.where(is_seen, values, 0.0).sum(axis=0) / is_seen.sum(axis=0)
    least: _Array = np.fmin.reduce(values, axis=0)
    greatest: _Array = np.fmax.reduce(values, axis=0)
    return np.minimum(np.maximum(mean, least), greatest)


def _verdict(crossings: list[Crossing]) -> Verdict:
    """Take the verdict of strictly more than half the seeds, of at least two."""
    if len(crossings) < 2:
        return "undetermined"
    verdict, count = Counter(crossing.verdict for crossing in crossings).most_common(1)[0]
    return verdict if 2 * count > len(crossings) else "undetermined"


def _interval(crossings: list[Crossing], last_fork_step: float, confidence: float) -> tuple[float, float]:
    """Join the Student t interval of log(1 + crossing) with the cells of the seeds that make the median.

    With more than half the seeds located, fewer than half lie at 0 and fewer than half at +inf: the middle ones are
    located, and their cells finite.
    """
    steps = np.sort([crossing.step for crossing in crossings])  # sorted: the order of seeds can't change the rounding
    num_seeds = steps.size
    logs = np.log1p(np.minimum(steps, last_fork_step))
    quantile = -stdtrit(num_seeds - 1, (1 - confidence) / 2)  # by the lower tail, accurate for a confidence near 1
    centre, half_width = logs.mean(), quantile * logs.std(ddof=1) / math.sqrt(num_seeds)

    middle = steps[[(num_seeds - 1) // 2, num_seeds // 2]]
    cells = [crossing for crossing in crossings if crossing.step in middle]
    low = min(float(np.expm1(centre - half_width)), *(cell.low for cell in cells))
    # Seeds that all cross at the last fork step must not leave the grid by rounding.
    is_past = centre + half_width > math.log1p(last_fork_step) * (1 + 1e-12)
    if is_past or math.isinf(steps[-1]):
        return max(low, 0.0), math.inf
    high = max(float(np.expm1(centre + half_width)), *(cell.high for cell in cells))
    return max(low, 0.0), min(high, last_fork_step)


def _last_fork_step(steps: _Array, curves: list[_Array]) -> float:
    """Find the last fork step at which any seed was seen; NaN if none was."""
    return float(steps[~np.isnan(curves).all(axis=0)][-1]) if curves else math.nan


def read_numbers(field: str, numbers: npt.ArrayLike) -> _Array:
    """Give an array of numbers its type; `field` is what an error calls it."""
    try:
        return np.asarray(numbers, dtype=np.float64)
    except (TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise BadInput(f"{field} must be an array of numbers, got {type(numbers).__name__}: {reason}") from None


def _read_fork_steps(fork_steps: npt.ArrayLike) -> _Array:
    steps = read_numbers("fork_steps", fork_steps)
    if steps.ndim != 1:
        raise BadInput(f"fork_steps must have one axis, got shape {steps.shape}")
    if bad := [f"{step:.15g}" for step in steps if not (np.isfinite(step) and step >= 0 and step == np.floor(step))]:
        raise BadInput(f"fork_steps must be whole numbers of updates >= 0, got {', '.join(bad)}")
    if repeated := [f"{step:.15g}" for step, count in Counter(steps.tolist()).items() if count > 1]:
        raise BadInput(f"fork_steps must not repeat, got {', '.join(repeated)} more than once")
    if fallen := [f"{after:.15g} after {before:.15g}" for before, after in pairwise(steps) if after < before]:
        raise BadInput(f"fork_steps must be increasing, got {', '.join(fallen)}")
    return steps


def read_values(values: npt.ArrayLike, num_fork_steps: int) -> _Array:
    """Check replicates' values: [replicates, columns], finite, NaN (missing) or +inf (diverged)."""
    numbers = read_numbers("values", values)
    if numbers.ndim != 2:
        raise BadInput(f"values must be [replicates, fork steps], got shape {numbers.shape}")
    if numbers.shape[1] != num_fork_steps:
        raise BadInput(f"values must have one column per fork step, {num_fork_steps}, got shape {numbers.shape}")
    if np.isneginf(numbers).any():
        row, column = np.argwhere(np.isneginf(numbers))[0]
        raise BadInput(f"values must be finite, NaN (missing) or +inf (diverged), got -inf at [{row}, {column}]")
    return numbers


def _read_groups(groups: Iterable[Any] | None, num_replicates: int) -> list[Hashable]:
    if groups is None:
        return list(range(num_replicates))
    # Scalar arrays become Python's scalars: torch's hash by identity, and would each be a seed of its own.
    labels = [label.item() if getattr(label, "ndim", None) == 0 else label for label in groups]
    if len(labels) != num_replicates:
        raise BadInput(f"groups must have one label per replicate, {num_replicates}, got {len(labels)}")
    for label in labels:
        if not isinstance(label, Hashable) or hasattr(label, "ndim") or label != label:  # noqa: PLR0124 - NaN
            raise BadInput(f"groups must hold hashable labels, none of them missing, got {label!r}")
    return labels

"""Other answers to "where is the transition" than the threshold: each takes one seed's curve and gives its crossing.

They are here to be compared, not preferred. Half the height of a seed's own plateau, and with it the middle of a fitted
logistic, moves with the plateau, not with what counts as connected: a curve that starts twice as high crosses elsewhere
though it connects at the same step. A change point finds a split in any curve that falls. The declared threshold is the
literature's convention (Frankle et al. 2020, arXiv:1912.05671) and the default of `twophase.transition`.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

Array = npt.NDArray[np.float64]
Verdict = Literal["located", "stable_from_start", "chaotic_throughout", "undetermined"]

LEAST_POINTS = 4
"""Fork steps below which nothing is fitted."""


class Crossing(NamedTuple):
    """One seed's crossing and the cell it lies in: the curve was above at `low`, and from `high` on never again.

    Attributes:
        step: The crossing, interpolated inside the cell; 0 if never above, +inf if unsettled at the last fork step.
        low: Last fork step at which it was above; 0 if never.
        high: Fork step from which it never was again; +inf if unsettled; the first fork step if never above.
        verdict: `located`, `stable_from_start`, `chaotic_throughout`; `undetermined` if never above, but not seen at 0,
            or where too little was seen for what is asked.
    """

    step: float
    low: float
    high: float
    verdict: Verdict


def threshold_crossing(steps: Array, curve: Array, threshold: float) -> Crossing:
    """Find the step from which a curve stays at or below the threshold for good.

    Args:
        steps: Fork steps at which the seed was seen.
        curve: Its values there; +inf where a child diverged.
        threshold: Level at or below which a child counts as connected.
    """
    falling = running_maximum(curve)
    num_above = int((falling > threshold).sum())  # these come first, for the running maximum falls
    if num_above == 0:
        return _never_above(steps)
    if num_above == steps.size:
        return _unsettled(steps)
    low, high = steps[num_above - 1 : num_above + 1].tolist()
    above, below = falling[num_above - 1 : num_above + 1].tolist()
    return Crossing(_interpolate(low, high, above, below, threshold), low, high, "located")


def half_height_crossing(steps: Array, curve: Array, threshold: float) -> Crossing:
    """Find the step from which a curve stays at or below half its own greatest finite value for good.

    A curve that is nowhere above the threshold has no height to take half of.
    """
    plateau = _greatest(curve)
    if plateau <= threshold and not np.isinf(curve).any():
        return _never_above(steps)
    return threshold_crossing(steps, curve, max(plateau, threshold) / 2)


def logistic_crossing(steps: Array, curve: Array, threshold: float) -> Crossing:
    """Find the middle of a fitted logistic, c(t) = P / (1 + exp((u − u₀) / w)) with u = log(1 + t), by least squares.

    A diverged child counts as the greatest finite value, but at least as twice the threshold.
    """
    if not (curve > threshold).any():
        return _never_above(steps)
    if steps.size < LEAST_POINTS:
        return Crossing(math.nan, math.nan, math.nan, "undetermined")
    middle, _ = fit_logistic(steps, _bounded(curve, threshold))
    if middle >= math.log1p(steps[-1]):
        return _unsettled(steps)
    step = max(math.expm1(middle), 0.0)
    place = int(np.searchsorted(steps, step))
    low = float(steps[place - 1]) if place else 0.0
    return Crossing(step, low, float(steps[place]), "located")


def fit_logistic(steps: Array, curve: Array) -> tuple[float, float]:
    """Fit the logistic of `logistic_crossing` to finite values.

    Returns:
        Its middle u₀, in log(1 + step), and its width w there; from 90 % to 10 % it takes 2 log(9) w.
    """
    logs = np.log1p(steps)
    values, height = curve, max(float(curve.max()), 1e-12)

    def residual(parameters: Array) -> Array:
        exponent = np.clip((logs - parameters[1]) / math.exp(parameters[2]), -500, 500)
        gap: Array = math.exp(parameters[0]) / (1 + np.exp(exponent)) - values / height
        return gap

    centre = float(np.interp(0.5, values[::-1] / height, logs[::-1]))
    best = min(
        (least_squares(residual, [0.0, centre, math.log(width)], max_nfev=200) for width in (0.1, 0.5, 1.5)),
        key=lambda found: float(found.cost),
    )
    return float(best.x[1]), math.exp(float(best.x[2]))


def change_point_crossing(steps: Array, curve: Array, threshold: float) -> Crossing:
    """Find the split of a curve into a higher and a lower level that leaves the least squares, if it pays.

    It pays if Schwarz's criterion prefers two levels and a split to one level. A diverged child counts as the greatest
    finite value. The crossing is the middle, in log(1 + step), of the cell between the two regimes.
    """
    if not (curve > threshold).any():
        return _never_above(steps)
    if steps.size < LEAST_POINTS:
        return Crossing(math.nan, math.nan, math.nan, "undetermined")
    values = _bounded(curve, threshold)
    costs = [values[:k].var() * k + values[k:].var() * (steps.size - k) for k in range(1, steps.size)]
    split = int(np.argmin(costs)) + 1
    floor = 1e-12 * float(np.square(values).sum()) + 1e-300
    one, two = float(values.var()) * steps.size + floor, float(costs[split - 1]) + floor
    does_pay = steps.size * math.log(one / two) > 2 * math.log(steps.size)
    if not does_pay or values[:split].mean() <= values[split:].mean():
        return _unsettled(steps)
    low, high = float(steps[split - 1]), float(steps[split])
    middle = math.expm1((math.log1p(low) + math.log1p(high)) / 2)
    return Crossing(middle, low, high, "located")


ESTIMANDS: dict[str, Callable[[Array, Array, float], Crossing]] = {
    "threshold": threshold_crossing,
    "half_height": half_height_crossing,
    "logistic": logistic_crossing,
    "change_point": change_point_crossing,
}
"""Name of an estimand -> a seed's crossing, from the fork steps at which it was seen, its curve and the threshold."""

WORDS: dict[str, str] = {
    "threshold": "crossing of the threshold for good",
    "half_height": "crossing of half the seed's own plateau for good",
    "logistic": "middle of a logistic in log(1+step)",
    "change_point": "split into two levels",
}


def running_maximum(curve: Array) -> Array:
    """The running maximum from the last fork step backwards."""
    return np.maximum.accumulate(curve[::-1])[::-1]


def octaves_of_change(steps: Array, curve: Array) -> float:
    """How many octaves of 1 + step a curve takes from 90 % to 10 % of its greatest finite value, for good.

    Returns:
        The octaves; NaN where it doesn't fall to a tenth inside the grid.
    """
    plateau = _greatest(curve)
    ends = [threshold_crossing(steps, curve, share * plateau) for share in (0.9, 0.1)]
    if not plateau > 0 or any(end.verdict != "located" for end in ends):
        return math.nan
    return math.log2((1 + ends[1].step) / (1 + ends[0].step))


def reopenings(steps: Array, curve: Array, threshold: float) -> list[float]:
    """Fork steps at which a curve is above the threshold again, after having been at or below it."""
    is_above = curve > threshold
    return [
        float(step) for step, before, now in zip(steps[1:], is_above, is_above[1:], strict=False) if now and not before
    ]


def _bounded(curve: Array, threshold: float) -> Array:
    """The curve with diverged values at its greatest finite one, but at least at twice the threshold."""
    return np.where(np.isinf(curve), max(_greatest(curve), 2 * threshold), curve)


def _greatest(curve: Array) -> float:
    finite = curve[np.isfinite(curve)]
    return float(finite.max()) if finite.size else 0.0


def _never_above(steps: Array) -> Crossing:
    first = float(steps[0])
    return Crossing(0.0, 0.0, first, "stable_from_start" if first == 0 else "undetermined")


def _unsettled(steps: Array) -> Crossing:
    return Crossing(math.inf, float(steps[-1]), math.inf, "chaotic_throughout")


def _interpolate(low: float, high: float, above: float, below: float, threshold: float) -> float:
    """Find where in [low, high] the line from `above` to `below` over log(1 + step) meets the threshold."""
    if not math.isfinite(above - below):
        return high
    fraction = (above - threshold) / (above - below)
    log_step = math.log1p(low) + fraction * (math.log1p(high) - math.log1p(low))
    return min(max(math.expm1(log_step), low), high)  # rounding must not leave the cell

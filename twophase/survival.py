"""Log-normal accelerated failure times by maximum likelihood: what moves a transition, and by what factor.

A transition step is a time that is seldom seen exactly: it lies between two fork steps, or past the last one. For
replicate j of cluster i, with x its covariates::

    log T_ij = x_ijᵀ β + τ u_i + σ ε_ij,    u_i, ε_ij ~ N(0, 1)

    L(β, σ, τ) = ∏_i ∫ φ(u) ∏_j P(low_ij <= T_ij <= high_ij | u) du

A coefficient is a factor on the time, e^β per unit of its covariate (Wei 1992, doi:10.1002/sim.4780111409). The random
effect τ says that replicates of one setting are no independent settings; with τ = 0 this is the usual AFT model.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize
from scipy.special import log_ndtr, stdtr, stdtrit

from twophase.errors import BadInput

_Array = npt.NDArray[np.float64]
_LOG_2PI = math.log(2 * math.pi)
LEAST_SCALE, MOST_SCALE = 0.01, 30.0
"""Bounds of σ and τ, in nats."""
LEAST_OF_CELL = 0.08
"""With clusters, σ is at least this share of the usual cell: the nodes of the integral don't resolve sharper edges.

Less than that can't be told from no spread, and replicates of one cell would ask for none.
"""
FARTHEST = 12.0
"""How far from the estimate an end of an interval is looked for, in nats over the range of its covariate."""
_NODES = np.linspace(-6.0, 6.0, 61)
"""Of the trapezoid rule, in standard deviations of a cluster's effect given its data; exact to 1e-8 for a Gaussian."""


@dataclass(frozen=True)
class Times:
    """Interval-censored log times beside what they may depend on.

    Attributes:
        design: [times, coefficients] Covariates, the constant among them.
        low: [times] Log of the greatest time at which it hadn't happened yet; -inf if never looked.
        high: [times] Log of the least time by which it had; +inf: not at the last look. As `low`: seen.
        cluster: [times] Number of the cluster, 0, 1, …; None: each time is independent of every other.
    """

    design: _Array
    low: _Array
    high: _Array
    cluster: npt.NDArray[np.intp] | None = None

    @property
    def num_clusters(self) -> int:
        """How many clusters; of independent times none."""
        return 0 if self.cluster is None else int(self.cluster.max()) + 1


@dataclass(frozen=True)
class Effect:
    """A coefficient of a fitted model.

    Attributes:
        estimate: Maximum likelihood; ±inf where the likelihood has none, as when one group was never seen to cross.
        low: Lower end of its interval; -inf where there is none.
        high: Upper end; +inf where there is none.
        p_value: Of the hypothesis that it is 0; NaN without degrees of freedom.
        num_units: How many independent units bear on it.
        degrees: Degrees of freedom left to judge it by.
    """

    estimate: float
    low: float
    high: float
    p_value: float
    num_units: int
    degrees: int


@dataclass(frozen=True)
class Fit:
    """A fitted model.

    Attributes:
        coefficients: [coefficients] β.
        scale: σ, the spread of replicates of one cluster, in nats.
        cluster_scale: τ, the spread of clusters about the line, in nats; 0 for independent times.
        log_likelihood: At the maximum, of log times.
    """

    coefficients: _Array
    scale: float
    cluster_scale: float
    log_likelihood: float


def read_times(
    design: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike, clusters: Sequence[Hashable] | None = None
) -> Times:
    """Check times and take their logarithms.

    Args:
        design: [times, coefficients] Covariates, the constant among them.
        low: [times] Greatest time at which it hadn't happened yet, >= 0.
        high: [times] Least time by which it had, > 0; +inf: not at the last look.
        clusters: [times] Labels of what times share, such as their setting.

    Raises:
        BadInput: Shapes don't fit, a time is NaN, negative or beyond its upper end, the covariates depend on each
            other, or there are no more times than coefficients.
    """
    X = np.asarray(design, dtype=np.float64)
    first, last = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    if X.ndim != 2 or first.shape != last.shape != () or first.shape != (len(X),):
        raise BadInput(f"times must be [times], design [times, coefficients], got {first.shape} and {X.shape}")
    if not (np.isfinite(X).all() and (first >= 0).all() and (last > 0).all() and (first <= last).all()):
        raise BadInput("times must have 0 <= low <= high, high > 0, and covariates must be finite")
    if len(X) <= X.shape[1] or np.linalg.matrix_rank(X) < X.shape[1]:
        raise BadInput(f"{X.shape[1]} covariates that don't depend on each other need more times, got {len(X)}")
    with np.errstate(divide="ignore"):
        logs = np.log(first), np.log(last)
    if clusters is None:
        return Times(X, *logs)
    number = {label: place for place, label in enumerate(dict.fromkeys(clusters))}
    return Times(X, *logs, np.array([number[label] for label in clusters]))


def fit_times(times: Times) -> Fit:
    """Fit a log-normal model of accelerated failure times by maximum likelihood.

    Args:
        times: As `read_times` gives them.

    Returns:
        The fit, the same for the same data.

    References:
        Interval censoring: Sun 2006, The Statistical Analysis of Interval-censored Failure Time Data, chapter 2.
    """
    return _fit(times, np.zeros(len(times.low)))


def effect(times: Times, fit: Fit, column: int, confidence: float = 0.95) -> Effect:
    """Judge one coefficient: its interval by profile likelihood, with the t distribution's correction for few units.

    With D(b) twice the fall of the profile log-likelihood from its maximum to β = b, m units and d degrees of freedom
    left to them, b is inside if::

        D(b) <= m log(1 + t² / d),    t the upper (1 + confidence) / 2 point of Student's t with d degrees

    which is the exact t interval of a linear model when every time is seen, and goes to the usual χ² limit with many.
    The units are clusters for a covariate that is the same throughout each cluster (settings, for a trend over
    settings: their replicates make no more of them), times within clusters for one that isn't (pairs), and times
    for independent ones; those that were never seen to happen don't count.

    Args:
        times: As given to `fit_times`.
        fit: What it gave.
        column: Number of the coefficient.
        confidence: Nominal coverage, inside (0, 1).
    """
    num_units, degrees = _units(times, column)
    estimate = float(fit.coefficients[column])
    if degrees < 1:
        return Effect(estimate, -math.inf, math.inf, math.nan, num_units, degrees)
    most = _most_fall(num_units, degrees, confidence)

    def fall(value: float) -> float:
        return _fall(times, fit, column, value)

    spread = float(np.ptp(times.design[:, column]))
    reach = 1 / spread if spread else 1.0
    low, high = (_end(fall, estimate, side, most, reach) for side in (-1, 1))
    if math.isinf(low) != math.isinf(high):
        open_side = -1 if math.isinf(low) else 1
        estimate = open_side * math.inf if fall(estimate + open_side * FARTHEST * reach) < 1e-2 else estimate
    t = math.sqrt(degrees * math.expm1(min(fall(0.0) / num_units, 700.0)))
    return Effect(estimate, low, high, 2 * float(stdtr(degrees, -t)), num_units, degrees)


def is_covered(times: Times, fit: Fit, column: int, value: float, confidence: float = 0.95) -> bool:
    """Tell whether a value of a coefficient is inside the interval of `effect`, without looking for its ends."""
    num_units, degrees = _units(times, column)
    return degrees < 1 or _fall(times, fit, column, value) <= _most_fall(num_units, degrees, confidence)


def _most_fall(num_units: int, degrees: int, confidence: float) -> float:
    quantile = float(stdtrit(degrees, (1 - confidence) / 2))
    return num_units * math.log1p(quantile**2 / degrees)


def _fall(times: Times, fit: Fit, column: int, value: float) -> float:
    """Twice the log-likelihood lost by holding one coefficient at a value."""
    held = replace(times, design=np.delete(times.design, column, axis=1))
    return max(0.0, 2 * (fit.log_likelihood - _fit(held, times.design[:, column] * value).log_likelihood))


def _end(fall: Callable[[float], float], estimate: float, side: int, most: float, reach: float) -> float:
    """Find where the fall passes its limit on one side; infinite if it doesn't by `FARTHEST` times `reach`.

    The root of the fall is nearly a straight line: so is looked for where it meets the limit's.
    """

    def past(step: float) -> float:
        if step == 0:
            return -math.sqrt(most)  # it falls by nothing at the estimate itself
        return math.sqrt(fall(estimate + side * step * reach)) - math.sqrt(most)

    near, at_near, step = 0.0, -math.sqrt(most), 0.5
    while (at_step := past(step)) < 0:
        if step >= FARTHEST:
            return side * math.inf
        slope = (at_step - at_near) / (step - near)
        onward = -1.1 * at_step / slope if slope > 0 else math.inf
        near, at_near, step = step, at_step, min(FARTHEST, step + max(0.2 * step, min(onward, 3 * step)))
    return estimate + side * float(brentq(past, near, step, xtol=1e-3, rtol=1e-6)) * reach


def _units(times: Times, column: int) -> tuple[int, int]:
    """Independent units that bear on a coefficient, and degrees of freedom left to them."""
    is_seen = np.isfinite(times.high)
    num_columns = times.design.shape[1]
    if times.cluster is None:
        num_seen = int(is_seen.sum())
        return num_seen, num_seen - num_columns
    is_within = np.array([_varies(times.design[:, place], times.cluster) for place in range(num_columns)])
    seen = np.unique(times.cluster[is_seen])
    if not is_within[column]:
        return len(seen), len(seen) - int((~is_within).sum())
    num_pairs = int(is_seen.sum()) - len(seen)
    return num_pairs, num_pairs - int(is_within.sum())


def _varies(values: _Array, cluster: npt.NDArray[np.intp]) -> bool:
    return any(np.ptp(values[cluster == number]) > 0 for number in range(int(cluster.max()) + 1))


def _fit(times: Times, offset: _Array) -> Fit:
    """Maximise the likelihood with part of the mean held."""
    basis, back = _orthonormal(times.design)
    fits = [_climb(times, basis, offset, point) for point in _starts(times, basis, offset)]
    value, point = max(fits, key=lambda found: found[0])
    size = basis.shape[1]
    beta = np.asarray(np.linalg.solve(back, point[:size]) if size else point[:0], dtype=np.float64)
    tau = math.exp(point[-1]) if times.cluster is not None else 0.0
    return Fit(beta, math.exp(point[size]), tau, value)


def _orthonormal(X: _Array) -> tuple[_Array, _Array]:
    """Columns of size √n that span the same, and how to come back: scales of covariates don't matter then."""
    if X.shape[1] == 0:
        return X, np.zeros((0, 0))
    Q, R = np.linalg.qr(X)
    return Q * math.sqrt(len(X)), R / math.sqrt(len(X))


def _middles(times: Times) -> _Array:
    """A place for each log time: the middle of its cell, or somewhat past the end it has."""
    low, high = times.low, times.high
    middle = np.where(np.isinf(low), high - 0.5, np.where(np.isinf(high), low + 0.5, 0.0))
    is_cell = np.isfinite(low) & np.isfinite(high)
    middle[is_cell] = (low[is_cell] + high[is_cell]) / 2
    return middle


def _starts(times: Times, basis: _Array, offset: _Array) -> list[_Array]:
    """Where to start from: least squares on the middles, clusters sharing much of the spread, or little.

    Never from next to no spread: where cells are all that was seen, the likelihood is a cliff there.
    """
    left = _middles(times) - offset
    gamma = basis.T @ left / len(left)
    sigma = max(float(np.std(left - basis @ gamma)), 0.2)
    if times.cluster is None:
        return [np.array([*gamma, math.log(sigma)])]
    return [np.array([*gamma, *np.log([part * sigma, whole * sigma])]) for part, whole in ((0.7, 0.7), (1.0, 0.1))]


def _climb(times: Times, basis: _Array, offset: _Array, point: _Array) -> tuple[float, _Array]:
    scales = 1 if times.cluster is None else 2
    least = [_least_sigma(times), LEAST_SCALE][:scales]
    bounds = [(-80.0, 80.0)] * basis.shape[1] + [(math.log(low), math.log(MOST_SCALE)) for low in least]
    point = np.clip(point, [low for low, _ in bounds], [high for _, high in bounds])
    value = -math.inf
    for _ in range(8):
        nodes = _nodes(times, basis, offset, point)
        found = minimize(
            _loss,
            point,
            (times, basis, offset, nodes),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 300, "ftol": 1e-10, "gtol": 1e-5},
        )
        point, before, value = found.x, value, -float(found.fun)
        if nodes is None or abs(value - before) < 1e-5:
            break
    return value, point


def _least_sigma(times: Times) -> float:
    widths = (times.high - times.low)[np.isfinite(times.high - times.low)]
    if times.cluster is None or not len(widths):
        return LEAST_SCALE
    return max(LEAST_SCALE, LEAST_OF_CELL * float(np.median(widths)))


@dataclass(frozen=True)
class _Nodes:
    """Where a cluster's effect is looked at: [clusters, nodes] effects, and log weights with its density."""

    effects: _Array
    log_weights: _Array


def _nodes(times: Times, basis: _Array, offset: _Array, point: _Array) -> _Nodes | None:
    """Lay nodes over each cluster's effect given its data, as if every time stood at its cell's middle."""
    if times.cluster is None:
        return None
    mean = basis @ point[: basis.shape[1]] + offset
    sigma, tau = np.exp(point[-2:])
    width = np.where(np.isfinite(times.high - times.low), times.high - times.low, 1.0)
    precision = 1 / (sigma**2 + width**2 / 12)
    count = times.num_clusters
    pull = np.bincount(times.cluster, precision * (_middles(times) - mean), minlength=count)
    total = 1 + tau**2 * np.bincount(times.cluster, precision, minlength=count)
    spread = 1.4 / np.sqrt(total)
    effects = (tau * pull / total)[:, None] + spread[:, None] * _NODES
    log_step = np.log(spread * (_NODES[1] - _NODES[0]))
    return _Nodes(effects, -0.5 * effects**2 - 0.5 * _LOG_2PI + log_step[:, None])


def _loss(point: _Array, times: Times, basis: _Array, offset: _Array, nodes: _Nodes | None) -> tuple[float, _Array]:
    """Minus the log-likelihood and its gradient, in (γ, log σ[, log τ])."""
    size = basis.shape[1]
    mean, sigma = basis @ point[:size] + offset, math.exp(point[size])
    if nodes is None or times.cluster is None:
        value, of_mean, of_scale = _cell(times.low, times.high, mean, sigma)
        return -float(value.sum()), -np.array([*(basis.T @ of_mean), of_scale.sum()])
    tau, cluster = math.exp(point[-1]), times.cluster
    own = nodes.effects[cluster]
    value, of_mean, of_scale = _cell(times.low[:, None], times.high[:, None], mean[:, None] + tau * own, sigma)
    joint = nodes.log_weights.copy()
    np.add.at(joint, cluster, value)
    greatest = joint.max(axis=1, keepdims=True)
    weights = np.exp(joint - greatest)
    sums = weights.sum(axis=1, keepdims=True)
    total, share = np.log(sums) + greatest, (weights / sums)[cluster]
    pulled = share * of_mean
    gradient = [*(basis.T @ pulled.sum(axis=1)), (share * of_scale).sum(), tau * (pulled * own).sum()]
    return -float(total.sum()), -np.array(gradient)


def _cell(low: _Array, high: _Array, mean: _Array, sigma: float) -> tuple[_Array, _Array, _Array]:
    """Log of P(low <= log T <= high), or the density where they meet, and its derivatives by mean and by log σ."""
    a, b = (low - mean) / sigma, (high - mean) / sigma
    # Both tails are small numbers on the left of 0 only.
    right = np.where(a > 0, -a, b)
    log_right = log_ndtr(right)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # where low == high, which comes last
        log_p = log_right + np.log1p(-np.exp(log_ndtr(np.where(a > 0, -b, a)) - log_right))
        log_p = np.maximum(log_p, -1e10)
        at_a, at_b = (np.exp(-0.5 * z * z - 0.5 * _LOG_2PI - log_p) for z in (a, b))
        of_scale = np.where(at_a > 0, a * at_a, 0.0) - np.where(at_b > 0, b * at_b, 0.0)
        of_mean = (at_a - at_b) / sigma
    is_seen = low == high
    if is_seen.any():
        log_p = np.where(is_seen, -0.5 * a**2 - 0.5 * _LOG_2PI - math.log(sigma), log_p)
        of_mean, of_scale = np.where(is_seen, a / sigma, of_mean), np.where(is_seen, a**2 - 1, of_scale)
    return log_p, of_mean, of_scale

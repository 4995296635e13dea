"""How an angle grows with the lag: the exponent γ of angle ∝ lag^γ, with an interval that knows how paths are built."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import ndtri, polygamma

Array = NDArray[np.float64]

_GRID = np.linspace(0.0, 1.0, 101)


class Exponent(NamedTuple):
    """An exponent and its interval.

    Attributes:
        value: The slope of log angle over log lag: about 0 for jitter about an axis, ½ for a random walk, 1 for a
            straight path.
        low: Lower end; -inf below what any jitter gives.
        high: Upper end; inf beyond a straight path.
    """

    value: float
    low: float
    high: float


UNKNOWN = Exponent(math.nan, math.nan, math.nan)


def growth_exponent(
    lags: Float[Array, " n"], angles: Float[Array, " n"], dimension: float, *, confidence: float = 0.95
) -> Exponent:
    """Fit angle ∝ lag^γ by least squares of the logarithms.

    The angles from one point of one path depend on each other, so that the residuals of the line tell little of γ's
    error. Instead the path is taken for a fractional Brownian one of exponent γ in d directions; then, with
    ρ_kl = (t_k^{2γ} + t_l^{2γ} − |t_k − t_l|^{2γ}) / (2 t_k^γ t_l^γ) the correlation of its positions at two lags,

        cov(log |x_k|, log |x_l|) ≈ ¼ ψ'(d/2) ρ_kl²

    (exact for k = l), and the interval holds every γ in [0, 1] that isn't rejected by the slope found. Jitter about an
    axis is γ = 0, a random walk ½, a straight path 1.

    Args:
        lags: Since the point, > 0 and increasing; steps or any other clock.
        angles: To the point, in radians.
        dimension: Number d of directions in which the path moves, >= 1; see `twophase.sphere_walk.step_dimension`.
        confidence: Nominal coverage.

    Returns:
        The exponent; NaN for fewer than three lags, lags that don't increase, or angles that aren't positive.
    """
    is_fit = len(lags) >= 3 and (np.diff(lags) > 0).all() and lags[0] > 0 and (angles > 0).all()
    if not is_fit or not np.isfinite(angles).all() or not np.isfinite(lags).all():
        return UNKNOWN
    logs = np.log(lags)
    slope_of = (logs - logs.mean()) / ((logs - logs.mean()) ** 2).sum()
    value = float(slope_of @ np.log(angles))
    # Beyond a thousand directions a path's angles are as good as certain.
    spread = 0.25 * float(polygamma(1, min(max(dimension, 1.0), 1e3) / 2)) if dimension > 0 else math.nan
    errors = np.array([math.sqrt(max(slope_of @ _squared(lags, g) @ slope_of, 0.0) * spread) for g in _GRID])
    reach = float(-ndtri((1 - confidence) / 2)) * errors
    low = _first(_GRID[_GRID + reach >= value], math.inf)
    high = _first(_GRID[_GRID - reach <= value][::-1], -math.inf)
    return Exponent(value, -math.inf if low == 0 and value < 0 else low, math.inf if high == 1 and value > 1 else high)


def _squared(lags: Array, exponent: float) -> Array:
    """ρ² of a fractional Brownian path between all pairs of lags."""
    powers = lags ** (2 * exponent)
    gaps = np.abs(lags[:, None] - lags[None, :])
    covariance = 0.5 * (powers[:, None] + powers[None, :] - np.where(gaps > 0, gaps ** (2 * exponent), 0.0))
    return np.asarray(covariance**2 / np.outer(powers, powers))


def _first(values: Array, otherwise: float) -> float:
    return float(values[0]) if values.size else otherwise

"""The smallest cone about the origin that holds given directions, exactly, from their distances alone."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

Array = NDArray[np.float64]

_TOLERANCE = 1e-14
"""Of S, beside its greatest entry: below it a violated condition is rounding."""


@dataclass(frozen=True)
class EnclosingCone:
    """The smallest cone and the proof that none is smaller.

    Attributes:
        half_angle: Greatest angle between its axis and a direction, in radians: a cone of this size holds them all.
        gap: By how much a smaller cone could still be, in radians, from the dual: the certificate.
        weights: The axis is along Σ w_i u_i; w >= 0, Σ w = 1, and w_i > 0 only on the cone's surface.
    """

    half_angle: float
    gap: float
    weights: Float[Array, " m"]


def enclosing_cone(between: Float[Array, "m m"]) -> EnclosingCone:
    """Find the smallest spherical cap that holds unit vectors.

    Its centre is along the point of least norm in their convex hull, its half-angle θ follows from that norm::

        cos² θ = min_w |Σ w_i u_i|²,    so that    sin² θ = max_w wᵀ S w     over w >= 0, Σ w = 1

    (the smallest enclosing ball of points on a sphere; S_ij = 1 − u_i · u_j). An active-set method (Wolfe 1976, Finding
    the nearest point in a polytope) solves it to rounding in terms of S, so that narrow cones lose no digits. Any w
    bounds sin² θ from below and any axis bounds θ from above: both of the w found make the certificate.

    Args:
        between: 1 − cosine of all pairs, [m, m]: `twophase.cone.distances`, or `apex_distances` without the apex.

    Returns:
        The cone; NaN if an entry isn't finite, or if the directions fit in no half-space (then there is none below
        90°; kernels always do, having no negative inner product).
    """
    num = len(between)
    if num == 0 or not np.isfinite(between).all():
        return EnclosingCone(math.nan, math.nan, np.full(num, np.nan))
    weights = _largest_spread(between)
    each = between @ weights
    spread = float(weights @ each)
    if spread >= 1.0:
        return EnclosingCone(math.nan, math.nan, np.full(num, np.nan))
    length = math.sqrt(1.0 - spread)
    # 1 − cos of the farthest direction from the axis, free of cancellation; see `twophase.cone.from_mean`.
    farthest = max(0.0, (float(each.max()) - spread / (1.0 + length)) / length)
    upper = 2.0 * math.atan2(math.sqrt(farthest), math.sqrt(max(2.0 - farthest, 0.0)))
    lower = math.atan2(math.sqrt(max(spread, 0.0)), length)
    return EnclosingCone(upper, max(upper - lower, 0.0), weights)


def _largest_spread(between: Float[Array, "m m"]) -> Float[Array, " m"]:
    """Maximise wᵀ S w over the simplex: concave, for S is of negative type."""
    num = len(between)
    scale = float(between.max())
    weights = np.zeros(num)
    active = sorted({int(i) for i in np.unravel_index(int(between.argmax()), between.shape)})
    weights[active] = 1.0 / len(active)
    for _ in range(100 + 20 * num):  # each round raises the value: no set of active points comes twice
        each = between @ weights
        best = int(each.argmax())
        if best in active or each[best] <= weights @ each + _TOLERANCE * scale:
            break
        active = [*active, best]
        while True:
            wanted = _on_affine_hull(between[np.ix_(active, active)])
            if (wanted > -_TOLERANCE).all():
                break
            now = weights[active]
            falls = wanted < now
            room = np.where(falls & (wanted <= 0), now / np.where(falls, now - wanted, 1.0), np.inf)
            step = min(1.0, float(room.min()))
            moved = now + step * (wanted - now)
            moved[int(room.argmin())] = 0.0
            weights[:] = 0.0
            weights[active] = np.maximum(moved, 0.0)
            active = [i for i in active if weights[i] > 0]
        weights[:] = 0.0
        weights[active] = np.maximum(wanted, 0.0)
        weights /= weights.sum()
        active = [i for i in active if weights[i] > 0]
    return weights


def _on_affine_hull(between: Float[Array, "k k"]) -> Float[Array, " k"]:
    """Weights, of any sign and of sum 1, at which wᵀ S w is stationary: S w = λ 1."""
    num = len(between)
    scale = float(between.max()) or 1.0
    system = np.ones((num + 1, num + 1))
    system[:num, :num] = between / scale
    system[num, num] = 0.0
    right = np.zeros(num + 1)
    right[num] = 1.0
    return np.asarray(np.linalg.lstsq(system, right, rcond=None)[0][:num])

"""Geometry of a run's kernels, from their Gram matrix G_ij = ⟨H_i, H_j⟩_F alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

Array = NDArray[np.float64]


def distances(gram: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """Kernel distance between all pairs, S_ij = 1 − G_ij / √(G_ii G_jj) (arXiv:2505.13900, figure 4).

    Args:
        gram: Inner products of m kernels, float64.

    Returns:
        The distances, [m, m]; exactly 0 between equal kernels on the diagonal, NaN where a kernel is 0 or not finite.
    """
    squares = np.diag(gram)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        cosine = gram / np.sqrt(np.outer(squares, squares))
    return np.maximum(1.0 - cosine, 0.0)  # a cosine can exceed 1 by a rounding error; NaN stays


def angles(gram: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """Angle between all pairs of kernels, θ_ij = 2 atan2(√S_ij, √(2 − S_ij)), with S the kernel distance.

    The arc cosine of 1 − S would lose half the digits of a small angle; this form loses none beyond what S itself
    has: S comes from products in float64, so that angles below about 1e-8 can't be told from 0 by a Gram matrix.

    Returns:
        Radians in [0, π], [m, m]; exactly 0 on the diagonal, NaN where a kernel is 0 or not finite.
    """
    return angles_of(distances(gram))


def angles_of(between: Float[Array, "..."]) -> Float[Array, "..."]:
    """Angles of kernel distances S = 1 − cos θ, radians."""
    return np.asarray(2.0 * np.arctan2(np.sqrt(between), np.sqrt(np.maximum(2.0 - between, 0.0))))


def norm_ratios(gram: Float[Array, "m m"]) -> Float[Array, " m"]:
    """Norm of each kernel over that of the first: S and angles are blind to it, and it grows many-fold in training."""
    norms = np.sqrt(np.diag(gram))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(norms / norms[0])


def from_mean(between: Float[Array, "m m"]) -> Float[Array, " m"]:
    """Angle of each unit kernel u_i to their mean direction ū / ‖ū‖.

    With s_i the mean of S_ij over j, s the mean of s_i and R = ‖ū‖ = √(1 − s)::

        1 − cos = (s_i − s / (1 + R)) / R

    which cancels nothing where all angles are small.

    Args:
        between: Kernel distances, [m, m].

    Returns:
        Radians, [m]; NaN where the mean is 0 or a kernel isn't finite.
    """
    each = between.mean(axis=1)
    spread = each.mean()
    length = np.sqrt(1.0 - spread) if spread < 1.0 else np.nan
    return angles_of(np.clip((each - spread / (1.0 + length)) / length, 0.0, 2.0))


def half_angle(between: Float[Array, "m m"], quantile: float = 1.0) -> float:
    """Half-angle of the cone about the mean direction that holds a share of the unit kernels.

    Args:
        between: Kernel distances, [m, m].
        quantile: The share, in [0, 1]; by default all.

    Returns:
        Radians; NaN if a kernel isn't finite, for the largest can't be known then.
    """
    found = from_mean(between)
    return float(np.quantile(found, quantile)) if found.size and np.isfinite(found).all() else float("nan")


def apex_distances(gram: Float[Array, "m m"], apex: int, *, is_unit: bool) -> Float[Array, "m m"]:
    """1 − cosine between the directions in which kernels lie from one of them, ⟨H_s − H_a, H_t − H_a⟩ normalised.

    A cone with its apex at H_a is another claim than a cone about the origin. Kernel norms grow in training, so that
    directions of raw kernels from an early apex are mostly those of the later kernels themselves: unit kernels too.

    Args:
        gram: Inner products of m kernels.
        apex: Index a of the apex.
        is_unit: Whether kernels are divided by their norms first.

    Returns:
        [m, m]; NaN in the apex's own row and column, and wherever a kernel equals it or isn't finite.
    """
    if is_unit:
        between = distances(gram)
        products = between[:, [apex]] + between[[apex], :] - between
    else:
        products = gram - gram[:, [apex]] - gram[[apex], :] + gram[apex, apex]
    found = distances(products)
    found[apex, :] = found[:, apex] = np.nan
    return found


def participation_ratio(between: Float[Array, "m m"]) -> float:
    """How many directions the unit kernels spread over, (Σ λ)² / Σ λ², λ of their centred Gram matrix −J S J.

    Of a short path this is biased: a random walk in many dimensions gives about 2.5, whatever the number.

    Returns:
        At least 1, at most m − 1; NaN if the kernels all coincide or one isn't finite.
    """
    centred = _centred(between)
    squares = float((centred**2).sum())
    return float(np.trace(centred)) ** 2 / squares if squares > 0 else float("nan")


def _centred(between: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """Gram matrix of the unit kernels less their mean: −J S J, J = 1 − 11ᵀ/m."""
    rows = between - between.mean(axis=0, keepdims=True)
    return np.asarray(rows.mean(axis=1, keepdims=True) - rows)


@dataclass(frozen=True)
class Coordinates:
    """Unit kernels in three dimensions.

    Attributes:
        points: [m, 3]; the last is the component along an axis, the first two the leading ones across it.
        shown_fraction: Share of the squared distances from the axis that the two hold.
    """

    points: Float[Array, "m 3"]
    shown_fraction: float


def coordinates(between: Float[Array, "m m"], weights: Float[Array, " m"] | None = None) -> Coordinates:
    """Place unit kernels in space, so that a cone about an axis can be drawn (arXiv:2505.13900, figure 5c).

    The axis is along Σ w_i u_i. Across it, principal components of what is left: a plain projection, so that a point
    can look nearer to the axis than it is, never farther.

    Args:
        between: Kernel distances, [m, m].
        weights: Of the kernels in the axis; by default equal: the mean direction.

    Returns:
        The coordinates; NaN if a kernel isn't finite or the axis is 0.
    """
    num = len(between)
    weights = np.full(num, 1.0 / num) if weights is None else weights
    length_squared = 1.0 - weights @ between @ weights
    if not np.isfinite(between).all() or length_squared <= 0:
        return Coordinates(np.full((num, 3), np.nan), float("nan"))
    along = (1.0 - between @ weights) / np.sqrt(length_squared)
    values, vectors = np.linalg.eigh(1.0 - between - np.outer(along, along))
    values = np.maximum(values, 0.0)
    across = np.zeros((num, 2))
    kept = min(2, num)
    across[:, :kept] = vectors[:, ::-1][:, :kept] * np.sqrt(values[::-1][:kept])
    # Eigenvectors have no sign of their own: the last kernel stands at the right and above.
    across *= np.where(across[-1] < 0, -1.0, 1.0)
    total = float(values.sum())
    shown = float(values[-kept:].sum()) / total if total > 0 else 1.0
    return Coordinates(np.column_stack([across, along]), shown)


def velocities(gram: Float[Array, "m m"], steps: Float[Array, " m"]) -> Float[Array, " m"]:
    """Kernel distance to the checkpoint before, over the gap in steps (Fort et al. 2020, arXiv:2010.15110).

    Args:
        gram: Inner products of m kernels.
        steps: Their steps, ascending.

    Returns:
        One velocity per checkpoint, in 1/step; NaN for the first.
    """
    moved = np.diag(distances(gram), 1) / np.diff(steps)
    return np.concatenate([[np.nan], moved])


def mean_distance(between: Float[Array, "m m"]) -> float:
    """Mean distance over the pairs of distinct checkpoints; NaN for fewer than two."""
    pairs = between[np.triu_indices(len(between), 1)]
    return float(pairs.mean()) if pairs.size else float("nan")


def checkpoint_steps(num_steps: int, num_log: int, num_linear: int) -> tuple[int, ...]:
    """Steps at which to take kernels: 0 and the end, log-spaced ones, and linear-spaced ones.

    Near-duplicates distort velocities, so a log-spaced step that is closer to a linear-spaced one than a quarter of its
    own distance to the log-spaced step before it is left out.

    Args:
        num_steps: Length of the run.
        num_log: Log-spaced steps from 1 to the end, both included.
        num_linear: Linear-spaced steps after 0, the end included.

    Returns:
        The steps, ascending; 0 and `num_steps` always among them.
    """
    linear = {round(i * num_steps / num_linear) for i in range(1, num_linear + 1)} | {0, num_steps}
    kept = set(linear)
    before = 0
    for step in sorted({round(float(value)) for value in np.geomspace(1, num_steps, num_log)} if num_log else ()):
        if min(abs(step - other) for other in linear) >= max(1.0, (step - before) / 4):
            kept.add(step)
        before = step
    return tuple(sorted(kept))


@dataclass(frozen=True)
class Movement:
    """How far apart kernels lie before and after a split of the run; a description, not a test of confinement.

    Attributes:
        split_step: First checkpoint of the later part.
        early: Mean distance among checkpoints before it.
        late: Mean distance among checkpoints from it on.
        to_end: Distance from it to the last checkpoint.
    """

    split_step: int
    early: float
    late: float
    to_end: float


def movement(between: Float[Array, "m m"], steps: Sequence[int], split: float) -> Movement:
    """Compare distances among early with those among late checkpoints.

    A shrinking learning rate alone draws late checkpoints together, and so does any random walk's slowing: whether what
    is left is a cone is another question.

    Args:
        between: Kernel distances, [m, m].
        steps: Their steps, ascending.
        split: The later part begins at the first checkpoint from this step on; at the last one if there is none.

    Returns:
        The description; NaN where a part has fewer than two checkpoints or a kernel isn't finite.
    """
    first = next((i for i, step in enumerate(steps) if step >= split), len(steps) - 1)
    return Movement(
        int(steps[first]),
        mean_distance(between[:first, :first]),
        mean_distance(between[first:, first:]),
        float(between[first, -1]) if first < len(steps) - 1 else float("nan"),
    )

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

"""Random walks on the sphere of directions that have an observed path's step sizes: what chance alone would do.

A path of unit vectors is unrolled into one tangent space: each step is the geodesic to the next point, carried back to
the first point by parallel transport. Rolled out again it is the same path. For a walk whose steps are independent and
symmetric, whatever their sizes and whatever directions they prefer, reversing any of the unrolled steps gives a path
that was just as likely: so reversed paths are draws from the null hypothesis, given the steps' sizes and axes.
(Shuffled steps are not enough: they keep their sum, so that the path's end stays where it was.)
"""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

Array = NDArray[np.float64]


def points_of(between: Float[Array, "m m"]) -> Float[Array, "m r"]:
    """Unit vectors with given distances S_ij = 1 − u_i · u_j."""
    values, vectors = np.linalg.eigh(1.0 - between)
    points = vectors * np.sqrt(np.maximum(values, 0.0))
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True))


def half_angles(points: Float[Array, "*batch m r"]) -> Float[Array, "*batch"]:
    """Greatest angle of a path's points to their mean direction, in radians: `twophase.cone.half_angle` of many."""
    mean = points.mean(axis=-2, keepdims=True)
    mean /= np.linalg.norm(mean, axis=-1, keepdims=True)
    chords = np.sqrt(((points - mean) ** 2).sum(axis=-1).max(axis=-1))
    return np.asarray(2.0 * np.arcsin(np.minimum(chords / 2.0, 1.0)))


def unrolled(points: Float[Array, "m r"]) -> Float[Array, "n r"]:
    """Steps of a path in the tangent space at its first point.

    Args:
        points: Unit vectors in order, none opposite to the one before.

    Returns:
        One tangent vector per step; its norm is the step's angle.
    """
    cosines = (points[1:] * points[:-1]).sum(axis=1, keepdims=True)
    across = points[1:] - cosines * points[:-1]
    sines = np.linalg.norm(across, axis=1, keepdims=True)
    steps = np.arctan2(sines, cosines) * np.divide(across, sines, out=np.zeros_like(across), where=sines > 0)
    for place in range(len(steps) - 1, 0, -1):
        steps[place:] = _carried(steps[place:], points[place], points[place - 1])
    return np.asarray(steps)


def rolled(start: Float[Array, " r"], steps: Float[Array, "b n r"]) -> Float[Array, "b m r"]:
    """Paths from a point with given unrolled steps: the reverse of `unrolled`, for many at once."""
    num, length, size = steps.shape
    steps = steps.copy()
    path = np.empty((num, length + 1, size))
    path[:, 0] = start
    for place in range(length):
        now = path[:, place]
        angle = np.linalg.norm(steps[:, place], axis=1, keepdims=True)
        ahead = np.sinc(angle / np.pi) * steps[:, place]  # sin(angle) / angle, 1 at 0
        path[:, place + 1] = np.cos(angle) * now + ahead
        if place + 1 < length:
            rest = steps[:, place + 1 :]
            steps[:, place + 1 :] = _carried(rest, now[:, None], path[:, place + 1][:, None])
    return path


def reversed_walks(points: Float[Array, "m r"], signs: Float[Array, "b n"]) -> Float[Array, "b m r"]:
    """The path with its unrolled steps multiplied by signs."""
    return rolled(points[0], signs[:, :, None] * unrolled(points))


def isotropic_walks(
    sizes: Float[Array, " n"], dimension: int, num: int, generator: np.random.Generator
) -> Float[Array, "b m r"]:
    """Walks with given step sizes on a sphere of some dimension, every direction alike.

    Whatever the dimension, the mean cosine between points i < j is Π cos α_k over the steps between them.

    Args:
        sizes: Angles of the steps, in radians.
        dimension: Of the sphere: the number of directions in which a step can go.
        num: Number of walks.
        generator: Where the directions come from.

    Returns:
        [num, steps + 1, dimension + 1].
    """
    path = np.zeros((num, len(sizes) + 1, dimension + 1))
    path[:, 0, 0] = 1.0
    for place, size in enumerate(sizes):
        now = path[:, place]
        drawn = generator.standard_normal(now.shape)
        drawn -= (drawn * now).sum(axis=1, keepdims=True) * now
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        path[:, place + 1] = np.cos(size) * now + np.sin(size) * drawn
    return path


def step_dimension(steps: Float[Array, "n r"]) -> float:
    """Number of directions that a walk's steps take up: 1 / mean cos² between different unrolled steps.

    The mean of cos² is 1 / d for independent isotropic directions, however few the steps: unlike the participation
    ratio of the path it isn't biased by its shortness. Steps that depend on each other make it smaller.

    Returns:
        At least 1; NaN for fewer than two steps that move.
    """
    sizes = np.linalg.norm(steps, axis=1)
    units = steps[sizes > 0] / sizes[sizes > 0, None]
    num = len(units)
    if num < 2:
        return float("nan")
    squares = float(((units @ units.T) ** 2).sum()) - num
    return num * (num - 1) / squares if squares > 0 else float("inf")


def _carried(vectors: Array, origin: Array, target: Array) -> Array:
    """Parallel transport of tangent vectors along the geodesic between two points of the sphere."""
    along = (vectors * target).sum(axis=-1, keepdims=True)
    cosine = (origin * target).sum(axis=-1, keepdims=True)
    return np.asarray(vectors - along / (1.0 + cosine) * (origin + target))

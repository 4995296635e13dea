"""Small random sketches of kernels, from which kernel distances between any two runs follow.

A CountSketch (Charikar, Chen, Farach-Colton 2002) adds the entries of a vector, each with a random sign, into k bins.
It is linear, and keeps squared lengths in expectation: for x with sketch s,

    E ‖s‖² = ‖x‖² ,   Var ‖s‖² = 2/k (‖x‖⁴ − Σ_j x_j⁴) ≤ 2/k ‖x‖⁴

(Weinberger et al. 2009, arXiv:0902.2206, with hashes that are independent). With x the difference of two kernels of
norm 1, ½ ‖s_u − s_v‖² estimates S without bias, with a relative standard error of at most √(2/k) however small S is.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, randint

from twophase.kernels.streaming import BLOCK, inner_product
from twophase.seeding import stream

Array = NDArray[np.float64]


def count_sketch(kernel: Tensor, size: int, seed: int) -> tuple[float, Float[NDArray[np.float32], " k"]]:
    """Sketch H/‖H‖_F.

    Bins and signs are drawn from the stream of (seed, size, block of 2¹⁸ entries): kernels of one shape that are
    sketched with the same seed and size are comparable, whatever trial, kind or step they are of. Sums are taken in
    float64, entry by entry, and rounded once: the same kernel gives the same bits.

    Args:
        kernel: H, of any shape, on any device.
        size: Bins k.
        seed: Seed of the hashes.

    Returns:
        ‖H‖_F, exactly; and the sketch, [k], NaN if H is 0 or not finite.
    """
    flat = kernel.detach().to("cpu").flatten()
    norm = inner_product(flat, flat) ** 0.5
    bins = np.zeros(size)
    for number, start in enumerate(range(0, len(flat), BLOCK)):
        entries = flat[start : start + BLOCK].double().numpy()
        drawn = randint(0, 2 * size, (len(entries),), generator=stream(seed, "kernel sketch", size, number)).numpy()
        bins += np.bincount(drawn >> 1, np.where(drawn & 1, entries, -entries), size)
    with np.errstate(invalid="ignore", divide="ignore"):
        return norm, (bins / norm).astype(np.float32)


def sketched_distance(first: NDArray[Any], second: NDArray[Any]) -> Array:
    """Kernel distance between kernels, estimated from their sketches.

    Args:
        first: Sketches as `count_sketch` makes them, [..., k].
        second: Others of the same size and seed, [..., k]; the axes before the last are broadcast, so that
            ``sketched_distance(a[:, None], b)`` has all pairs.

    Returns:
        Ŝ = ½ ‖s_u − s_v‖², [...], at least 0 and, as an estimate, perhaps above 2; NaN where a sketch is.
    """
    apart = first.astype(np.float64) - second
    return np.asarray(0.5 * np.square(apart).sum(-1))


def distance_error(distance: ArrayLike, size: int) -> Array:
    """Greatest standard error of an estimated distance, √(2/k) S.

    Args:
        distance: Estimates Ŝ.
        size: Bins k of the sketches.
    """
    return np.asarray(np.sqrt(2.0 / size) * np.asarray(distance))


def kernel_angle(distance: ArrayLike) -> Array:
    """Angle between two kernels, arccos(1 − S), in rad.

    Args:
        distance: Kernel distances S, exact or estimated; estimates above 2 count as 2.
    """
    return np.asarray(np.arccos(1.0 - np.minimum(distance, 2.0)))


def angle_error(distance: ArrayLike, size: int) -> Array:
    """Standard error of an angle by the delta method, √(2/k) S / sin φ = √(2/k) √(S / (2 − S)), in rad.

    Args:
        distance: Estimates Ŝ.
        size: Bins k of the sketches.

    Returns:
        The errors; inf where Ŝ ≥ 2 and the angle is at its end.
    """
    with np.errstate(divide="ignore"):
        ratio = np.asarray(distance) / np.maximum(2.0 - np.asarray(distance), 0.0)
    return np.asarray(np.sqrt(2.0 / size) * np.sqrt(ratio))

"""Do a run's kernels stay within a cone from some step on? A test against walks, and a verdict that can say no.

That late kernels lie close to each other proves nothing: fewer checkpoints are left, and steps shrink with the learning
rate. Asked here is whether they are closer than a random walk of the very same steps would have brought them, and
whether what they do beside jittering about an axis is little. (arXiv:2505.13900 shows pictures, figures 5a and 5c.)

With u_k the unit kernels from τ on and ū their mean, the test's statistic is the spread 1 − ‖ū‖², the mean kernel
distance over all pairs. Its null distribution comes from `twophase.sphere_walk.reversed_walks`: exact for any random
walk of independent symmetric steps, of whatever sizes (so with any learning rate), directions and dimension. The other
walks, isotropic in stated dimensions, are for comparison: in many dimensions they hardly vary, so that their p-values
are small for the least departure.

A walk beside jitter is narrower than a walk of its steps, too. So the axis is looked at by itself: with mean cosines
within the first half of the checkpoints, c_E, within the second, c_L (distinct checkpoints only), and across, c_EL,

    drift share = ¼ (c_E + c_L − 2 c_EL) / (1 − ‖ū‖²)

in which jitter that is independent between checkpoints cancels, however it shrinks.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from twophase import sphere_walk
from twophase.angle_growth import UNKNOWN, Exponent, growth_exponent
from twophase.cone import angles_of, distances, half_angle
from twophase.enclosing_cone import enclosing_cone
from twophase.seeding import stream_seed

Array = NDArray[np.float64]
ConfinementVerdict = Literal["confined", "not_confined", "undetermined"]

LEAST_LATER = 7
"""Checkpoints after τ: reversals of fewer steps give no p-value below 5 % with room to spare."""

ALPHA = 0.05
DIMENSIONS = (3, 10, 100)
"""Of the isotropic walks that are reported beside the decisive one."""

STILL_SHARE, MOVING_SHARE = 0.2, 0.35
"""Of the spread, what the axis' own movement takes up: nothing in jitter, about ½ in a random walk, ¾ on a straight
path. Up to the first the axis counts as still, from the second on as moving."""

WALK_EXPONENT = 0.5

_NUM_REVERSED, _NUM_ISOTROPIC = 499, 199
_MOST_ENUMERATED = 8
_UNKNOWN_NUMBERS = ("walk_half_angle", "p_walk", "step_dimension", "drift_share", "p_natural")
_NOTHING = {
    **dict.fromkeys(_UNKNOWN_NUMBERS, math.nan),
    "p_isotropic": dict.fromkeys(DIMENSIONS, math.nan),
    "gamma_step": UNKNOWN,
    "gamma_lr": UNKNOWN,
}


@dataclass(frozen=True)
class Confinement:
    """What becomes of the kernels after a step τ; angles in radians, NaN where unknown.

    Attributes:
        tau_step: The step τ.
        num_later: Checkpoints after it.
        half_angle: Greatest angle to the mean direction of the unit kernels from τ on.
        cone_half_angle: Half-angle of the smallest cone about the origin that holds them.
        angle_to_end: Angle between the kernel at τ and the last.
        walk_half_angle: Median of `half_angle` over walks of the same steps.
        p_walk: Share of walks of the same steps, each step reversed or not, that spread no more.
        p_isotropic: The same for isotropic walks of the same step sizes, by stated dimension.
        step_dimension: Directions that the steps take up; see `twophase.sphere_walk.step_dimension`.
        gamma_step: Exponent of the angle to τ over the lag in steps.
        gamma_lr: Exponent over the lag in summed learning rates.
        drift_share: Share of the spread that is the axis' own movement from the first to the second half, jitter
            taken off.
        p_natural: Share of other runs whose angles are no greater; NaN where none are given.
        verdict: `confined`, `not_confined` or `undetermined`.
        reason: Why, in words.
    """

    tau_step: int
    num_later: int
    half_angle: float
    cone_half_angle: float
    angle_to_end: float
    walk_half_angle: float
    p_walk: float
    p_isotropic: Mapping[int, float]
    step_dimension: float
    gamma_step: Exponent
    gamma_lr: Exponent
    drift_share: float
    p_natural: float
    verdict: ConfinementVerdict
    reason: str


def confinement(
    gram: Float[Array, "m m"],
    steps: Float[Array, " m"],
    tau_step: float,
    *,
    lr_integral: Float[Array, " m"] | None = None,
    natural: Float[Array, "r n"] | None = None,
    seed: int = 0,
) -> Confinement:
    """Test whether kernels stay in a cone from a checkpoint on, by the statistics that this module's head defines.

    `confined`: p_walk <= 5 %, drift share <= 0.2, both exponents below ½, and closer to τ than other runs where those
    are given. `not_confined`: the share is 0.35 or more, or the walk isn't rejected and the angle grows (its exponent's
    interval lies above 0), or other runs are as close. Else, and with fewer than seven checkpoints after τ or a kernel
    that isn't finite: `undetermined`.

    Args:
        gram: Inner products of m kernels.
        steps: Their steps, increasing.
        tau_step: τ, one of the steps.
        lr_integral: Sum of the learning rates of all updates before each step; without it `gamma_lr` is unknown.
        natural: The natural null: angles (radians) of other runs at the checkpoints after τ, a row per run (of other
            seeds, or of children forked at τ); NaN where there is none.
        seed: Of the walks' stream.

    Returns:
        The verdict and what it rests on.
    """
    first = int(np.flatnonzero(steps == tau_step)[0])
    between = distances(gram[first:, first:])
    to_tau = angles_of(between[0, 1:])
    sizes = _sizes(int(tau_step), between, to_tau)
    if lacking := _lacking(between):
        return Confinement(**sizes, **_NOTHING, verdict="undetermined", reason=lacking)  # type: ignore[arg-type]
    points = sphere_walk.points_of(between)
    drawn = np.random.default_rng(stream_seed(seed, "confinement", int(tau_step)))
    p_walk, walk_half_angle = walk_test(points, drawn)
    dimension = sphere_walk.step_dimension(sphere_walk.unrolled(points))
    lags = [None if clock is None else clock[first + 1 :] - clock[first] for clock in (steps, lr_integral)]
    gammas = [UNKNOWN if each is None else growth_exponent(each, to_tau, dimension) for each in lags]
    share = drift_share(between)
    p_natural = math.nan if natural is None else natural_p_value(to_tau, natural)
    is_close = _are_others_as_close(natural, p_natural)
    verdict, reason = _judged(p_walk, gammas, share, p_natural, are_others_as_close=is_close)
    return Confinement(
        **sizes,  # type: ignore[arg-type]
        walk_half_angle=walk_half_angle,
        p_walk=p_walk,
        p_isotropic=_isotropic(points, between, drawn),
        step_dimension=dimension,
        gamma_step=gammas[0],
        gamma_lr=gammas[1],
        drift_share=share,
        p_natural=p_natural,
        verdict=verdict,
        reason=reason,
    )


def _sizes(tau_step: int, between: Float[Array, "k k"], to_tau: Float[Array, " l"]) -> dict[str, float]:
    """What is known of any kernels from τ on."""
    return {
        "tau_step": tau_step,
        "num_later": len(to_tau),
        "half_angle": half_angle(between),
        "cone_half_angle": enclosing_cone(between).half_angle,
        "angle_to_end": float(to_tau[-1]) if len(to_tau) else math.nan,
    }


def _are_others_as_close(natural: Float[Array, "r n"] | None, p_natural: float) -> bool:
    """Whether other runs, where there are any, are as close to τ as the run itself."""
    num_natural = 0 if natural is None else int(np.isfinite(natural).any(axis=1).sum())
    return num_natural > 0 and p_natural > max(ALPHA, 1 / (1 + num_natural))  # few runs can't reach 5 %


def walk_test(points: Float[Array, "m r"], drawn: np.random.Generator) -> tuple[float, float]:
    """Compare a path's spread with that of walks of its own steps, each reversed or not.

    Args:
        points: Unit vectors in order.
        drawn: Where reversals come from if there are too many to take all.

    Returns:
        The p-value: share of walks that spread no more; and their median half-angle about the mean, in radians.
    """
    num = len(points) - 1
    is_all = num - 1 <= _MOST_ENUMERATED
    if is_all:  # to reverse every step makes a mirror image: the first need not be
        signs = np.array([(1.0, *rest) for rest in itertools.product((1.0, -1.0), repeat=num - 1)])
    else:
        signs = drawn.choice([1.0, -1.0], (_NUM_REVERSED, num))
    walks = sphere_walk.reversed_walks(points, signs)
    p_value = _p_value(_spread(points), _spread(walks), is_observed_among=is_all)
    return p_value, float(np.median(sphere_walk.half_angles(walks)))


def drift_share(between: Float[Array, "m m"]) -> float:
    """Share of the unit kernels' spread that is their axis' movement from the first half to the second.

    Args:
        between: Kernel distances, [m, m]; of an odd number the middle one is left out.

    Returns:
        About 0 for jitter about an axis, ½ for a random walk, ¾ for a straight path; below 0 only by chance. NaN for
        fewer than four kernels.
    """
    half = len(between) // 2
    if half < 2:
        return math.nan
    early, late = between[:half, :half], between[-half:, -half:]
    across = between[:half, -half:].mean()
    within = (early.sum() + late.sum()) / (half * (half - 1))
    spread = (early.mean() + late.mean() + 2.0 * across) / 4.0
    return float((2.0 * across - within) / 4.0 / spread) if spread > 0 else math.nan


def natural_p_value(to_tau: Float[Array, " n"], natural: Float[Array, "r n"]) -> float:
    """Share of other runs, this one counted, that are on average no farther away than this one is from τ.

    Args:
        to_tau: Angle to τ at the checkpoints after it.
        natural: The other runs' angles at the same checkpoints; NaN where there is none.

    Returns:
        (1 + #) / (1 + r): never below 1 / (1 + r). NaN if no run has an angle.
    """
    seen = natural[np.isfinite(natural).any(axis=1)]
    return float((1 + (np.nanmean(seen - to_tau, axis=1) <= 0).sum()) / (1 + len(seen))) if len(seen) else math.nan


def _spread(points: Float[Array, "*batch m r"]) -> Float[Array, "*batch"]:
    """1 − ‖ū‖², as the mean squared distance from ū: no cancellation where all is close."""
    return np.asarray(((points - points.mean(axis=-2, keepdims=True)) ** 2).sum(axis=-1).mean(axis=-1))


def _lacking(between: Array) -> str:
    """What there is too little of for a test; empty if nothing."""
    if not np.isfinite(between).all():
        return "a kernel isn't finite"
    if len(between) - 1 < LEAST_LATER:
        return f"only {len(between) - 1} checkpoints after it, it takes {LEAST_LATER}"
    return "" if between.any() else "the kernel doesn't turn"


def _p_value(observed: Array, null: Array, *, is_observed_among: bool) -> float:
    """Share of the null at or below what was observed, ties by rounding included."""
    below = int((null <= observed * (1 + 1e-9)).sum())
    return below / len(null) if is_observed_among else (1 + below) / (1 + len(null))


def _isotropic(points: Array, between: Array, drawn: np.random.Generator) -> dict[int, float]:
    sizes, observed = angles_of(np.diag(between, 1)), _spread(points)
    return {
        dimension: _p_value(
            observed,
            _spread(sphere_walk.isotropic_walks(sizes, dimension, _NUM_ISOTROPIC, drawn)),
            is_observed_among=False,
        )
        for dimension in DIMENSIONS
    }


def _judged(
    p_walk: float, gammas: Sequence[Exponent], share: float, p_natural: float, *, are_others_as_close: bool
) -> tuple[ConfinementVerdict, str]:
    is_narrower = p_walk <= ALPHA
    walk = f"{'narrower' if is_narrower else 'no narrower'} than walks of its steps (p {p_walk:.2g})"
    moves = f"{max(share, 0.0):.0%} of the spread is its axis moving on (a walk's: about 50 %)"
    if are_others_as_close:
        return "not_confined", f"{walk}, but other runs are as close (p {p_natural:.2g})"
    if share >= MOVING_SHARE:
        return "not_confined", f"{walk}; {moves}"
    if not is_narrower:
        return _of_a_walk(gammas[0], walk)
    if share > STILL_SHARE:
        return "undetermined", f"{walk}, but {moves}: a slow drift, or a slow return"
    for clock, gamma in zip(("steps", "summed learning rates"), gammas, strict=True):
        if gamma.value >= WALK_EXPONENT:
            grows = f"over {clock} the angle grows as a walk's, to the power {gamma.value:.2f}"
            return "undetermined", f"{walk}, but {grows}"
    return "confined", f"{walk}, and {moves}"


def _of_a_walk(gamma: Exponent, walk: str) -> tuple[ConfinementVerdict, str]:
    if gamma.low > 0:
        return "not_confined", f"{walk}, and the angle grows with the lag to the power {gamma.value:.2f}"
    return "undetermined", f"{walk}, nor is the angle seen to grow"

"""The kernel's own transition: does its velocity break, drop smoothly, or not change?

A split into a fast and a slow part always exists, for any falling curve. A break is claimed only where a jump of the
velocity explains more than any smooth law is likely to leave, and is large (Andrews 1993, Econometrica 61, for the
supremum over break points; Hansen 2000, Econometrica 68, for the interval).
"""

import functools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import fdtrc

from twophase.cone import angles
from twophase.seeding import stream_seed
from twophase.transition import Crossing, Transition, over_seeds

Array = NDArray[np.float64]
Kind = Literal["break", "drift", "constant", "still", "unknown"]

ALPHA = 0.05
LEAST_DROP = 1.5
"""A break is a fall of the velocity by this factor at least; a smaller one counts as smooth."""

STILL_ANGLE = math.radians(5.0)
"""A kernel that never leaves this angle to the first one hardly moves."""

LEAST_LR = 0.1
"""Gaps in which the mean learning rate is a smaller share than this of the greatest are left out: there everything
slows, whatever phase it is in."""

LEAST_SIDE = 4
"""Gaps before a break, and after it."""

LEAST_GAPS = 12
LEAST_OWN = 0.1
"""Squared norm of a jump, in gaps, that the smooth law can't make."""

METHOD = (
    "break in log angle per gap beyond a smooth law in step, gap and learning rate; median over seeds; Student t on "
    "log(1+step), joined with the interval of the median seed"
)

_LIKELIHOOD_RATIO = 7.35
"""95 % point of the likelihood ratio of a break point (Hansen 2000, table I)."""
_NUM_NULL = 999


@dataclass(frozen=True)
class KernelBreak:
    """What one seed's velocity does.

    Attributes:
        kind: `break`: a jump to a slower regime. `drift`: it changes smoothly. `constant`: no change is seen, and there
            is no faster early phase. `still`: the kernel hardly moves at all. `unknown`: too few gaps, a kernel that
            isn't finite, or too much noise to tell drift from none.
        step: The checkpoint at which the velocity breaks; NaN for the other kinds.
        low: Lower end of its 95 % interval, a checkpoint.
        high: Upper end.
        p_value: Of the best break, against a smooth law.
        factor: Velocity after the best break over that before, the smooth law's part taken out.
        slowing: Mean velocity of the first third of the gaps over that of the last, gap lengths taken out.
        last_step: Last checkpoint at which a break could have been found.
        reason: In words.
    """

    kind: Kind
    step: float
    low: float
    high: float
    p_value: float
    factor: float
    slowing: float
    last_step: float
    reason: str


def kernel_break(
    gram: Float[Array, "m m"], steps: Float[Array, " m"], lr_integral: Float[Array, " m"] | None = None
) -> KernelBreak:
    """Choose between a break of the kernel's velocity, smooth drift, and no change.

    With α_k the angle turned in the gap g_k = t_{k+1} − t_k, x_k = log(1 + t) at the gap's middle and η̄_k the mean
    learning rate in it, the smooth law is

        log α_k = a + h log g_k + b x_k + c x_k² + κ log η̄_k + noise

    h weighs uneven spacing by what the data say (1: a straight path, ½: diffusion, 0: jitter that outruns the gaps);
    b is the power law of the velocity, c lets it bend, κ is what the schedule does. A break adds a jump at a
    checkpoint. The statistic is the greatest share, over checkpoints, of the smooth law's residual squares that a jump
    explains; its null distribution, free of all parameters under independent normal noise of equal size, is simulated
    for the run's own checkpoints. A break takes p <= 5 % and a fall by 1.5 times.

    Without a break, an F test at 5 % tells `drift` (b, c or κ) from `constant`; the latter also takes that the first
    third of the gaps isn't 1.5 times as fast as the last.

    Args:
        gram: Inner products of m kernels.
        steps: Their steps, increasing.
        lr_integral: Sum of the learning rates of all updates before each step; without it the rate counts as constant.

    Returns:
        The choice and what it rests on.
    """
    found = _gaps(gram, steps, lr_integral)
    if isinstance(found, KernelBreak):
        return found
    places, logs, design = found
    residual = logs - design.basis @ (design.basis.T @ logs)
    total = float(residual @ residual)
    products = design.jumps.T @ residual
    explained = products**2 / design.squares / total if total > 0 else np.zeros_like(products)
    best = int(explained.argmax())
    p_value = float((1 + (design.null >= explained[best]).sum()) / (1 + _NUM_NULL))
    factor = math.exp(float(products[best] / design.squares[best]))
    slowing = _slowing(logs, design)
    starts = steps[places[design.breaks]]  # a break is where the first slow gap begins
    numbers = (p_value, factor, slowing, float(starts[-1]))
    if p_value <= ALPHA and factor <= 1 / LEAST_DROP:
        freedom = len(logs) - design.basis.shape[1] - 1
        ratios = freedom * ((1 - explained) / max(1 - explained[best], 1e-300) - 1)
        likely = places[design.breaks[ratios <= _LIKELIHOOD_RATIO]]
        low, high = float(steps[likely[0] - 1]), float(steps[likely[-1] + 1])
        why = f"the velocity falls {1 / factor:.1f}-fold beyond a smooth law (p {p_value:.2g})"
        return KernelBreak("break", float(starts[best]), low, high, *numbers, why)
    kind, why = _smooth(logs, design, slowing)
    return KernelBreak(kind, math.nan, math.nan, math.nan, *numbers, why)


def kernel_transition(found: Sequence[KernelBreak], *, confidence: float = 0.95) -> tuple[Transition, str]:
    """Join seeds by the rules of `twophase.transition.locate_transition`: their median, its interval, a verdict.

    A `break` is a crossing at its step, with its interval for a cell; `drift` never settles (+inf); `constant` and
    `still` are stable from the start (0); `unknown` tells nothing.

    Args:
        found: One choice per seed.
        confidence: Nominal coverage of the interval over seeds.

    Returns:
        The transition, its threshold the level of the test; the seeds' choices in words.
    """
    crossings = []
    for seed in found:
        if seed.kind == "break":
            crossings.append(Crossing(seed.step, seed.low, seed.high, "located"))
        elif seed.kind == "drift":
            crossings.append(Crossing(math.inf, seed.last_step, math.inf, "chaotic_throughout"))
        elif seed.kind != "unknown":
            crossings.append(Crossing(0.0, 0.0, 0.0, "stable_from_start"))
    lasts = [seed.last_step for seed in found if math.isfinite(seed.last_step)]
    joined = over_seeds(crossings, max(lasts, default=math.nan), ALPHA, method=METHOD, confidence=confidence)
    kinds = Counter(seed.reason if seed.kind in ("unknown", "still") else _WORDS[seed.kind] for seed in found)
    said = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    if len(said) == 1:
        return joined, said[0][0]
    return joined, "seeds differ: " + ", ".join(f"{count} {words}" for words, count in said)


_WORDS = {
    "break": "break into a slower regime",
    "drift": "smooth drift, no break",
    "constant": "no change of velocity, no faster early phase",
}


class _Design(NamedTuple):
    """What the test needs of a run's checkpoints, whatever its kernels.

    Attributes:
        basis: [gaps, terms] Orthonormal basis of the smooth laws.
        terms: [gaps, terms] The terms themselves: 1, log lengths, then those that change along the run.
        breaks: First gap after each possible break.
        jumps: [gaps, breaks] A jump at each, less its smooth part.
        squares: [breaks] Their squared norms.
        null: Greatest explained shares under the smooth law.
    """

    basis: Array
    terms: Array
    breaks: NDArray[np.int64]
    jumps: Array
    squares: Array
    null: Array


def _gaps(
    gram: Array, steps: Array, lr_integral: Array | None
) -> KernelBreak | tuple[NDArray[np.int64], Array, _Design]:
    """Gaps that count, the logarithms of the angles turned in them and their design; or why nothing can be told."""
    between = angles(gram)
    rates = np.ones(len(steps) - 1) if lr_integral is None else np.diff(lr_integral) / np.diff(steps)
    places = np.flatnonzero(rates >= LEAST_LR * rates.max(initial=0.0))
    kind: Kind = "unknown"
    if not np.isfinite(between).all():
        why = "a kernel isn't finite"
    elif between[0].max(initial=0.0) <= STILL_ANGLE and len(places) >= LEAST_GAPS:
        kind, why = "still", f"it hardly moves: within {math.degrees(STILL_ANGLE):.0f}° of the first kernel throughout"
    elif len(places) < LEAST_GAPS:
        why = f"only {len(places)} gaps between checkpoints, it takes {LEAST_GAPS}"
    elif not np.diag(between, 1)[places].all():
        why = "two checkpoints have the same kernel"
    else:
        design = _design(tuple(map(float, steps)), tuple(map(float, rates)))
        if design.breaks.size:
            return places, np.log(np.diag(between, 1)[places]), design
        why = "at these checkpoints no break could be told from a smooth law"
    return KernelBreak(kind, *(math.nan,) * 7, why)


@functools.lru_cache(maxsize=256)
def _design(steps: tuple[float, ...], rates: tuple[float, ...]) -> _Design:
    times, rate = np.array(steps), np.array(rates)
    kept = rate >= LEAST_LR * rate.max()
    logs = np.log1p(times)
    middle = ((logs[1:] + logs[:-1]) / 2)[kept]
    lengths = np.log(np.diff(times))[kept]
    num = len(lengths)
    terms = np.column_stack([np.ones(num), lengths, middle, (middle - middle.mean()) ** 2, np.log(rate[kept])])
    basis = _orthonormal(terms)
    breaks = np.arange(LEAST_SIDE, num - LEAST_SIDE + 1)
    jumps = _across((np.arange(num)[:, None] >= breaks).astype(np.float64), basis)
    squares = (jumps**2).sum(axis=0)
    # A jump that is all but a smooth law, as where the learning rate itself jumps, can't be told from one.
    breaks, jumps, squares = breaks[squares > LEAST_OWN], jumps[:, squares > LEAST_OWN], squares[squares > LEAST_OWN]
    drawn = np.random.default_rng(stream_seed(0, "kernel_transition")).standard_normal((num, _NUM_NULL))
    noise = _across(drawn, basis)
    null = ((jumps.T @ noise) ** 2 / squares[:, None] / (noise**2).sum(axis=0)).max(axis=0)
    return _Design(basis, terms, breaks, jumps, squares, null)


def _orthonormal(columns: Array) -> Array:
    """Basis of what columns span; terms that repeat others, such as a constant learning rate, fall away."""
    left, values, _ = np.linalg.svd(columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-300), full_matrices=False)
    return np.asarray(left[:, values > 1e-8])


def _across(columns: Array, basis: Array) -> Array:
    return np.asarray(columns - basis @ (basis.T @ columns))


def _slowing(logs: Array, design: _Design) -> float:
    """Mean velocity of the first third of the gaps over that of the last; the part of gap lengths is taken out."""
    power = float(np.linalg.lstsq(design.terms, logs, rcond=None)[0][1])
    adjusted = logs - min(max(power, 0.0), 1.0) * design.terms[:, 1]
    third = len(logs) // 3
    return math.exp(float(adjusted[:third].mean() - adjusted[-third:].mean()))


def _smooth(logs: Array, design: _Design, slowing: float) -> tuple[Kind, str]:
    """Tell drift from no change by an F test of the terms in step and learning rate."""
    left = float((_across(logs, design.basis) ** 2).sum())
    without = float((_across(logs, _orthonormal(design.terms[:, :2])) ** 2).sum())
    freedom = len(logs) - design.basis.shape[1]
    num_terms = design.basis.shape[1] - 2
    p_value = float(fdtrc(num_terms, freedom, (without / left - 1) * freedom / num_terms)) if left > 0 else 0.0
    pace = f"{slowing:.1f} times as fast at first as at last"
    if p_value <= ALPHA:
        return "drift", f"smooth drift, no break: {pace}"
    if slowing < LEAST_DROP:
        return "constant", f"no change of velocity, no faster early phase: {pace}"
    return "unknown", f"too noisy to tell smooth drift from none: {pace}"

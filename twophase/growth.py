"""Does a small perturbation grow exponentially over a window of training, and how fast?

Three runs from one state say how a perturbation in a direction u grows under the update map z_{t+1} = F_t(z_t), where z
is the parameters θ together with the optimiser's state:

- the tangent, δ_{t+1} = DF_t(z_t) δ_t with δ_0 = u: the limit of small perturbations (Benettin et al. 1980);
- two renormalised twins, z′ = z + ε u for two magnitudes ε: at regular intervals their whole difference from the
  reference, optimiser state included, is scaled so that ‖θ′ − θ‖ is ε‖θ_0‖ again;
- a free twin, never renormalised.

If tangent and both twins agree the growth is exponential and has a rate. If they don't, as with ReLU, where a pair sits
still until a unit's sign flips for some input and then jumps, the slope of log distance is no rate, and what is told
is how long the pair waits and how far it jumps. All in float64: in float32 a twin at 1e-8 is rounded away.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from twophase import dual
from twophase.lanes import MIN_LANES

Parameters = dict[str, Tensor]
Point = tuple[Parameters, dict[str, Parameters]]
"""What training steers by: parameters by name, and quantity of the optimiser -> the same names; each [K, ...]."""

UpdateMap = Callable[[Point, int], Point]
"""(point at a step, that step) -> point at the next step, for any number of lanes; dual numbers go through it."""

INTERVAL = 10
"""Steps between two renormalisations."""

AGREEMENT = 0.2
"""Rates agree that differ by a fifth of the tangent's."""

LEAST_NATS = 0.2
"""Rates agree, too, that differ by less than this over the steps they were measured on.

Without it a rate near 0 could never be agreed on: a fifth of nothing is nothing. It is the same fifth, of the factor by
which the distance grew (e^0.2 = 1.22) in place of its logarithm: it matters where the growth is below e-fold.
"""

WAITING_FACTOR = 10.0
"""A free twin has stopped waiting when its distance has grown by this factor."""


@dataclass(frozen=True)
class Window:
    """When and how large.

    Attributes:
        length: Steps followed.
        burn_in: Steps before growth counts towards a rate: a random direction first turns to where growth is.
        low: Smaller magnitude, over the norm of the parameters.
        high: Larger magnitude.
    """

    length: int = 200
    burn_in: int = 50
    low: float = 1e-6
    high: float = 1e-4

    @property
    def stops(self) -> tuple[int, ...]:
        """Steps after the start at which runs are renormalised: multiples of the interval, the burn-in and the end."""
        return tuple(sorted({*range(INTERVAL, self.length, INTERVAL), self.burn_in, self.length} - {0}))


@dataclass(frozen=True)
class Growth:
    """How a perturbation in one direction grew.

    Attributes:
        tangent_rate: Mean log growth per step of the tangent after the burn-in.
        twin_rate_low: The same of the twin at the smaller magnitude.
        twin_rate_high: The same of the twin at the larger magnitude.
        growth_rate: The tangent's rate if the growth is exponential, else NaN.
        is_exponential: Whether both twins agree with the tangent.
        amplification: Log growth of the tangent over the whole window, burn-in included.
        waiting_steps: Steps until a free twin at the larger magnitude first is ten times as far as it began; +inf if
            that isn't within the window, NaN if it stopped being finite before.
        jump: Greatest log growth of a renormalised twin over one interval.
    """

    tangent_rate: float
    twin_rate_low: float
    twin_rate_high: float
    growth_rate: float
    is_exponential: bool
    amplification: float
    waiting_steps: float
    jump: float


def agree(rate: float, tangent_rate: float, num_steps: int) -> bool:
    """Tell whether a twin's rate agrees with the tangent's, |r − r₀| ≤ max(0.2 |r₀|, 0.2 / n); NaN agrees with nothing.

    Args:
        rate: The twin's, in nats per step.
        tangent_rate: The tangent's.
        num_steps: Steps n that both were measured on.

    Returns:
        Whether they do.
    """
    return abs(rate - tangent_rate) <= max(AGREEMENT * abs(tangent_rate), LEAST_NATS / num_steps)


def measure_growth(
    update: UpdateMap, point: Point, directions: Sequence[Parameters], step: int, window: Window
) -> list[Growth]:
    """Follow perturbations of one state over a window.

    Args:
        update: The update map F.
        point: One lane, in float64.
        directions: Unit directions u in the space of parameters, each shaped as one lane.
        step: The step that the point is of.
        window: How long, and how large.

    Returns:
        One finding per direction. A reference that stops being finite gives NaN throughout.
    """
    size = float(_norm(point[0])[0])
    unit = {name: size * torch.cat([u[name] for u in directions]) for name in point[0]}
    tangent = _tangent_logs(update, point, unit, step, window)
    low, high, waiting = _twin_logs(update, point, unit, step, window)
    return [_conclude(tangent[:, i], low[:, i], high[:, i], float(waiting[i]), window) for i in range(len(directions))]


def _conclude(tangent: Tensor, low: Tensor, high: Tensor, waiting: float, window: Window) -> Growth:
    """Make rates of log growth per stretch."""
    num_steps = window.length - window.burn_in
    is_counted = torch.tensor([stop > window.burn_in for stop in window.stops])
    rate, *twins = (float(logs[is_counted].sum()) / num_steps for logs in (tangent, low, high))
    is_exponential = all(agree(twin, rate, num_steps) for twin in twins)
    return Growth(
        rate,
        twins[0],
        twins[1],
        growth_rate=rate if is_exponential else math.nan,
        is_exponential=is_exponential,
        amplification=float(tangent.sum()),
        waiting_steps=waiting,
        jump=float(torch.cat([low, high]).max()),
    )


def _tangent_logs(update: UpdateMap, point: Point, unit: Parameters, step: int, window: Window) -> Tensor:
    """Log growth of the tangents over each stretch, [stretches, D]."""
    num_directions = len(next(iter(unit.values())))
    wide = max(num_directions, MIN_LANES)
    here = _repeated(point, wide)
    padded = {name: torch.cat([u, u[:1].expand(wide - len(u), *u.shape[1:])]) for name, u in unit.items()}
    delta = (padded, _map_moments(torch.zeros_like, here))
    before, logs, now = _norm(delta[0]), [], step
    for stop in window.stops:
        while now < step + stop:
            here, delta = linearised(update, here, delta, now)
            now += 1
        after = _norm(delta[0])
        logs.append((after / before).log())
        delta = _scaled(delta, before / after)
    return torch.stack(logs)[:, :num_directions]


def linearised(update: UpdateMap, here: Point, delta: Point, step: int) -> tuple[Point, Point]:
    """Compute F(z) and DF(z) δ, by dual numbers.

    Parameters can be differentiated backwards as well, for the gradient inside F.
    """
    with dual.level():
        theta = {name: dual.differentiable(value, delta[0][name]) for name, value in here[0].items()}
        moments = {
            quantity: {name: dual.dual(value, delta[1][quantity][name]) for name, value in named.items()}
            for quantity, named in here[1].items()
        }
        after = update((theta, moments), step)
        return _mapped(dual.primal_of, after), _mapped(dual.tangent_of, after)


def _twin_logs(
    update: UpdateMap, point: Point, unit: Parameters, step: int, window: Window
) -> tuple[Tensor, Tensor, Tensor]:
    """Log growth of both renormalised twins over each stretch, [stretches, D] each, and the free twin's wait, [D].

    Lanes: the reference, then all directions at the smaller magnitude, at the larger, and again at the larger, free.
    """
    num_directions = len(next(iter(unit.values())))
    sizes = [window.low, window.high, window.high]
    # The reference's own lane is a twin at distance 0; more of them fill the batch.
    idle = max(1, MIN_LANES - 3 * num_directions)
    push = {
        name: torch.cat([torch.zeros_like(u[:1]).repeat(idle, *[1] * (u.dim() - 1)), *(e * u for e in sizes)])
        for name, u in unit.items()
    }
    here = _repeated(point, idle + 3 * num_directions)
    here = ({name: value + push[name] for name, value in here[0].items()}, here[1])
    twins = slice(idle, idle + 2 * num_directions)
    start = _norm(_difference(here)[0])
    waiting = torch.full_like(start, math.inf)
    logs, now = [], step
    for stop in window.stops:
        while now < step + stop:
            here = update(here, now)
            now += 1
            waiting = _first(waiting, _norm(_difference(here)[0]) / start, now - step)
        apart = _difference(here)
        ratio = start / _norm(apart[0])
        logs.append(-ratio[twins].log())
        factor = torch.ones_like(ratio)
        factor[twins] = ratio[twins]
        here = _moved(here, _scaled(apart, factor - 1.0))
    both = torch.stack(logs)
    return both[:, :num_directions], both[:, num_directions:], waiting[idle + 2 * num_directions :]


def _first(waiting: Tensor, grown: Tensor, step: int) -> Tensor:
    """Note the step at which a distance has first grown enough, or is no number."""
    waiting = torch.where(waiting.isinf() & (grown >= WAITING_FACTOR), float(step), waiting)
    return torch.where(waiting.isinf() & grown.isnan(), math.nan, waiting)


def _norm(parameters: Parameters) -> Tensor:
    """L2 norm over all parameters, [K]."""
    # One after the other: a sum down a column rounds by how many columns there are.
    return reduce(torch.add, (value.flatten(1).square().sum(1) for value in parameters.values())).sqrt()


def _map_moments(change: Callable[[Tensor], Tensor], point: Point) -> dict[str, Parameters]:
    return {quantity: {name: change(value) for name, value in named.items()} for quantity, named in point[1].items()}


def _mapped(change: Callable[[Tensor], Tensor], point: Point) -> Point:
    return {name: change(value) for name, value in point[0].items()}, _map_moments(change, point)


def _repeated(point: Point, copies: int) -> Point:
    return _mapped(lambda value: value[:1].repeat(copies, *[1] * (value.dim() - 1)), point)


def _difference(point: Point) -> Point:
    """Every lane minus the first."""
    return _mapped(lambda value: value - value[:1], point)


def _scaled(point: Point, factors: Tensor) -> Point:
    """Multiply every lane by its own factor."""
    return _mapped(lambda value: factors.view(-1, *[1] * (value.dim() - 1)) * value, point)


def _moved(point: Point, by: Point) -> Point:
    moments = {q: {name: value + by[1][q][name] for name, value in named.items()} for q, named in point[1].items()}
    return {name: value + by[0][name] for name, value in point[0].items()}, moments

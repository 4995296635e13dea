"""The dose view of the same data: how large a push has to be before it sends the run elsewhere.

At a fork step t0, the critical magnitude ε*(t0) is the one at which children begin to disconnect. A landscape with
ordinary basins has one that grows as training goes on; where any push however small is enough, there is none to find.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from twophase.errors import BadInput
from twophase.transition import read_numbers, read_values, seed_curves

Censoring = Literal["none", "left", "right", "both", "undetermined"]
_Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Boundary:
    """A setting's critical magnitude at one fork step, and how sure we are of it.

    Attributes:
        magnitude: Median over seeds of the critical magnitude; NaN unless `censoring` is `none`.
        low: Lower end of the interval; 0 where it lies below the smallest magnitude tested; NaN if undetermined.
        high: Upper end; +inf where it lies past the largest; NaN if undetermined.
        censoring: `none`; `left`: the median seed disconnects at the smallest magnitude already; `right`: it is
            connected at the largest; `both`: of the two middle seeds one each; `undetermined`: fewer than two seeds.
        num_seeds: Seeds with at least one observation.
    """

    magnitude: float
    low: float
    high: float
    censoring: Censoring
    num_seeds: int


class _Critical(NamedTuple):
    """One seed's critical magnitude, 0 or +inf where it is censored, and the cell that it lies in."""

    magnitude: float
    low: float
    high: float


def locate_boundary(
    magnitudes: npt.ArrayLike,
    values: npt.ArrayLike,
    *,
    threshold: float = 0.05,
    groups: Iterable[Any] | None = None,
    confidence: float = 0.95,
) -> Boundary:
    """Locate the magnitude at which children begin to disconnect.

    With c(ε) the mean over the replicates of a seed and τ the threshold::

        m_k = max_{j <= k} c(ε_j)                   running maximum from the smallest magnitude upwards
        κ   = min {k : m_k > τ}                     the seed disconnects in the cell [ε_{κ-1}, ε_κ]
        log ε* = log ε_{κ-1} + (log ε_κ − log ε_{κ-1}) (τ − m_{κ-1}) / (m_κ − m_{κ-1})

    and `magnitude` is the median over seeds of log ε*, as a magnitude. Where m_κ is infinite (a diverged run), ε* is
    the lower end. The interval is Student's t on log ε* over seeds, censored ones at the end where they are, joined
    with the cells of the middle seeds; where any seed is censored, or it leaves what was tested, that end is open.

    Args:
        magnitudes: [magnitudes] Sizes of the push, > 0, increasing.
        values: [replicates, magnitudes] An indicator that rises with the push, NaN where a run is missing, +inf where
            it diverged.
        threshold: The declared level; a value equal to it counts as connected.
        groups: [replicates] The seed of each replicate; without, each is a seed of its own.
        confidence: Nominal coverage of the interval over seeds, inside (0, 1).

    Raises:
        BadInput: `magnitudes` not positive or not increasing; others as `twophase.locate_transition` has them.
    """
    sizes = read_numbers("magnitudes", magnitudes)
    if sizes.ndim != 1 or not (np.isfinite(sizes).all() and (sizes > 0).all() and (np.diff(sizes) > 0).all()):
        raise BadInput(f"magnitudes must be finite, > 0 and increasing, got {sizes.tolist()}")
    curves = seed_curves(read_values(values, num_fork_steps=sizes.size), groups)
    found = sorted(_critical(sizes, curve, threshold) for curve in curves.values())
    if len(found) < 2:
        return Boundary(math.nan, math.nan, math.nan, "undetermined", len(found))
    middle = [found[(len(found) - 1) // 2], found[len(found) // 2]]
    censoring = _censoring(middle)
    low, high = _interval(found, middle, sizes, confidence)
    median = math.sqrt(middle[0].magnitude * middle[1].magnitude) if censoring == "none" else math.nan
    return Boundary(median, low, high, censoring, len(found))


def _critical(sizes: _Array, curve: _Array, threshold: float) -> _Critical:
    """Find where one seed's curve first rises above the threshold."""
    is_seen = ~np.isnan(curve)
    sizes, curve = sizes[is_seen], np.maximum.accumulate(curve[is_seen])
    num_below = int((curve <= threshold).sum())  # these come first, for the running maximum rises
    if num_below == 0:
        return _Critical(0.0, 0.0, float(sizes[0]))
    if num_below == sizes.size:
        return _Critical(math.inf, float(sizes[-1]), math.inf)
    low, high = sizes[num_below - 1 : num_below + 1].tolist()
    below, above = curve[num_below - 1 : num_below + 1].tolist()
    part = (threshold - below) / (above - below) if math.isfinite(above) else 0.0
    return _Critical(min(max(low * (high / low) ** part, low), high), low, high)


def _censoring(middle: list[_Critical]) -> Censoring:
    is_left, is_right = (any(seed.magnitude == end for seed in middle) for end in (0.0, math.inf))
    if is_left and is_right:
        return "both"
    return "left" if is_left else "right" if is_right else "none"


def _interval(found: list[_Critical], middle: list[_Critical], sizes: _Array, confidence: float) -> tuple[float, float]:
    least, greatest = float(sizes[0]), float(sizes[-1])
    logs = np.log(np.clip([seed.magnitude for seed in found], least, greatest))
    half = -float(stdtrit(len(logs) - 1, (1 - confidence) / 2)) * float(logs.std(ddof=1)) / math.sqrt(len(logs))
    low = min(float(np.exp(logs.mean() - half)), *(seed.low for seed in middle))
    high = max(float(np.exp(logs.mean() + half)), *(seed.high for seed in middle))
    # Seeds that all lie at an end of what was tested must not leave it by rounding.
    is_below, is_past = low < least * (1 - 1e-12), high > greatest * (1 + 1e-12)
    is_left, is_right = found[0].magnitude == 0, math.isinf(found[-1].magnitude)
    return 0.0 if is_left or is_below else low, math.inf if is_right or is_past else high

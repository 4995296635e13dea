"""Do two ways of dating a transition agree: the barrier's and the kernel's, setting by setting?

Zhou et al. 2025 (arXiv:2505.13900) see the chaos effect end and the cone effect begin at about the same time. Whether
they are one transition is asked here in four ways: by what factor one comes later, whether settings that are late by
one are late by the other, how often their intervals overlap, and how often there is one without the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy
from scipy.special import ndtri, stdtrit

from twophase.errors import BadInput
from twophase.shares import Share, share


class Dated(NamedTuple):
    """A setting's transition by one way of dating it; `step` NaN unless it was located."""

    step: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class Agreement:
    """What two ways of dating say of the same settings.

    Attributes:
        num_settings: Settings that both ways say something of.
        num_both: Of these, located by both, at a step above 0.
        ratio: Geometric mean of the second's step over the first's.
        ratio_low: Lower end of its interval over settings; NaN with fewer than two.
        ratio_high: Upper end.
        correlation: Spearman's rank correlation over settings located by both; NaN with fewer than three.
        correlation_low: Lower end of its interval; NaN with fewer than five.
        correlation_high: Upper end.
        overlap: Share of settings located by both whose intervals overlap.
        only_first: Settings located by the first way, and not by the second.
        only_second: The other way about.
    """

    num_settings: int
    num_both: int
    ratio: float
    ratio_low: float
    ratio_high: float
    correlation: float
    correlation_low: float
    correlation_high: float
    overlap: Share
    only_first: int
    only_second: int


def agreement(first: Sequence[Dated], second: Sequence[Dated], confidence: float = 0.95) -> Agreement:
    """Compare two ways of dating the transitions of the same settings.

    The ratio's interval is Student's t over settings of log(second / first). That of Spearman's ρ is Fisher's z with
    the variance (1 + ρ² / 2) / (n − 3) of Bonett & Wright (2000, doi:10.1007/BF02294183) and t quantiles with n − 2
    degrees of freedom: with few settings it is wide, as it should be.

    Args:
        first: [settings] Transitions by one way.
        second: [settings] The same settings' by the other.
        confidence: Nominal coverage, inside (0, 1).

    Raises:
        BadInput: The two are of different length.
    """
    if len(first) != len(second):
        raise BadInput(f"both ways must date the same settings, got {len(first)} and {len(second)}")
    is_located = [(_is_located(one), _is_located(other)) for one, other in zip(first, second, strict=True)]
    pairs = [pair for pair, both in zip(zip(first, second, strict=True), is_located, strict=True) if all(both)]
    logs = np.array([[math.log(one.step), math.log(other.step)] for one, other in pairs]).reshape(-1, 2)
    centre, low, high = _mean(logs[:, 1] - logs[:, 0], confidence)
    rho = _rank_correlation(logs)
    ends = fisher_z(rho, len(logs), confidence, rank=True) if len(logs) >= 5 else (math.nan, math.nan)
    overlaps = sum(one.low <= other.high and other.low <= one.high for one, other in pairs)
    return Agreement(
        num_settings=len(first),
        num_both=len(pairs),
        ratio=math.exp(centre),
        ratio_low=math.exp(low),
        ratio_high=math.exp(high),
        correlation=rho,
        correlation_low=ends[0],
        correlation_high=ends[1],
        overlap=share(overlaps, len(pairs), confidence),
        only_first=sum(one and not other for one, other in is_located),
        only_second=sum(other and not one for one, other in is_located),
    )


def fisher_z(correlation: float, num: int, confidence: float = 0.95, *, rank: bool = False) -> tuple[float, float]:
    """Interval of a correlation by Fisher's z: tanh(artanh r ± q s / √(n − 3)).

    Args:
        correlation: r, of `num` pairs.
        num: How many pairs, more than 3.
        confidence: Nominal coverage, inside (0, 1).
        rank: Whether it is one of ranks: s² is then 1 + r² / 2, and q of Student's t in place of the normal.

    Raises:
        BadInput: There are too few pairs.
    """
    if num < 4:
        raise BadInput(f"an interval of a correlation takes at least 4 pairs, got {num}")
    # A perfect correlation of few pairs proves no perfect one.
    r = min(max(correlation, -1 + 1e-9), 1 - 1e-9)
    tail = (1 - confidence) / 2
    quantile = -float(stdtrit(num - 2, tail)) if rank else -float(ndtri(tail))
    half = quantile * math.sqrt((1 + r**2 / 2 if rank else 1.0) / (num - 3))
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def _is_located(found: Dated) -> bool:
    return found.verdict == "located" and math.isfinite(found.step) and found.step > 0


def _mean(values: npt.NDArray[np.float64], confidence: float) -> tuple[float, float, float]:
    if len(values) == 0:
        return math.nan, math.nan, math.nan
    if len(values) == 1:
        return float(values[0]), math.nan, math.nan
    half = -float(stdtrit(len(values) - 1, (1 - confidence) / 2)) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def _rank_correlation(logs: npt.NDArray[np.float64]) -> float:
    if len(logs) < 3 or np.ptp(logs, axis=0).min() == 0:
        return math.nan
    return float(scipy.stats.spearmanr(logs[:, 0], logs[:, 1]).statistic)

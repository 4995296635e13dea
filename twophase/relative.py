"""Indicators relative to controls: how far a push parts two runs, beside how far another data order still does.

A control follows other minibatches from the fork on: it says how far two runs can still part from there. A barrier that
falls while its control's falls as fast tells of the landscape, or of the schedule; one that falls below its control's
tells of the push.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from twophase.errors import unknown

Array = npt.NDArray[np.float64]


def over(values: Array, controls: Array) -> Array:
    """Share of the control: x / c."""
    return values / controls


def excess(values: Array, controls: Array) -> Array:
    """Difference from the control: x − c."""
    return values - controls


@dataclass(frozen=True)
class Relative:
    """An indicator made of a child's and of its control's.

    Attributes:
        indicator: The indicator of both, a key of `twophase.chaos.INDICATORS`.
        against: How the child's is held against the control's.
        threshold: At or below this the child counts as connected.
        doc: What it says, in words.
    """

    indicator: str
    against: Callable[[Array, Array], Array]
    threshold: float
    doc: str


RELATIVE_INDICATORS: dict[str, Relative] = {
    "test_barrier_over_control": Relative("test_barrier", over, 0.5, "test barrier over the control's"),
    "train_barrier_over_control": Relative("train_barrier", over, 0.5, "train barrier over the control's"),
    "disagreement_over_control": Relative("disagreement", over, 0.5, "disagreement over the control's"),
    "excess_disagreement": Relative("disagreement", excess, -0.05, "disagreement minus the control's"),
}
"""By name. Shares count as connected from half of the control on: what a push parts by less than half of what another
data order does is no longer as chaotic as training can be. A chaotic child disagrees about as much as its control,
which is an excess of 0; it counts as connected where it disagrees on 5 % of the inputs less."""


def relative(name: str, values: npt.ArrayLike, controls: npt.ArrayLike, *, control_threshold: float) -> Array:
    """Hold children against their controls.

    With x a child's indicator and c its control's (the mean over them, if there are several), at the same fork and
    measure step of the same seed: x / c or x − c, by name. Unknown, NaN, where

    - x is NaN: the child is missing;
    - c is NaN or +inf: there is no control, or it diverged, and nobody knows how far apart such runs are;
    - c is at or below `control_threshold`: controls themselves are connected, so that there is nothing to be a share
      of. Never 0: a child isn't shown to connect earlier than its control where both do.

    A child that diverged, x = +inf, while its reference didn't is not connected, whatever its control does: +inf.

    Args:
        name: A key of `RELATIVE_INDICATORS`.
        values: [children] x; NaN where unknown, +inf where the child diverged.
        controls: [children] c of each; NaN where there is none, +inf where one diverged.
        control_threshold: At or below this a control counts as connected, in the units of both.

    Returns:
        [children] The indicator: a share, or a difference in the units of both.

    Raises:
        BadInput: The name is unknown.
    """
    if name not in RELATIVE_INDICATORS:
        raise unknown("relative indicator", name, RELATIVE_INDICATORS)
    x, c = np.asarray(values, dtype=np.float64), np.asarray(controls, dtype=np.float64)
    is_told = np.isfinite(c) & (c > control_threshold)
    found = RELATIVE_INDICATORS[name].against(x, np.where(is_told, c, np.nan))
    return np.where(np.isposinf(x), np.inf, found)

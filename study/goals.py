"""What a setting scores on each goal of a search, and what that number leaves open."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from study.analysis import transitions
from study.evidence import Evidence
from study.kernel_drift import kernel_drift
from study.manifest import Declared
from twophase.perturb import ORDER

EXACT, BELOW, ABOVE = "exact", "below", "above"


@dataclass(frozen=True)
class Found:
    """All rows of one setting.

    Attributes:
        trials: Its rows of `trials`, one per seed.
        transitions: Its rows of `transitions`.
        cone: Its rows of `cone`.
    """

    trials: pd.DataFrame
    transitions: pd.DataFrame
    cone: pd.DataFrame


@dataclass(frozen=True)
class Score:
    """A goal's value.

    Attributes:
        value: The number; NaN if there is none.
        low: Lower end of its interval; NaN if it has none.
        high: Upper end.
        bound: `EXACT`; or where the true value lies of a number that is only a bound: `BELOW` or `ABOVE` it.
        why: Why there is no number, or only a bound.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    bound: str = EXACT
    why: str = ""


def found_of(
    trials: pd.DataFrame, chaos: pd.DataFrame, cone: pd.DataFrame, declared: Declared, evidence: Evidence
) -> Found:
    """Estimate what the goals take, from the rows of one setting."""
    return Found(trials, transitions(chaos, declared, evidence=evidence), cone)


def _transition(found: Found) -> Score:
    rows = found.transitions[found.transitions["is_primary"]]
    return _estimate(rows) if len(rows) else Score(math.nan, why="the primary was not measured")


def _estimate(rows: pd.DataFrame) -> Score:
    row = rows.iloc[0]
    low, high, verdict = float(row["ci_low"]), float(row["ci_high"]), str(row["verdict"])
    if verdict == "located":
        return Score(float(row["transition_step"]), low, high)
    if verdict == "stable_from_start":
        return Score(0.0, low, high, BELOW, "never chaotic, which is no early transition")
    if verdict == "chaotic_throughout":
        return Score(low, low, high, ABOVE, f"not settled by fork step {low:g}")
    return Score(math.nan, why=f"undetermined: {row['reason'] or 'too few seeds'}")


def _fraction(found: Found) -> Score:
    score, steps = _transition(found), float(found.trials["num_steps"].iloc[0])
    return Score(score.value / steps, score.low / steps, score.high / steps, score.bound, score.why)


def _excess(found: Found) -> Score:
    """log2(control / primary); a bound where one of both is."""
    own = _transition(found)
    primary = found.transitions[found.transitions["is_primary"]]
    of_order = found.transitions[found.transitions["perturbation"] == ORDER]
    same = of_order.merge(primary[["indicator", "measure"]].drop_duplicates(), on=["indicator", "measure"])
    if same.empty:
        return Score(math.nan, why="controls were not measured")
    control = _estimate(same)
    if own.bound != EXACT or control.bound != EXACT or not own.value > 0 or not control.value > 0:
        why = [own.why, control.why and f"controls: {control.why}"]
        return Score(math.nan, why="; ".join(filter(None, why)) or "a transition at step 0 has no octaves")
    return Score(math.log2(control.value / own.value))


def _late_distance(found: Found) -> Score:
    if found.cone.empty:
        return Score(math.nan, why="no kernels were taken")
    late = float(kernel_drift(found.cone)["late"].iloc[0])
    return Score(late, why="" if math.isfinite(late) else "too few kernels, or one that isn't finite")


def _mean_of(column: str) -> Callable[[Found], Score]:
    def score(found: Found) -> Score:
        values = found.trials[column].to_numpy(dtype=float)
        value = float(np.mean(values))
        return Score(value, why="" if math.isfinite(value) else "a seed's reference diverged")

    return score


SCORES: dict[str, Callable[[Found], Score]] = {
    "transition_step": _transition,
    "transition_fraction": _fraction,
    "excess_octaves": _excess,
    "late_kernel_distance": _late_distance,
    "test_accuracy": _mean_of("test_accuracy"),
    "test_loss": _mean_of("test_loss"),
}
"""Name of a goal (`search_spaces.search_block.GOALS`) -> what a setting scores."""

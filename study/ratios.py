"""Two levels of an axis: is it ever chaotic at each, and if so by what factor is the transition later at one?"""

import math
from collections.abc import Hashable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from study.axes import (
    KEEPS_SEED,
    MAGNITUDE,
    goes_along,
    held_leaves,
    held_text,
    level_text,
    unit_lengths,
    units_that_differ,
)
from study.crossings import KIND_COLUMNS
from twophase.agreement import fisher_z
from twophase.errors import BadInput
from twophase.shares import Share, fisher, holm, share
from twophase.survival import Effect, effect, fit_times, read_times

CHAOTIC = ("located", "chaotic_throughout")
LEAST_PAIRS = 5
ALL = "all"
RATIO_COLUMNS = [
    *("axis", "level_a", "level_b", "held", "goes_with", *KIND_COLUMNS, "unit"),
    *("ratio", "ci_low", "ci_high", "p_value", "p_holm", "num_comparisons", "verdict"),
    *("step_a", "step_b", "is_paired", "correlation", "num_shared_seeds", "num_contexts", "degrees"),
    *(f"{name}_{side}" for side in "ab" for name in ("num_seeds", "num_chaotic", "num_unsettled")),
    *(f"chaotic_share{end}_{side}" for side in "ab" for end in ("", "_low", "_high")),
    *("fisher_p", "fisher_p_holm", "control_ratio", "control_ci_low", "control_ci_high", "of_controls"),
    *("setting_key_a", "setting_key_b", "reason"),
]
_UNKNOWN = Effect(math.nan, math.nan, math.nan, math.nan, 0, 0)


class Compared(NamedTuple):
    """The factor between two levels, how it was come by, and why there is none."""

    effect: Effect
    is_paired: bool = False
    correlation: float = math.nan
    num_shared: int = 0
    reason: str = ""


def ratios(pushes: pd.DataFrame, controls: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Compare every two levels of an axis, everything else held fixed, and over all that is held fixed together.

    Two parts. Is it ever chaotic: the share of seeds that aren't stable from the start at each level, exact intervals,
    Fisher's test. And if so, when: the factor between the transition steps of those seeds, by a log-normal model of
    accelerated failure times in which a crossing lies anywhere between its fork steps, or past the last
    (`twophase.survival`). Over several contexts together each has a level of its own and the factor is the same in all:
    a statement on these contexts, of which seeds are the units.

    Args:
        pushes: Crossings (`study.crossings`) of one indicator, perturbation and measure step.
        controls: The same of controls; may be empty.
        axis: A leaf, or ``magnitude``.

    Returns:
        A row per pair of levels, context and unit of time; factors are `level_b` over `level_a`. p-values are corrected
        by Holm's method over all pairs and contexts of one unit; those over all contexts form a family of their own.

    Raises:
        BadInput: No two settings differ in the axis alone.
    """
    held = held_leaves(pushes, axis)
    along = ", ".join(goes_along(pushes, axis))
    rows: list[dict[str, object]] = []
    for low, high in combinations(sorted(pushes[axis].unique()), 2):
        contexts = list(_contexts(pushes, axis, (low, high), held))
        for words, one, other in contexts:
            of_controls = _same(controls, axis, one), _same(controls, axis, other)
            rows += _rows(axis, words, (one, other), of_controls, [(one, other)])
        if len(contexts) > 1:
            one, other = (pd.concat(side) for side in ([c[1] for c in contexts], [c[2] for c in contexts]))
            of_controls = _same(controls, axis, one), _same(controls, axis, other)
            rows += _rows(axis, ALL, (one, other), of_controls, [context[1:] for context in contexts])
    if not rows:
        raise BadInput(f"no two settings differ in {axis} and agree in {', '.join(held)}; compare by one of those")
    return _corrected(pd.DataFrame(rows).assign(goes_with=along))[RATIO_COLUMNS]


def _contexts(
    table: pd.DataFrame, axis: str, levels: tuple[object, object], held: Sequence[str]
) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Each choice of the other leaves at which both levels were run."""
    groups = table.groupby(list(held), sort=True) if held else [((), table)]
    for values, rows in groups:
        one, other = (rows[rows[axis] == level] for level in levels)
        if len(one) and len(other):
            yield held_text(held, values if isinstance(values, tuple) else (values,)), one, other


def _same(controls: pd.DataFrame, axis: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Controls of the same settings; they have no magnitude that could be compared."""
    return (
        controls[controls["setting_key"].isin(rows["setting_key"])] if axis in controls and len(controls) else controls
    )


def _rows(
    axis: str,
    words: str,
    sides: tuple[pd.DataFrame, pd.DataFrame],
    of_controls: tuple[pd.DataFrame, pd.DataFrame],
    contexts: Sequence[tuple[pd.DataFrame, pd.DataFrame]],
) -> Iterator[dict[str, object]]:
    one, other = sides
    kind = one.iloc[0]
    strata = [(ever_chaotic(a), ever_chaotic(b)) for a, b in contexts]
    for unit in units_that_differ(one, other):
        found = compared(one, other, axis, unit)
        control = Compared(_UNKNOWN)
        if all(map(len, of_controls)) and axis != MAGNITUDE:
            control = compared(*of_controls, axis, unit)
        factor, low, high = as_factors(found.effect)
        yield {
            "axis": axis,
            "level_a": kind[axis],
            "level_b": other[axis].iloc[0],
            "held": words,
            **{name: kind[name] for name in KIND_COLUMNS},
            "magnitude": math.nan if axis == MAGNITUDE else kind["magnitude"],
            "unit": unit,
            **dict(zip(("ratio", "ci_low", "ci_high"), (factor, low, high), strict=True)),
            "p_value": found.effect.p_value,
            "is_paired": found.is_paired,
            "correlation": found.correlation,
            "num_shared_seeds": found.num_shared,
            "num_contexts": len(contexts),
            "degrees": found.effect.degrees,
            **_side(one, "a", unit),
            **_side(other, "b", unit),
            "fisher_p": fisher(strata),
            **dict(
                zip(("control_ratio", "control_ci_low", "control_ci_high"), as_factors(control.effect), strict=True)
            ),
            "of_controls": shared_words(found.effect, control.effect),
            "reason": found.reason,
        }


def compared(one: pd.DataFrame, other: pd.DataFrame, axis: str, unit: str) -> Compared:
    """Estimate the factor between two sets of crossings, `other` over `one`, of those that are ever chaotic."""
    both = pd.concat([one.assign(is_other=0.0), other.assign(is_other=1.0)])
    both = both[both["outcome"].isin(CHAOTIC)]
    lacking = [level_text(rows[axis].iloc[0]) for rows in (one, other) if not rows["outcome"].isin(CHAOTIC).any()]
    if lacking:
        reason = f"no seed of {axis} {' or '.join(lacking)} is ever chaotic: nothing to compare"
        return Compared(_UNKNOWN, reason=reason)
    if not np.isfinite(both["high"]).any():
        return Compared(_UNKNOWN, reason="no seed was seen to settle at either level")
    keys = both["setting_key"].unique()
    if len(keys) > 2 or (axis == MAGNITUDE and one["setting_key"].nunique() > 1):
        return _over_contexts(both, axis, unit)
    correlation, num_shared, is_paired = math.nan, 0, False
    if axis in KEEPS_SEED:
        correlation, num_shared, is_paired = _pairing(one, other)
    clusters = both["seed"].tolist() if is_paired else None
    found = _effect(both, np.c_[np.ones(len(both)), both["is_other"]], 1, unit, clusters)
    reason = "" if found.degrees > 0 else "too few chaotic seeds for an interval"
    return Compared(found, is_paired, correlation, num_shared, reason)


def _over_contexts(both: pd.DataFrame, axis: str, unit: str) -> Compared:
    """The factor common to several contexts, each with a level of its own; it holds for these, not for others."""
    held = [leaf for leaf in held_leaves(both, axis) if leaf != "is_other"]
    context = both.groupby(held, sort=True).ngroup() if held else pd.Series(0, index=both.index)
    is_whole = both.groupby(context)["is_other"].transform("nunique") == 2
    both, context = both[is_whole], context[is_whole]
    if not len(both):
        return Compared(_UNKNOWN, reason="no context has chaotic seeds at both levels")
    dummies = (context.to_numpy()[:, None] == context.unique()[None, :]).astype(float)
    if dummies.shape[1] == 1:
        return Compared(_UNKNOWN, reason="one context only has chaotic seeds at both levels, see its own row")
    # A seed saw every magnitude; under two settings, whether it is a pair is asked context by context only.
    seeds = [f"{key} {seed}" for key, seed in zip(both["setting_key"], both["seed"], strict=True)]
    clusters = seeds if axis == MAGNITUDE else None
    return Compared(_effect(both, np.c_[dummies, both["is_other"]], dummies.shape[1], unit, clusters))


def _effect(rows: pd.DataFrame, design: object, column: int, unit: str, clusters: Sequence[Hashable] | None) -> Effect:
    lengths = unit_lengths(rows, unit)
    matrix = np.asarray(design, dtype=float)
    if len(rows) <= matrix.shape[1]:
        return _UNKNOWN
    times = read_times(matrix, rows["low"].to_numpy() / lengths, rows["high"].to_numpy() / lengths, clusters)
    return effect(times, fit_times(times), column)


def _pairing(one: pd.DataFrame, other: pd.DataFrame) -> tuple[float, int, bool]:
    """Correlation of log crossings over shared seeds, how many there are, and whether pairs tell more than they cost.

    They do where the correlation is above 0 beyond chance: else the degrees of freedom that they take weigh more.
    """
    logs = [rows[rows["outcome"] == "located"].set_index("seed")["step"].map(math.log1p) for rows in (one, other)]
    shared = pd.concat(logs, axis=1, join="inner").to_numpy()
    if len(shared) < 3 or np.ptp(shared, axis=0).min() == 0:
        return math.nan, len(shared), False
    correlation = float(np.corrcoef(shared.T)[0, 1])
    if len(shared) < LEAST_PAIRS:
        return correlation, len(shared), False
    return correlation, len(shared), fisher_z(correlation, len(shared))[0] > 0


def ever_chaotic(rows: pd.DataFrame) -> Share:
    """The share of seeds that aren't stable from the start, of those of which that is known."""
    known = rows[rows["outcome"] != "undetermined"]
    return share(int(known["outcome"].isin(CHAOTIC).sum()), len(known))


def _side(rows: pd.DataFrame, side: str, unit: str) -> dict[str, object]:
    ever = ever_chaotic(rows)
    chaotic = rows[rows["outcome"].isin(CHAOTIC)]
    steps = chaotic["step"].to_numpy() / unit_lengths(chaotic, unit)
    keys = rows["setting_key"].unique()
    return {
        f"step_{side}": float(np.median(steps)) if len(steps) else math.nan,
        f"num_seeds_{side}": ever.num,
        f"num_chaotic_{side}": ever.hits,
        f"num_unsettled_{side}": int((rows["outcome"] == "chaotic_throughout").sum()),
        f"chaotic_share_{side}": ever.value,
        f"chaotic_share_low_{side}": ever.low,
        f"chaotic_share_high_{side}": ever.high,
        f"setting_key_{side}": keys[0] if len(keys) == 1 else "several",
    }


def as_factors(found: Effect) -> tuple[float, float, float]:
    """A coefficient and its ends as factors; 0 and inf where there are none."""
    return _exp(found.estimate), _exp(found.low), _exp(found.high)


def _exp(value: float) -> float:
    return math.inf if value > 700 else math.exp(value)


def shared_words(own: Effect, control: Effect) -> str:
    """Whether controls show the same effect: then it says how far two runs can part, not how chaotic they are."""
    if math.isnan(control.estimate) or math.isnan(own.estimate) or math.isnan(control.p_value):
        return "not known"
    if not (own.low > 0 or own.high < 0):
        return "no effect to share"
    if control.low <= 0 <= control.high:
        return "not shared" if not control.low <= own.estimate <= control.high else "unclear"
    is_same = (control.estimate > 0) == (own.estimate > 0)
    if not is_same:
        return "opposite"
    return "shared" if control.low <= own.high and own.low <= control.high else "shared in part"


def _corrected(rows: pd.DataFrame) -> pd.DataFrame:
    """Holm's correction within each family, and what follows from it."""
    family = [rows["unit"], rows["held"] == ALL]
    rows = rows.assign(
        p_holm=rows.groupby(family)["p_value"].transform(lambda column: holm(column.tolist())),
        fisher_p_holm=rows.groupby(family)["fisher_p"].transform(lambda column: holm(column.tolist())),
        num_comparisons=rows.groupby(family)["p_value"].transform("count"),
    )
    verdicts = [
        "not comparable"
        if math.isnan(p)
        else "no difference beyond chance"
        if p >= 0.05
        else "later"
        if up
        else "earlier"
        for p, up in zip(rows["p_holm"], rows["ratio"] > 1, strict=True)
    ]
    return rows.assign(verdict=verdicts)

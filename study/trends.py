"""Trends over numeric axes: by what factor is the transition later for each octave, several axes at once."""

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.axes import MAGNITUDE, UNIT_LEAVES, held_text, is_numeric, swept, unit_lengths
from study.crossings import KIND_COLUMNS
from study.ratios import CHAOTIC, as_factors, shared_words
from twophase.shares import holm
from twophase.survival import Effect, Times, effect, fit_times, read_times

TREND_COLUMNS = [
    *("axis", "held", *KIND_COLUMNS, "unit", "per_octave", "ci_low", "ci_high", "p_value", "p_holm"),
    *(
        "num_comparisons",
        "exponent",
        "per_decade",
        "verdict",
        "adjusted_for",
        "goes_with",
        "units_of_evidence",
        "degrees",
    ),
    *("num_settings", "num_seeds", "num_chaotic", "num_unsettled", "seed_spread", "setting_spread"),
    *("control_per_octave", "control_ci_low", "control_ci_high", "of_controls", "words", "reason"),
]
FLAT_PER_DECADE = 1.5
"""A transition that moves by less than this factor per decade of magnitude hardly cares how small a push is."""
_Array = npt.NDArray[np.float64]
_UNKNOWN = Effect(math.nan, math.nan, math.nan, math.nan, 0, 0)


@dataclass(frozen=True)
class Design:
    """What crossings are explained by.

    Attributes:
        matrix: [crossings, columns] A constant, octaves of numeric leaves about their mean, levels of others.
        column_of: Numeric leaf -> its column.
        beside: Leaves that are in it.
        along: Leaves left out, as those before settle them.
    """

    matrix: _Array
    column_of: dict[str, int]
    beside: list[str]
    along: list[str]


@dataclass(frozen=True)
class Trend:
    """The coefficient of an axis in nats per octave, with the model that it is of."""

    effect: Effect
    design: Design | None = None
    units: str = "settings"
    scale: float = math.nan
    cluster_scale: float = math.nan
    reason: str = ""


def trends(
    pushes: pd.DataFrame, controls: pd.DataFrame, axes: Sequence[str], *, is_judged: bool = True
) -> pd.DataFrame:
    """Fit the transition step over numeric axes.

    A log-normal model of accelerated failure times (`twophase.survival`) over the octaves, log2, of every numeric leaf
    that was swept, and a level each for others, of all seeds that are ever chaotic; a random effect per setting, for
    seeds of a setting make no more settings. Over the magnitude of the push, a trend for each setting by itself, as
    settings may differ in whether it matters at all; its units are seeds, which saw every magnitude.

    Args:
        pushes: Crossings (`study.crossings`) of one indicator, perturbation and measure step.
        controls: The same of controls; may be empty.
        axes: Numeric axes; others have no trend and are passed over.
        is_judged: Whether intervals and p-values are wanted, which take most of the time.

    Returns:
        A row per axis and unit of time: `per_octave` is the factor for each doubling of the axis, `exponent` its log2,
        the power of the axis with which the transition goes. p-values are corrected by Holm's method over the table.
    """
    rows = [
        row
        for axis in axes
        if is_numeric(pushes, axis)
        for row in _rows(pushes, controls, axis, axes, is_judged=is_judged)
    ]
    table = pd.DataFrame(rows, columns=[name for name in TREND_COLUMNS if name not in ("p_holm", "verdict")])
    table = table.assign(p_holm=holm(table["p_value"].tolist()), num_comparisons=int(table["p_value"].notna().sum()))
    verdicts = [
        "unknown" if math.isnan(p) else "no trend beyond chance" if p >= 0.05 else "later" if up else "earlier"
        for p, up in zip(table["p_holm"], table["per_octave"] > 1, strict=True)
    ]
    return table.assign(verdict=verdicts)[TREND_COLUMNS]


def _rows(
    pushes: pd.DataFrame, controls: pd.DataFrame, axis: str, axes: Sequence[str], *, is_judged: bool
) -> Iterator[dict[str, object]]:
    along = make_design(pushes, [axis, *axes]).along
    for unit, leaves in UNIT_LEAVES.items():
        if unit != "steps" and not {axis, *along} & set(leaves):
            continue  # adjusted for the length of the unit, the trend is the same in it
        if axis != MAGNITUDE:
            control = fit_trend(controls, axis, axes, unit) if len(controls) else Trend(_UNKNOWN)
            yield _row(pushes, axis, "", unit, fit_trend(pushes, axis, axes, unit, is_judged=is_judged), control)
        elif unit == "steps":
            held = swept(pushes)
            for values, rows in pushes.groupby(held) if held else [((), pushes)]:
                words = held_text(held, values if isinstance(values, tuple) else (values,))
                yield _row(rows, axis, words, unit, fit_magnitudes(rows, unit), Trend(_UNKNOWN))


def fit_trend(table: pd.DataFrame, axis: str, axes: Sequence[str], unit: str, *, is_judged: bool = True) -> Trend:
    """Fit crossings over everything that was swept, and judge one axis."""
    rows = table[table["outcome"].isin(CHAOTIC)]
    if rows[axis].nunique() < 2:
        return Trend(_UNKNOWN, reason=f"fewer than two levels of {axis} have seeds that are ever chaotic")
    if not np.isfinite(rows["high"]).any():
        return Trend(_UNKNOWN, reason="no seed was seen to settle")
    design = make_design(rows, [axis, *(other for other in axes if other != axis)])
    column = design.column_of[axis]
    if len(rows) <= design.matrix.shape[1]:
        return Trend(_UNKNOWN, design, reason=f"{len(rows)} chaotic seeds for {design.matrix.shape[1]} coefficients")
    found = _fitted(rows, design, column, unit, rows["setting_key"].tolist(), is_judged=is_judged)
    if found.effect.degrees > 0 or not is_judged:
        return found
    # With as many settings as coefficients, how far settings stray from the line can't be told.
    line = "as many coefficients as settings: seeds stand for settings, as if the line were straight"
    found = _fitted(rows, design, column, unit, None)
    return Trend(found.effect, design, "seeds", found.scale, reason=line)


def fit_magnitudes(table: pd.DataFrame, unit: str) -> Trend:
    """Fit one setting's crossings over the magnitude; every seed saw each of them."""
    rows = table[table["outcome"].isin(CHAOTIC)]
    if rows[MAGNITUDE].nunique() < 2 or len(rows) < 3:
        return Trend(_UNKNOWN, units="seeds", reason="fewer than two magnitudes have seeds that are ever chaotic")
    if not np.isfinite(rows["high"]).any():
        return Trend(_UNKNOWN, units="seeds", reason="no seed was seen to settle")
    octaves = np.log2(rows[MAGNITUDE].to_numpy(dtype=float))
    design = Design(np.c_[np.ones(len(rows)), octaves - octaves.mean()], {MAGNITUDE: 1}, [], [])
    found = _fitted(rows, design, 1, unit, rows["seed"].tolist())
    return Trend(found.effect, design, "seeds", found.scale, found.cluster_scale, found.reason)


def _fitted(
    rows: pd.DataFrame,
    design: Design,
    column: int,
    unit: str,
    clusters: Sequence[Hashable] | None,
    *,
    is_judged: bool = True,
) -> Trend:
    lengths = unit_lengths(rows, unit)
    low, high = rows["low"].to_numpy(dtype=float) / lengths, rows["high"].to_numpy(dtype=float) / lengths
    times: Times = read_times(design.matrix, low, high, clusters)
    fit = fit_times(times)
    alone = Effect(float(fit.coefficients[column]), math.nan, math.nan, math.nan, 0, 0)
    found = effect(times, fit, column) if is_judged else alone
    return Trend(found, design, "settings", fit.scale, fit.cluster_scale)


def make_design(rows: pd.DataFrame, first: Sequence[str]) -> Design:
    """Lay out what crossings are explained by; a leaf that adds nothing to those before it is left out."""
    columns: list[_Array] = [np.ones(len(rows))]
    column_of: dict[str, int] = {}
    beside, along = [], []
    for leaf in dict.fromkeys([*first, *swept(rows)]):
        if leaf == MAGNITUDE or rows[leaf].nunique() < 2:
            continue
        new = _columns(rows, leaf)
        if np.linalg.matrix_rank(np.column_stack([*columns, *new])) < len(columns) + len(new):
            along.append(leaf)
            continue
        if is_numeric(rows, leaf):
            column_of[leaf] = len(columns)
        columns += new
        beside.append(leaf)
    return Design(np.column_stack(columns), column_of, beside, along)


def _columns(rows: pd.DataFrame, leaf: str) -> list[_Array]:
    """Octaves of a number, or 0 and 1 for each level but the first."""
    if is_numeric(rows, leaf):
        octaves = np.log2(rows[leaf].to_numpy(dtype=float))
        return [octaves - octaves.mean()]
    levels = sorted(rows[leaf].unique())
    return [(rows[leaf] == level).to_numpy(dtype=float) for level in levels[1:]]


def _row(table: pd.DataFrame, axis: str, held: str, unit: str, found: Trend, control: Trend) -> dict[str, object]:
    kind = table.iloc[0]
    factor, low, high = as_factors(found.effect)
    design = found.design
    decade = math.log2(10) * found.effect.estimate
    return {
        "axis": axis,
        "held": held,
        **{name: kind[name] for name in KIND_COLUMNS},
        "magnitude": math.nan if axis == MAGNITUDE else kind["magnitude"],
        "unit": unit,
        **dict(zip(("per_octave", "ci_low", "ci_high"), (factor, low, high), strict=True)),
        "p_value": found.effect.p_value,
        "exponent": found.effect.estimate / math.log(2),
        "per_decade": math.exp(decade) if math.isfinite(decade) else decade if math.isnan(decade) else math.inf,
        "adjusted_for": "" if design is None else ", ".join(leaf for leaf in design.beside if leaf != axis),
        "goes_with": "" if design is None else ", ".join(design.along),
        "units_of_evidence": found.units,
        "degrees": found.effect.degrees,
        "num_settings": table["setting_key"].nunique(),
        "num_seeds": len(table[["setting_key", "seed"]].drop_duplicates()),
        "num_chaotic": int(table["outcome"].isin(CHAOTIC).sum()),
        "num_unsettled": int((table["outcome"] == "chaotic_throughout").sum()),
        "seed_spread": math.exp(found.scale),
        "setting_spread": math.exp(found.cluster_scale),
        **dict(
            zip(("control_per_octave", "control_ci_low", "control_ci_high"), as_factors(control.effect), strict=True)
        ),
        "of_controls": shared_words(found.effect, control.effect),
        "words": magnitude_words(found.effect, table) if axis == MAGNITUDE else "",
        "reason": "; ".join(filter(None, [found.reason, _left_out(table)])),
    }


def _left_out(table: pd.DataFrame) -> str:
    """Seeds that are stable from the start are no part of a trend in when they settle."""
    count = int((~table["outcome"].isin(CHAOTIC)).sum())
    return f"among seeds that are ever chaotic, {len(table) - count} of {len(table)}" if count else ""


def magnitude_words(found: Effect, table: pd.DataFrame) -> str:
    """Say how much the size of a push matters: a boundary that small pushes stay inside of, or none to speak of."""
    never = table.groupby(MAGNITUDE)["outcome"].agg(lambda column: (~column.isin(CHAOTIC)).mean() > 0.5)
    if never.any() and not never.all():
        sizes = ", ".join(f"{size:g}" for size in never.index[never])
        return f"a boundary: most seeds are connected from the start at {sizes}, and not at larger pushes"
    if math.isnan(found.estimate):
        return "unknown"
    low, high = (math.log2(10) * end for end in (found.low, found.high))
    most = math.log(FLAT_PER_DECADE)
    if -most < low and high < most:
        return "flat: a small push is as good as a large one"
    if low > 0:
        return (
            "steep: an ordinary basin, larger pushes part runs for longer"
            if low > most
            else "larger pushes part runs for longer"
        )
    return "unclear: too wide to call it flat or steep"

"""Chaos rows -> curves over the fork step: which rows belong to a measure step, and one curve per replicate."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from study.manifest import Declared, default_threshold


def threshold_of(indicator: str, declared: Declared) -> float:
    """The level at or below which a child counts as connected: the declared one of the primary's indicator."""
    primary = declared.primary
    return primary.threshold if indicator == primary.indicator else default_threshold(indicator)


def measures_of(rows: pd.DataFrame, declared: Declared) -> Iterator[tuple[str, bool, pd.DataFrame]]:
    """Measure steps as text, whether the primary's, and their rows; the primary's first, none twice."""
    seen = set()
    for measure in sorted(declared.measures, key=lambda written: written != declared.measure):
        measured = rows[is_measure(rows, measure)]
        # Epochs are a way of writing; the row holds the step that they come to, where they come to one.
        steps = measured["measure_step"].unique()
        text = str(steps[0]) if measure.endswith("ep") and len(steps) == 1 else measure
        if len(measured) and text not in seen:
            seen.add(text)
            yield text, measure == declared.measure, measured


def is_measure(rows: pd.DataFrame, measure: str) -> pd.Series:
    """Tell which rows were measured at a measure step as it is written."""
    if measure == "end":
        return rows["measure_step"] == rows["num_steps"]
    if measure.startswith("+"):
        return rows["measure_step"] - rows["fork_step"] == int(measure)
    if measure.endswith("ep"):
        per_epoch = rows["num_train"] // rows["batch_size"]
        return rows["measure_step"] == (float(measure.removesuffix("ep")) * per_epoch).round()
    return rows["measure_step"] == int(measure)


def replicate_values(rows: pd.DataFrame, indicator: str) -> pd.Series:
    """An indicator of every child: +inf where it diverged, NaN where it tells nothing."""
    return rows[indicator].mask(rows["diverged"], np.inf).mask(rows["lost"] != "", np.nan)


def curve_matrix(rows: pd.DataFrame, indicator: str) -> pd.DataFrame:
    """One row per replicate, indexed by (setting_key, seed, trial_key, direction); one column per fork step.

    Args:
        rows: Children of one kind, magnitude and measure step, with `lost` (see `study.evidence.judged`).
        indicator: The column to take; +inf where the child diverged, NaN where it tells nothing.
    """
    values = replicate_values(rows, indicator)
    index = ["setting_key", "seed", "trial_key", "direction"]
    return rows.assign(value=values).pivot(index=index, columns="fork_step", values="value")

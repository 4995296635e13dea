"""Chaos rows -> transitions: one estimate per setting, indicator, perturbation, magnitude and measure step."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from study.manifest import Declared, default_threshold
from twophase.chaos import INDICATORS
from twophase.config import LEAVES
from twophase.errors import BadInput, unknown
from twophase.perturb import NONE
from twophase.transition import locate_transition


def transitions(chaos: pd.DataFrame, declared: Declared, by: Sequence[str] | None = None) -> pd.DataFrame:
    """Estimate every transition that the rows allow.

    A child that diverged while its reference did not counts as not connected (+inf); where the reference diverged
    nothing is known (NaN).

    Args:
        chaos: The study's `chaos` table.
        declared: Its primary and measure steps.
        by: Pool over all settings that agree in these leaves; None keeps settings apart.

    Returns:
        Rows of the `transitions` table; pooled, only the leaves of `by` stand beside the estimate.

    Raises:
        BadInput: A leaf of `by` is unknown.
    """
    for leaf in by or ():
        if leaf not in LEAVES:
            raise unknown("axis", leaf, LEAVES)
    keys = ["study", "setting_key", *LEAVES] if by is None else ["study", *by]
    children = _with_reference(chaos)
    rows = [
        {**dict(zip(keys, point, strict=True)), **estimate}
        for point, rows_of_point in _groups(children, keys)
        for estimate in _estimates(rows_of_point, declared)
    ]
    return pd.DataFrame(rows, columns=[*keys, *ESTIMATE_COLUMNS])


ESTIMATE_COLUMNS = [
    "indicator",
    "perturbation",
    "magnitude",
    "measure",
    "kernel",
    "transition_step",
    "ci_low",
    "ci_high",
    "verdict",
    "threshold",
    "is_primary",
    "num_seeds",
    "method",
]


def _groups(frame: pd.DataFrame, keys: list[str]) -> Iterator[tuple[tuple[object, ...], pd.DataFrame]]:
    for point, rows in frame.groupby(keys, sort=True):
        yield point if isinstance(point, tuple) else (point,), rows


def _with_reference(chaos: pd.DataFrame) -> pd.DataFrame:
    """Children beside whether their reference had diverged, which their trial's sentinel tells."""
    sentinels = chaos.loc[chaos["perturbation"] == NONE, ["trial_key", "measure_step", "diverged"]]
    sentinels = sentinels.rename(columns={"diverged": "reference_diverged"})
    children = chaos[chaos["perturbation"] != NONE]
    return children.merge(sentinels, on=["trial_key", "measure_step"], how="left", validate="many_to_one")


def _estimates(rows: pd.DataFrame, declared: Declared) -> Iterator[dict[str, object]]:
    for (kind, magnitude), of_kind in rows.groupby(["perturbation", "magnitude"], sort=True):
        for measure in declared.measures:
            measured = of_kind[is_measure(of_kind, measure)]
            if measured.empty:
                continue
            for indicator in INDICATORS:
                yield _estimate(measured, declared, indicator, str(kind), float(str(magnitude)), measure)


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


def _estimate(
    rows: pd.DataFrame, declared: Declared, indicator: str, kind: str, magnitude: float, measure: str
) -> dict[str, object]:
    is_indicator = indicator == declared.primary.indicator
    threshold = declared.primary.threshold if is_indicator else default_threshold(indicator)
    curves = curve_matrix(rows, indicator)
    found = locate_transition(
        curves.columns.to_numpy(),
        curves.to_numpy(),
        threshold=threshold,
        groups=[f"{setting}/{seed}" for setting, seed, *_ in curves.index],
    )
    is_primary = (
        is_indicator
        and kind == declared.perturbation
        and magnitude == declared.primary_magnitude
        and measure == declared.measure
    )
    return {
        "indicator": indicator,
        "perturbation": kind,
        "magnitude": magnitude,
        # Epochs are a way of writing; the row holds the step that they come to.
        "measure": str(rows["measure_step"].iloc[0]) if measure.endswith("ep") else measure,
        "kernel": "none",
        "transition_step": found.step,
        "ci_low": found.low,
        "ci_high": found.high,
        "verdict": found.verdict,
        "threshold": threshold,
        "is_primary": is_primary,
        "num_seeds": found.num_seeds,
        "method": found.method,
    }


def curve_matrix(rows: pd.DataFrame, indicator: str) -> pd.DataFrame:
    """One row per replicate, indexed by (setting_key, seed, trial_key, direction); one column per fork step."""
    values = rows[indicator].mask(rows["diverged"], np.inf).mask(rows["reference_diverged"].eq(True), np.nan)
    index = ["setting_key", "seed", "trial_key", "direction"]
    return rows.assign(value=values).pivot(index=index, columns="fork_step", values="value")


def select(found: pd.DataFrame, indicator: str | None, magnitude: float | None) -> pd.DataFrame:
    """Choose what to print: the primary, or an indicator and a magnitude that were asked for.

    Raises:
        BadInput: The indicator is unknown or the magnitude wasn't run.
    """
    if indicator is None and magnitude is None:
        return found[found["is_primary"]]
    if indicator is not None and indicator not in INDICATORS:
        raise unknown("indicator", indicator, INDICATORS)
    primary = found[found["is_primary"]]
    wanted = indicator or (primary["indicator"].iloc[0] if len(primary) else "test_barrier")
    chosen = found[found["indicator"] == wanted]
    if magnitude is None:
        return chosen
    run = sorted(set(found["magnitude"]) - {0.0})
    if magnitude not in run:
        raise BadInput(f"magnitude must be one that was run ({', '.join(f'{m:g}' for m in run)}), got {magnitude:g}")
    return chosen[chosen["magnitude"] == magnitude]

"""Kernel distance between checkpoints some steps apart: figure 5b of arXiv:2505.13900."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from study.panels import say_empty, step_axis
from study.shown_rows import setting_panels

MOST_LAGS = 4
LEAST_PLACES = 4
"""Of later checkpoints that have an earlier one at a lag."""
TOLERANCE = 0.25
"""Lags that differ by this share of the one named are taken for it: checkpoints are where they are."""


def lag_figure(cone: pd.DataFrame, axes: Sequence[str]) -> Figure | None:
    """S over the step of the later checkpoint, a line per lag dt, a panel per setting, of the first kind of kernel.

    Args:
        cone: The `cone` table.
        axes: Leaves that tell settings apart.

    Returns:
        The figure; None where no lag has pairs of checkpoints at four places.
    """
    rows = lagged(cone)
    if rows.empty:
        return None
    figure, panels = setting_panels(rows, axes, 4.6, 3.6)
    for panel, own in panels:
        lags = sorted(set(own.loc[own["kernel_distance"].notna(), "named_lag"]))
        colours = mpl.colormaps["viridis"](np.linspace(0.0, 0.85, len(lags)))
        for lag, colour in zip(lags, map(mpl.colors.to_hex, colours), strict=True):
            of_lag = own[own["named_lag"] == lag]
            seeds = of_lag.groupby(["step_j", "seed"])["kernel_distance"].mean().unstack()
            panel.plot(seeds.index, seeds.mean(axis=1), "-o", color=colour, markersize=3, label=f"dt {lag:g}")
            panel.fill_between(seeds.index, seeds.min(axis=1), seeds.max(axis=1), color=colour, alpha=0.13, linewidth=0)
        if lags:
            panel.legend(fontsize=7.5, frameon=False)
        else:
            say_empty(panel, "no kernel is finite")
        step_axis(panel, float(own["step_j"].max()))
        panel.set_ylim(bottom=0)
        panel.set_xlabel("step of the later checkpoint")
        panel.set_ylabel(f"distance $S$, {own['kernel'].iloc[0]} kernel")
    return figure


def lagged(cone: pd.DataFrame) -> pd.DataFrame:
    """Pairs of checkpoints of each setting's first kind of kernel, with the lag that they are taken for."""
    parts = []
    for _, own in cone.groupby("setting_key", sort=False):
        first = own[(own["kernel"] == own["kernel"].iloc[0]) & (own["step_i"] != own["step_j"])]
        earlier, later = first[["step_i", "step_j"]].min(axis=1), first[["step_i", "step_j"]].max(axis=1)
        pairs = first.assign(step_i=earlier, step_j=later).drop_duplicates(["seed", "step_i", "step_j"])
        lags = pairs["step_j"] - pairs["step_i"]
        for lag in _chosen(pairs.drop_duplicates(["step_i", "step_j"])):
            near = pairs[(lags - lag).abs() <= TOLERANCE * lag]
            parts.append(near.assign(named_lag=lag))
    return pd.concat(parts) if parts else cone.iloc[:0].assign(named_lag=np.nan)


def _chosen(pairs: pd.DataFrame) -> list[float]:
    """Lags a factor of two or more apart that many checkpoints are apart by, the shortest first."""
    lags = (pairs["step_j"] - pairs["step_i"]).to_numpy(dtype=float)
    chosen: list[float] = []
    for lag in np.sort(np.unique(lags)):
        if lag > lags.max() / 2 or len(chosen) == MOST_LAGS:
            break
        places = pairs.loc[np.abs(lags - lag) <= TOLERANCE * lag, "step_j"].nunique()
        if places >= LEAST_PLACES and lag >= lags.max() / 64 and (not chosen or lag >= 2 * chosen[-1]):
            chosen.append(float(lag))
    return chosen


def lag_words(rows: pd.DataFrame, labels: pd.Series) -> str:
    """Of each setting the distance at the shortest lag, at first and at last."""
    parts = []
    for key, own in rows.groupby("setting_key", sort=False):
        shortest = own[own["named_lag"] == own["named_lag"].min()]
        mean = shortest.groupby("step_j")["kernel_distance"].mean()
        parts.append(
            f"{labels[str(key)]}: {shortest['named_lag'].iloc[0]:g} steps apart, S is {mean.iloc[0]:.2g} at step "
            f"{mean.index[0]} and {mean.iloc[-1]:.2g} at {mean.index[-1]}"
        )
    return "; ".join(parts)

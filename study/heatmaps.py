"""Fork step against measure step: how far children are from their reference as training goes on."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from study.evidence import DIVERGED, Evidence, judged
from study.panels import MOST_COLUMNS
from study.shown_rows import of_push, setting_panels

INDICATORS = {
    "cosine_dissimilarity": "parameter dissimilarity 1 − cos",
    "test_barrier": "test barrier (nats)",
    "disagreement": "test disagreement",
}
"""What figures 3a to 3c of arXiv:2505.13900 show."""
LEAST_STEPS = 3
DECADES = 4.0
"""Of a logarithmic scale: what is smaller still is as good as nothing."""
NOWHERE = "#e4e4e4"


def measured_often(chaos: pd.DataFrame, transitions: pd.DataFrame) -> pd.DataFrame:
    """Children of the primary's push in settings that were compared at several steps."""
    rows = of_push(judged(chaos, Evidence()), transitions)
    counts = rows.groupby(["setting_key", "fork_step"])["measure_step"].nunique().groupby(level=0).max()
    return rows[rows["setting_key"].isin(counts.index[counts >= LEAST_STEPS])]


def heatmap_figure(
    chaos: pd.DataFrame, transitions: pd.DataFrame, axes: Sequence[str], indicator: str
) -> Figure | None:
    """An indicator over fork step t₀ (down) and measure step t₁ (across), a panel per setting, mean over seeds.

    Args:
        chaos: The `chaos` table.
        transitions: The `transitions` table; its primary's push is shown.
        axes: Leaves that tell settings apart.
        indicator: A key of `INDICATORS`.

    Returns:
        The figure, one colour scale for all panels; None where no setting was compared at three steps or more.
    """
    rows = measured_often(chaos, transitions)
    if rows.empty:
        return None
    values = rows[indicator].mask(rows["diverged"] | (rows["lost"] == DIVERGED))
    rows = rows.assign(value=values)
    figure, panels = setting_panels(rows, axes, 4.8, 3.7)
    tables = [(panel, heat(own)) for panel, own in panels]
    scale = _scale([table for _, table in tables], is_log=indicator == "cosine_dissimilarity")
    image = None
    for panel, table in tables:
        panel.set_facecolor(NOWHERE)
        image = panel.imshow(table.to_numpy(), cmap="cividis", norm=scale, interpolation="nearest", aspect="auto")
        _ticks(panel, table)
    down = -(-len(panels) // MOST_COLUMNS)
    figure.colorbar(
        image,  # type: ignore[arg-type]
        ax=[panel for panel, _ in panels],
        shrink=0.9 / down,
        anchor=(0.0, 1.0),
        label=INDICATORS[indicator],
    )
    return figure


def heat(rows: pd.DataFrame) -> pd.DataFrame:
    """[fork steps, measure steps]: means over seeds of means over directions; NaN where nothing is known."""
    seeds = rows.groupby(["fork_step", "measure_step", "seed"])["value"].mean()
    return seeds.groupby(level=[0, 1]).mean().unstack().sort_index().sort_index(axis=1)


def _scale(tables: Sequence[pd.DataFrame], *, is_log: bool) -> Normalize:
    values = np.concatenate([table.to_numpy().ravel() for table in tables])
    values = values[np.isfinite(values)]
    most = float(values.max(initial=0.0)) or 1.0
    if not is_log:
        return Normalize(0.0, most)
    positive = values[values > 0]
    least = max(float(positive.min(initial=most)), most * 10.0**-DECADES)
    return LogNorm(min(least, most / 10), most, clip=True)


def _ticks(panel: Axes, table: pd.DataFrame) -> None:
    panel.set_xticks(range(table.shape[1]), [f"{step:g}" for step in table.columns], fontsize=7.5, rotation=45)
    panel.set_yticks(range(table.shape[0]), [f"{step:g}" for step in table.index], fontsize=7.5)
    panel.set_xlabel("measure step $t_1$")
    panel.set_ylabel("fork step $t_0$")


def heatmap_words(rows: pd.DataFrame, indicator: str, labels: pd.Series) -> str:
    """The greatest value of each setting, and where it is."""
    parts = []
    for key, own in rows.groupby("setting_key", sort=False):
        table = heat(own.assign(value=own[indicator].mask(own["diverged"])))
        if table.notna().any(axis=None):
            fork, measured = table.max(axis=1).idxmax(), table.max().idxmax()
            parts.append(f"{labels[str(key)]}: greatest, {table.max().max():.2g}, forked at {fork} and at {measured}")
    return "; ".join(parts)

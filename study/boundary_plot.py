"""The boundary ε*(t₀): how large a push must be to send the run elsewhere, as training goes on."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.panels import COLOURS, legend, say_empty, step_axis
from study.shown_rows import setting_panels

Row = dict[str, float]


def primary_boundary(boundary: pd.DataFrame, transitions: pd.DataFrame) -> pd.DataFrame:
    """Rows of the primary's indicator, perturbation and measure step where several magnitudes were run."""
    headline = transitions[transitions["is_primary"]]
    if headline.empty:
        return boundary.iloc[:0]
    rows = boundary[boundary["num_magnitudes"] > 1]
    for column in ("indicator", "perturbation", "measure"):
        rows = rows[rows[column] == headline[column].iloc[0]]
    return rows


def boundary_figure(
    boundary: pd.DataFrame, transitions: pd.DataFrame, magnitudes: Sequence[float], axes: Sequence[str]
) -> Figure | None:
    """Critical magnitude over the fork step, a panel per setting, with intervals and what is censored.

    Args:
        boundary: The `boundary` table.
        transitions: The `transitions` table, whose primary is shown.
        magnitudes: Those that were run.
        axes: Leaves that tell settings apart.

    Returns:
        The figure; None where fewer than two magnitudes were run.
    """
    rows = primary_boundary(boundary, transitions)
    if rows.empty:
        return None
    least, most = min(magnitudes), max(magnitudes)
    figure, panels = setting_panels(rows.assign(seed=0), axes, 4.6, 3.5)
    for panel, found in panels:
        own = found.sort_values("fork_step")
        title = panel.get_title().rpartition(" · ")[0]  # seeds differ from fork step to fork step: told here
        seeds = sorted(set(own["num_seeds"]))
        panel.set_title(f"{title} · {seeds[0]} seeds" if len(seeds) == 1 else title, fontsize=9.5)
        for size in sorted(set(magnitudes)):
            panel.axhline(size, color="black", linewidth=0.7, linestyle=":")
        _draw(panel, own, least, most)
        panel.set_yscale("log")
        panel.set_ylim(least / 4, most * 4)
        step_axis(panel, float(own["fork_step"].max()))
        if (own["censoring"] == "undetermined").all():
            say_empty(panel, "undetermined: fewer than two seeds")
        panel.set_xlabel("fork step $t_0$")
        panel.set_ylabel("critical magnitude ε*")
    legend(figure, [panel for panel, _ in panels])
    return figure


def _draw(panel: Axes, rows: pd.DataFrame, least: float, most: float) -> None:
    found = rows[rows["censoring"] == "none"]
    low = np.clip(found["ci_low"], least / 3, None)
    high = np.clip(found["ci_high"], None, most * 3)
    panel.vlines(found["fork_step"], low, high, color=COLOURS[0], linewidth=1.4, label="95 % interval over seeds")
    panel.plot(found["fork_step"], found["critical_magnitude"], "-o", color=COLOURS[0], label="critical magnitude")
    for censoring, marker, place, label in (
        ("left", "v", least / 2, "below the smallest tested"),
        ("right", "^", most * 2, "above the largest tested"),
        ("both", "d", (least * most) ** 0.5, "seeds on both sides"),
    ):
        steps = rows.loc[rows["censoring"] == censoring, "fork_step"]
        if len(steps):
            panel.plot(steps, [place] * len(steps), marker, color=COLOURS[1], label=label)


def boundary_words(rows: pd.DataFrame, labels: pd.Series) -> str:
    """Every fork step's answer, setting by setting."""
    words = {"left": "below all tested", "right": "above all tested", "both": "on both sides"}
    parts = []
    for key, own in rows.sort_values("fork_step").groupby("setting_key", sort=False):
        told = [
            f"{row['critical_magnitude']:.2g} at {row['fork_step']}"
            if row["censoring"] == "none"
            else f"{words.get(str(row['censoring']), 'undetermined')} at {row['fork_step']}"
            for row in own.to_dict("records")
        ]
        parts.append(f"{labels[str(key)]}: {', '.join(told)}")
    return "; ".join(parts)

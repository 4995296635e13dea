"""The figure of linearised training: what a run reaches whose network is replaced by its expansion at some step."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from scipy.special import stdtrit

from study.labels import setting_labels
from study.panels import (
    COLOURS,
    CONTROL_COLOUR,
    MAX_PANELS,
    legend,
    make_panels,
    mark_diverged,
    name_panel,
    note_left_out,
    say_empty,
    step_axis,
    wrapped,
)

CONFIDENCE = 0.95
MEASURES = ("test_accuracy", "test_loss")
WIDE = 10.0
"""Losses that span more than this factor are drawn on a logarithmic axis."""


def switch_figure(switch: pd.DataFrame, axes: Sequence[str]) -> Figure:
    """Test accuracy and test loss at the end over the switch step, a row of two panels per setting.

    Args:
        switch: The `switch` table.
        axes: Leaves that tell settings apart.

    Returns:
        The figure. Thin lines are seeds, thick ones their mean, shaded its interval; dashed, the unswitched run.
    """
    labels = setting_labels(switch, axes)
    keys = list(labels.index)[: MAX_PANELS // len(MEASURES)]
    figure, panels = make_panels(len(MEASURES) * len(keys), 4.6, 3.3, columns=len(MEASURES))
    for i, key in enumerate(keys):
        rows = switch[switch["setting_key"] == key]
        for panel, measure, colour in zip(panels[len(MEASURES) * i :], MEASURES, COLOURS, strict=False):
            name_panel(panel, str(key))
            _draw(panel, rows, measure, colour)
            panel.set_title(wrapped(str(labels[key])), fontsize=9.5)
    legend(figure, panels)
    note_left_out(figure, len(labels) - len(keys))
    return figure


def switch_words(switch: pd.DataFrame, axes: Sequence[str]) -> str:
    """Say what each setting's earliest and latest linearised runs reach, and the unswitched run beside them."""
    labels = setting_labels(switch, axes)
    parts = []
    for key in labels.index:
        seeds = per_seed(switch[switch["setting_key"] == key], "test_accuracy")
        mean, end = seeds.mean(axis=1, skipna=False), int(switch[switch["setting_key"] == key]["num_steps"].iloc[0])
        runs = [step for step in mean.index if step < end]
        told = [f"{_said(mean[step])} from step {step}" for step in dict.fromkeys([*runs[:1], *runs[-1:]])]
        unswitched = [f"{_said(mean[end])} unswitched"] if end in mean.index else []
        parts.append(f"{labels[key]}: {', '.join([*told, *unswitched])}")
    return "; ".join(parts)


def per_seed(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A measure of one setting, [switch steps, seeds]; NaN where a run diverged."""
    return rows.pivot(index="switch_step", columns="seed", values=measure).sort_index()


def mean_interval(seeds: pd.DataFrame) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Mean over seeds and its interval at each step, mean ± t s / √n (Student); NaN where a seed is missing.

    Args:
        seeds: [steps, n seeds].

    Returns:
        Mean, lower and upper end; no interval of a single seed.
    """
    mean, num_seeds = seeds.mean(axis=1, skipna=False), seeds.shape[1]
    if num_seeds < 2:
        return mean, mean * np.nan, mean * np.nan
    reach = float(stdtrit(num_seeds - 1, (1 + CONFIDENCE) / 2)) / np.sqrt(num_seeds)
    spread = seeds.std(axis=1, ddof=1, skipna=False) * reach
    return mean, mean - spread, mean + spread


def _draw(panel: Axes, rows: pd.DataFrame, measure: str, colour: str) -> None:
    end = int(rows["num_steps"].iloc[0])
    seeds = per_seed(rows, measure)
    runs, unswitched = seeds[seeds.index < end], seeds[seeds.index == end]
    mean, low, high = mean_interval(runs)
    panel.plot(runs.index, runs, color=colour, linewidth=0.7, alpha=0.35)
    panel.fill_between(runs.index, low, high, color=colour, alpha=0.15, linewidth=0)
    name = measure.replace("_", " ")
    panel.plot(runs.index, mean, color=colour, linewidth=2, marker="o", markersize=3.5, label=f"linearised: {name}")
    for value, least, most in zip(*mean_interval(unswitched), strict=True):
        panel.axhspan(least, most, color=CONTROL_COLOUR, alpha=0.18, linewidth=0)
        panel.axhline(value, color=CONTROL_COLOUR, linestyle="--", linewidth=1.4, label="never switched")
    _scale(panel, seeds, measure)
    step_axis(panel, end)
    diverged = rows[rows["diverged"] & (rows["switch_step"] < end)]
    mark_diverged(panel, sorted(set(diverged["switch_step"])), colour)
    if not seeds.notna().any(axis=None):
        say_empty(panel, "every run diverged")
    panel.set_xlabel("switch step $t$")
    panel.set_ylabel(f"{name} at the end" + (" (nats)" if measure == "test_loss" else ""))


def _scale(panel: Axes, seeds: pd.DataFrame, measure: str) -> None:
    """As much of the axis as the runs themselves need: an interval of few seeds may reach far beyond."""
    known = seeds.to_numpy()[np.isfinite(seeds.to_numpy())]
    if not len(known):
        return
    least, most = float(known.min()), float(known.max())
    if measure == "test_loss" and least > 0 and most > WIDE * least:
        panel.set_yscale("log")
        panel.set_ylim(least / 1.3, most * 1.3)
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.minorticks_off()
        return
    room = max(0.1 * (most - least), 0.02)
    panel.set_ylim(max(0.0, least - room), most + room if measure == "test_loss" else min(1.0, most + room))


def _said(value: float) -> str:
    return "diverged in some seed" if np.isnan(value) else f"{value:.2f}"

"""A whole sweep at a glance: every setting small, the law that transitions follow, and chaos against cone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.comparing import Comparison
from study.kernel_transitions import KERNEL_VELOCITY
from study.labels import setting_labels
from study.panels import COLOURS, CONTROL_COLOUR, legend, make_panels, name_panel, note_left_out, step_axis, wrapped
from study.plots import marked_estimate, primary_children, seed_values
from study.shown_rows import of_controls, of_push, seeds_text
from study.summary import records

LEAST_SMALL, MOST_SMALL, SMALL_COLUMNS = 3, 60, 6
MOST_COLOURED = len(COLOURS)
STEEPEST = 50.0
"""Nats per octave, as good as upright."""


def overview_figure(
    chaos: pd.DataFrame, transitions: pd.DataFrame, axes: Sequence[str], indicator: str
) -> Figure | None:
    """The primary's curve of every setting in a small panel, on common axes.

    Args:
        chaos: The `chaos` table.
        transitions: The `transitions` table.
        axes: Leaves that tell settings apart.
        indicator: Column to show.

    Returns:
        The figure; None with fewer than three settings.
    """
    rows = primary_children(chaos, transitions)
    rows = rows.assign(value=seed_values(rows, indicator).replace(np.inf, np.nan))
    labels = setting_labels(chaos, axes)
    if len(labels) < LEAST_SMALL:
        return None
    keys = list(labels.index)[:MOST_SMALL]
    columns = min(SMALL_COLUMNS, math.ceil(math.sqrt(len(keys))))
    figure, panels = make_panels(len(keys), 1.75, 1.6, columns)
    top = 1.1 * float(rows["value"].max()) if rows["value"].notna().any() else 1.0
    for place, (panel, key) in enumerate(zip(panels, keys, strict=False)):
        name_panel(panel, str(key))
        own = rows[rows["setting_key"] == key]
        _small(panel, own, transitions, marked_estimate(transitions, str(key), indicator))
        step_axis(panel, float(rows["fork_step"].max()))
        panel.tick_params(labelsize=6)
        panel.set_xticks([tick for tick in panel.get_xticks() if tick in (0, 10, 100, 1000, 10_000)])
        panel.set_ylim(-0.03 * top, top)
        panel.set_title(wrapped(str(labels[key]), 26), fontsize=6.5)
        if place % columns == 0:
            panel.set_ylabel(indicator.replace("_", " "), fontsize=6.5)
        if place >= len(keys) - columns:
            panel.set_xlabel("fork step $t_0$", fontsize=6.5)
    note_left_out(figure, len(labels) - len(keys))
    return figure


def _small(panel: Axes, rows: pd.DataFrame, transitions: pd.DataFrame, found: pd.Series | None) -> None:
    for chosen, colour, style in (
        (of_controls(rows), CONTROL_COLOUR, "--"),
        (of_push(rows, transitions), COLOURS[0], "-"),
    ):
        if len(chosen):
            seeds = chosen.groupby(["fork_step", "seed"])["value"].mean().unstack()
            panel.plot(seeds.index, seeds.mean(axis=1), style, color=colour, linewidth=1.3)
            panel.fill_between(seeds.index, seeds.min(axis=1), seeds.max(axis=1), color=colour, alpha=0.15, linewidth=0)
    if found is not None:
        panel.axhline(found["threshold"], color="black", linewidth=0.7, linestyle=":")
        if found["verdict"] == "located":
            panel.axvline(found["transition_step"], color="black", linewidth=0.9)


def trend_figure(courses: Comparison, axis: str, settings: pd.DataFrame, axes: Sequence[str]) -> Figure | None:
    """Crossings of seeds over a numeric axis, with the fitted power and its interval.

    Args:
        courses: `study.comparing.all_trends`.
        axis: One of its axes.
        settings: Rows with `setting_key` and all leaves.
        axes: Leaves that tell settings apart.

    Returns:
        The figure, both axes logarithmic; None where no law was fitted.
    """
    law = courses.trends
    law = law[(law["axis"] == axis) & (law["unit"] == "steps") & law["per_octave"].notna()]
    if law.empty:
        return None
    row = records(law)[0]
    points = courses.pushes[(courses.pushes["step"] > 0) & (courses.pushes["magnitude"] == row["magnitude"])]
    if points.empty or (points[axis] <= 0).any():
        return None
    figure, (panel,) = make_panels(1, 6.4, 4.4)
    panel.set_xscale("log")
    panel.set_yscale("log")
    _points(panel, points, axis, settings, axes)
    _law(panel, points, axis, row)
    values = sorted(set(points[axis]))
    panel.set_xticks(values, [f"{value:g}" for value in values])
    panel.minorticks_off()
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.set_xlabel(axis.replace("_", " "))
    panel.set_ylabel("step at which a seed settles")
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_title(wrapped(trend_words(row), 74), fontsize=9.5)
    legend(figure, [panel])
    return figure


def trend_words(row: Mapping[str, Any]) -> str:
    """What was fitted, with its interval and what it rests on."""
    adjusted = f", adjusted for {row['adjusted_for']}" if row["adjusted_for"] else ""
    return (
        f"× {row['per_octave']:.3g} [{row['ci_low']:.3g}, {row['ci_high']:.3g}] for each doubling of "
        f"{str(row['axis']).replace('_', ' ')}{adjusted}; {row['num_settings']} settings, {row['num_seeds']} seeds; "
        f"{row['verdict']} (p {row['p_holm']:.2g}, Holm)"
    )


def _points(panel: Axes, points: pd.DataFrame, axis: str, settings: pd.DataFrame, axes: Sequence[str]) -> None:
    others = [leaf for leaf in axes if leaf != axis]
    groups = setting_labels(settings[settings["setting_key"].isin(points["setting_key"])], others)
    names = groups.str.replace(r" · [0-9a-f]{6}$", "", regex=True)
    kinds = list(dict.fromkeys(names))
    spread = np.linspace(-0.012, 0.012, max(2, points["seed"].nunique()))
    for i, kind in enumerate(kinds):
        own = points[points["setting_key"].map(names) == kind]
        colour = COLOURS[i % MOST_COLOURED] if len(kinds) <= MOST_COLOURED else COLOURS[0]
        places = own[axis] * np.exp(spread[own["seed"].rank(method="dense").astype(int) - 1])
        is_open = ~np.isfinite(own["step"])
        label = kind if len(kinds) <= MOST_COLOURED else "a seed" if i == 0 else None
        panel.plot(places[~is_open], own.loc[~is_open, "step"], "o", color=colour, alpha=0.6, markersize=4, label=label)
        panel.plot(places[is_open], own.loc[is_open, "low"], "^", color=colour, markersize=6)


def _law(panel: Axes, points: pd.DataFrame, axis: str, row: Mapping[str, Any]) -> None:
    steps = points["step"].where(np.isfinite(points["step"]), points["low"]).clip(lower=1.0)
    centre_x, centre_y = float(np.log2(points[axis]).mean()), float(np.log(steps).mean())
    grid = np.linspace(float(np.log2(points[axis]).min()), float(np.log2(points[axis]).max()), 50)
    with np.errstate(divide="ignore"):  # an open end is a power without bound
        powers = np.log([float(row[name]) for name in ("per_octave", "ci_low", "ci_high")]).clip(-STEEPEST, STEEPEST)
    line, low, high = (np.exp(centre_y + power * (grid - centre_x)) for power in powers)
    panel.plot(2.0**grid, line, color="black", linewidth=1.4, label="fitted power")
    reach = (float(steps.min()) / 4, float(steps.max()) * 4)
    least, most = np.minimum(low, high).clip(*reach), np.maximum(low, high).clip(*reach)
    panel.fill_between(2.0**grid, least, most, color="black", alpha=0.1, linewidth=0, label="its 95 % interval")
    panel.set_ylim(reach[0] * 2, reach[1] / 2)


def agreement_figure(transitions: pd.DataFrame, settings: pd.DataFrame, axes: Sequence[str]) -> Figure | None:
    """The kernel's transition over the barrier's, a point per setting and kind of kernel, with the identity.

    Args:
        transitions: The `transitions` table.
        settings: Rows with `setting_key`, `seed` and all leaves.
        axes: Leaves that tell settings apart.

    Returns:
        The figure, logarithmic in 1 + t; None where no kernel was followed, or no transition of either was located.
    """
    primary, of_kernel = (
        transitions[transitions["is_primary"]],
        transitions[transitions["indicator"] == KERNEL_VELOCITY],
    )
    both = primary.merge(of_kernel, on="setting_key", suffixes=("", "_kernel"))
    is_located, is_located_kernel = both["verdict"] == "located", both["verdict_kernel"] == "located"
    if not (is_located | is_located_kernel).any():
        return None
    labels = setting_labels(settings, axes)
    end = float(settings["num_steps"].max())
    figure, (panel,) = make_panels(1, 6.0, 5.0)
    step_axis(panel, end)
    panel.set_yscale("function", functions=(np.log1p, np.expm1))
    panel.set_yticks(panel.get_xticks())
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.set_ylim(panel.get_xlim())
    panel.plot([0, end], [0, end], color="black", linewidth=0.9, linestyle=":", label="identity")
    for i, row in enumerate(records(both)):
        name = wrapped(f"{labels[row['setting_key']]} · {row['kernel_kernel']}", 40)
        _dated(panel, row, COLOURS[i % len(COLOURS)], "osD^vP"[i // len(COLOURS) % 6], name, end)
    panel.set_xlabel(f"transition of the {str(both['indicator'].iloc[0]).replace('_', ' ')} (fork step)")
    panel.set_ylabel("kernel's own transition (step)")
    panel.set_title(
        f"{int((is_located & is_located_kernel).sum())} of {len(both)} have both; {seeds_text(settings)}", fontsize=9.5
    )
    legend(figure, [panel])
    return figure


def _dated(panel: Axes, row: Mapping[str, Any], colour: str, marker: str, name: str, end: float) -> None:
    has = [row["verdict"] == "located", row["verdict_kernel"] == "located"]
    x, y = row["transition_step"], row["transition_step_kernel"]
    spans = [(row[f"ci_low{s}"], min(row[f"ci_high{s}"], end)) for s in ("", "_kernel")]
    if all(has):
        panel.plot(spans[0], [y, y], color=colour, linewidth=1.2)
        panel.plot([x, x], spans[1], color=colour, linewidth=1.2)
        panel.plot([x], [y], marker, color=colour, markersize=7, label=name)
    elif has[0]:
        low = panel.get_ylim()[0]
        panel.plot(
            [x], [low], marker, color=colour, markerfacecolor="white", clip_on=False, label=f"{name}: barrier's alone"
        )
    elif has[1]:
        left = panel.get_xlim()[0]
        panel.plot(
            [left], [y], marker, color=colour, markerfacecolor="white", clip_on=False, label=f"{name}: kernel's alone"
        )
    else:
        panel.plot([], [], marker, color=colour, markerfacecolor="white", label=f"{name}: neither")

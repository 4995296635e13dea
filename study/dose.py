"""Dose and response: an indicator over the magnitude of the push, with controls as its ceiling."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from study.labels import setting_labels
from study.panels import (
    CONTROL_COLOUR,
    MAX_PANELS,
    MOST_COLUMNS,
    legend,
    make_panels,
    mark_diverged,
    name_panel,
    note_left_out,
    say_empty,
    wrapped,
)
from study.plots import marked_estimate, primary_children, seed_values
from twophase.perturb import ORDER

MOST_FORK_STEPS = 6
MOST_GRID_COLUMNS = 4
OUTLYING = 4.0
"""A panel that reaches higher than this many times the median one has its own scale: it would flatten all others."""


@dataclass(frozen=True)
class Doses:
    """What a dose figure shows.

    Attributes:
        children: Children of one kind, with `value`.
        controls: Controls, with `value`.
        kind: The kind of perturbation.
        fork_steps: Those shown, ascending: the first, the last and some between.
    """

    children: pd.DataFrame
    controls: pd.DataFrame
    kind: str
    fork_steps: tuple[int, ...]


def doses(chaos: pd.DataFrame, transitions: pd.DataFrame, indicator: str) -> Doses | None:
    """Choose the rows of a dose figure; None where fewer than two magnitudes were run.

    Args:
        chaos: The `chaos` table.
        transitions: The `transitions` table; its primary names kind and measure step.
        indicator: Column to show.
    """
    rows = primary_children(chaos, transitions)
    rows = rows.assign(value=seed_values(rows, indicator))
    pushed = rows[rows["perturbation"] != ORDER]
    headline = transitions[transitions["is_primary"]]
    kinds = list(headline["perturbation"].unique()) + list(pushed["perturbation"].unique())
    for kind in kinds[:1]:
        children = pushed[pushed["perturbation"] == kind]
        if children["magnitude"].nunique() > 1:
            steps = np.sort(children["fork_step"].unique())
            places = np.linspace(0, len(steps) - 1, min(MOST_FORK_STEPS, len(steps))).round().astype(int)
            shown = tuple(int(step) for step in steps[np.unique(places)])
            return Doses(children, rows[rows["perturbation"] == ORDER], str(kind), shown)
    return None


def dose_figure(
    chaos: pd.DataFrame, transitions: pd.DataFrame, axes: Sequence[str], indicator: str = "test_barrier"
) -> Figure | None:
    """An indicator over the magnitude, a line per fork step, a panel per setting; controls at the right edge.

    Where two leaves vary, panels form their grid, e.g. learning rates down and activations across. One scale for all,
    but for panels that reach so much higher that they would flatten the others: those say that they have their own.

    Args:
        chaos: The `chaos` table.
        transitions: The `transitions` table.
        axes: Leaves that tell settings apart.
        indicator: Column to show.

    Returns:
        The figure; None where fewer than two magnitudes were run. Lines are means over seeds; the shade about the
        first fork step's is its seeds' range, and the grey band that of its controls.
    """
    shown = doses(chaos, transitions, indicator)
    if shown is None:
        return None
    labels = setting_labels(chaos, axes)
    grid = _grid(chaos, labels, axes)
    columns = len(grid[0]) if grid else min(MOST_COLUMNS, len(labels))
    cells = [cell for row in grid for cell in row] if grid else list(labels.index)[:MAX_PANELS]
    figure, panels = make_panels(len(cells), 3.5 if grid else 4.6, 3.0 if grid else 3.5, columns)
    primary = transitions[transitions["is_primary"] & (transitions["indicator"] == indicator)]
    tops = _tops(shown, [key for key in cells if key is not None])
    common = max(top for top in tops.values() if top <= OUTLYING * float(np.median(list(tops.values()))))
    for place, (panel, key) in enumerate(zip(panels, cells, strict=True)):
        if key is None:
            panel.set_visible(False)
            continue
        name_panel(panel, key)
        _panel(panel, shown, key)
        if not shown.children.loc[shown.children["setting_key"] == key, "value"].notna().any():
            row = marked_estimate(transitions, key, indicator)
            say_empty(panel, "" if row is None else str(row["reason"]))
        if len(primary):
            threshold = primary["threshold"].iloc[0]
            panel.axhline(threshold, color="black", linewidth=0.9, linestyle=":", label=f"threshold {threshold:g}")
        top = max(common, tops[key])
        panel.set_ylim(-0.03 * top, top)
        if top > common:
            panel.text(
                0.02, 0.97, "a scale of its own", transform=panel.transAxes, va="top", fontsize=8, style="italic"
            )
        panel.set_title(wrapped(str(labels[key]), 40), fontsize=9.5)
        if place % columns == 0:
            panel.set_ylabel(indicator.replace("_", " "))
        panel.set_xlabel(f"magnitude of {shown.kind.replace('_', ' ')}")
    legend(figure, panels)
    note_left_out(figure, 0 if grid else len(labels) - len(cells))
    return figure


def dose_words(shown: Doses, labels: Mapping[str, str]) -> str:
    """The first fork step's line and controls in words, setting by setting."""
    first = shown.fork_steps[0]
    parts = []
    for key, label in labels.items():
        children = shown.children[(shown.children["setting_key"] == key) & (shown.children["fork_step"] == first)]
        controls = shown.controls[(shown.controls["setting_key"] == key) & (shown.controls["fork_step"] == first)]
        means = children.groupby("magnitude")["value"].mean()
        said = [f"{_number(value)} at {size:g}" for size, value in means.items()]
        said += [f"{_number(controls['value'].mean())} for controls"] if len(controls) else []
        parts.append(f"{label}: {', '.join(said)}")
    return f"Forked at step {first}, means over seeds. {'; '.join(parts)}"


def _number(value: float) -> str:
    return "unknown" if np.isnan(value) else "diverged" if np.isinf(value) else f"{value:.2f}"


def _grid(chaos: pd.DataFrame, labels: pd.Series, axes: Sequence[str]) -> list[list[str | None]]:
    """Setting keys by the values of the two leaves that vary; empty where other than two do, or too many values."""
    settings = chaos.drop_duplicates("setting_key").set_index("setting_key")
    varying = [axis for axis in axes if settings[axis].nunique() > 1]
    if len(varying) != 2:
        return []
    across, down = sorted(varying, key=lambda axis: settings[axis].dtype.kind in "if")
    table = pd.Series(settings.index, index=[settings[down], settings[across]])
    if table.index.has_duplicates or settings[across].nunique() > MOST_GRID_COLUMNS:
        return []
    order = [settings.loc[list(labels.index), axis].drop_duplicates() for axis in (down, across)]
    if len(order[0]) * len(order[1]) > MAX_PANELS:
        return []
    return [[table.get((row, column)) for column in order[1]] for row in sorted(order[0])]


def _tops(shown: Doses, keys: Sequence[str]) -> dict[str, float]:
    """How high each setting's panel has to reach: its greatest mean over seeds, and its first children's seeds."""
    values = pd.concat([shown.children, shown.controls])
    values = values[values["fork_step"].isin(shown.fork_steps) & np.isfinite(values["value"].astype(float))]
    dose = ["setting_key", "perturbation", "fork_step", "magnitude"]
    seeds = values.groupby([*dose, "seed"])["value"].mean()
    drawn = [seeds.groupby(level=dose).mean(), seeds[seeds.index.get_level_values("fork_step") == shown.fork_steps[0]]]
    greatest = pd.concat([part.groupby(level="setting_key").max() for part in drawn]).groupby(level=0).max()
    return {key: 1.06 * float(greatest.get(key, 0.0)) or 1.0 for key in keys}


def _panel(panel: Axes, shown: Doses, key: str) -> None:
    children = shown.children[shown.children["setting_key"] == key]
    controls = shown.controls[shown.controls["setting_key"] == key]
    sizes = np.sort(shown.children["magnitude"].unique())
    control_place = float(sizes[-1] * (sizes[-1] / sizes[0]) ** (0.9 / len(sizes)))
    colours = mpl.colormaps["viridis"](np.linspace(0.0, 0.9, len(shown.fork_steps)))
    for i, (step, colour) in enumerate(zip(shown.fork_steps, map(mpl.colors.to_hex, colours), strict=True)):
        seeds = children[children["fork_step"] == step].groupby(["magnitude", "seed"])["value"].mean().unstack()
        mean = seeds.mean(axis=1)
        width = 2.2 if i == 0 else 1.3
        panel.plot(mean.index, mean, "-o", color=colour, linewidth=width, markersize=4, label=f"forked at {step}")
        mark_diverged(panel, list(seeds.index[np.isinf(seeds.to_numpy()).any(axis=1)]), colour)
        of_controls = controls[controls["fork_step"] == step].groupby("seed")["value"].mean()
        finite = of_controls[np.isfinite(of_controls)]
        if i == 0:
            panel.fill_between(seeds.index, seeds.min(axis=1), seeds.max(axis=1), color=colour, alpha=0.15, linewidth=0)
            if len(finite):
                panel.axhspan(finite.min(), finite.max(), color=CONTROL_COLOUR, alpha=0.15, linewidth=0)
                panel.axhline(
                    finite.mean(),
                    color=CONTROL_COLOUR,
                    linestyle="--",
                    linewidth=1.2,
                    label=f"control, forked at {step}",
                )
        if len(finite):
            panel.vlines(control_place, finite.min(), finite.max(), color=colour, linewidth=1.2)
            panel.plot([control_place], [finite.mean()], "D", color=colour, markersize=4.5)
        mark_diverged(panel, [control_place] if np.isinf(of_controls).any() else [], colour)
    panel.set_xscale("log")
    panel.set_xlim(sizes[0] * (sizes[0] / control_place) ** 0.06, control_place * (control_place / sizes[0]) ** 0.06)
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xticks([*sizes, control_place], [*(f"{size:g}" for size in sizes), "control"], fontsize=8)
    panel.spines[["top", "right"]].set_visible(False)

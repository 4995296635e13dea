"""Figures of a run's kernels as directions: their velocity, their angle to some steps, and their cone in space."""

from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.confinements import setting_verdicts
from study.kernel_paths import KernelPath, kernel_paths
from study.kernel_transitions import kernel_breaks
from study.labels import setting_labels
from study.panels import (
    COLOURS,
    CONTROL_COLOUR,
    KERNEL_COLOUR,
    MAX_PANELS,
    legend,
    make_panels,
    name_panel,
    note_left_out,
    say_empty,
    step_axis,
    wrapped,
)
from study.plots import kernel_estimate
from study.summary import interval_text
from twophase.cone import angles, angles_of, coordinates, distances
from twophase.enclosing_cone import enclosing_cone
from twophase.kernel_transition import LEAST_LR

WHAT = "panels (a setting's kind of kernel)"


def velocity_figure(cone: pd.DataFrame, transitions: pd.DataFrame, axes: Sequence[str]) -> Figure:
    """Angle turned per step between checkpoints, on logarithmic axes, every seed; the kernel's transition if located.

    Args:
        cone: The `cone` table.
        transitions: The `transitions` table.
        axes: Leaves that tell settings apart.

    Returns:
        The figure. Diamonds are seeds' own breaks; hollow points are gaps that the test leaves out, where the learning
        rate has all but ended.
    """
    breaks = kernel_breaks(cone)
    figure, shown = _panels(cone, axes, 3.7)
    for panel, key, kernel, label, paths in shown:
        own = breaks[(breaks["setting_key"] == key) & (breaks["kernel"] == kernel)].sort_values("seed")
        is_moving = [
            _velocity(panel, path, COLOURS[i % len(COLOURS)], found.step)
            for i, (path, found) in enumerate(zip(paths, own["found"], strict=True))
        ]
        row = kernel_estimate(transitions, key, kernel)
        if any(is_moving):
            panel.set_xscale("log")
            panel.set_yscale("log")
        else:
            say_empty(panel, "the kernel doesn't move, or isn't finite")
        panel.set_xlabel("step (middle of the gap)")
        panel.set_ylabel("radians per step")
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_title("\n".join(filter(None, [label, _break_words(panel, row)])), fontsize=9.5)
    legend(figure, [panel for panel, *_ in shown])
    return figure


def _velocity(panel: Axes, path: KernelPath, colour: str, break_step: float) -> bool:
    """Draw one seed's; tell whether there is anything to see."""
    gaps = np.diff(path.steps)
    turned = np.diag(angles(path.gram), 1) / gaps
    rates = np.diff(path.lr_integral) / gaps
    middle = np.expm1((np.log1p(path.steps[1:]) + np.log1p(path.steps[:-1])) / 2)
    turned = np.where(turned > 0, turned, np.nan)
    is_kept = rates >= LEAST_LR * rates.max(initial=0.0)
    panel.plot(middle, turned, "-", color=colour, linewidth=0.9, alpha=0.6)
    panel.plot(middle[is_kept], turned[is_kept], "o", color=colour, markersize=3, label=f"seed {path.keys['seed']}")
    panel.plot(middle[~is_kept], turned[~is_kept], "o", color=colour, markersize=3.5, markerfacecolor="white")
    if np.isfinite(break_step):
        place = float(np.exp(np.interp(np.log(break_step), np.log(middle), np.log(turned))))
        panel.plot(
            [break_step], [place], "D", color=colour, markersize=7, markeredgecolor="black", label="a seed's break"
        )
    return bool(np.isfinite(turned).any())


def _break_words(panel: Axes, row: pd.Series | None) -> str:
    if row is None:
        return ""
    if row["verdict"] != "located":
        return wrapped(f"kernel: {row['reason']}", 56)
    right = panel.get_xlim()[1]
    panel.axvspan(max(row["ci_low"], 0.5), min(row["ci_high"], right), color="#F0E442", alpha=0.35, linewidth=0)
    panel.axvline(row["transition_step"], color=KERNEL_COLOUR, linewidth=1.3)
    return f"kernel transition {row['transition_step']:.0f} {interval_text(row.to_dict())}"


def angle_figure(cone: pd.DataFrame, confinement: pd.DataFrame, axes: Sequence[str]) -> Figure:
    """Angle to the kernel at some steps τ, over the step, mean over seeds with their range, with verdicts.

    Args:
        cone: The `cone` table.
        confinement: The `confinement` table.
        axes: Leaves that tell settings apart.

    Returns:
        The figure. Dotted: the mean angle of a random walk of the same steps, arccos Π cos α_k, whatever its dimension.
    """
    verdicts = setting_verdicts(confinement)
    figure, shown = _panels(cone, axes, 4.2)
    for panel, key, kernel, label, paths in shown:
        chosen = verdicts[(verdicts["setting_key"] == key) & (verdicts["kernel"] == kernel)]
        taus = [row for row in chosen.to_dict("records") if all(row["tau_step"] in path.steps for path in paths)]
        colours = mpl.colormaps["viridis"](np.linspace(0.0, 0.9, max(len(taus), 1)))
        for row, colour in zip(taus, map(mpl.colors.to_hex, colours), strict=False):
            _angles(panel, paths, row, colour)
        if not taus:
            say_empty(panel, "no step τ of all seeds was tested")
        step_axis(panel, max(path.steps[-1] for path in paths))
        panel.set_ylim(0, 95)
        panel.set_yticks(range(0, 91, 15))
        panel.set_xlabel("step")
        panel.set_ylabel("angle to the kernel at τ (degrees)")
        panel.set_title(label, fontsize=9.5)
        if taus:
            panel.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(0.0, -0.16), ncols=2)
    return figure


def _angles(panel: Axes, paths: Sequence[KernelPath], row: dict[Any, Any], colour: str) -> None:
    tau = row["tau_step"]
    curves, walks = [], []
    for path in paths:
        first = int(np.flatnonzero(path.steps == tau)[0])
        found = angles(path.gram)
        curves.append(pd.Series(np.degrees(found[first, first:]), path.steps[first:]))
        cosines = np.cumprod([1.0, *np.cos(np.diag(found, 1)[first:])])
        walks.append(pd.Series(np.degrees(angles_of(1.0 - cosines)), path.steps[first:]))
    seeds, walk = pd.concat(curves, axis=1), pd.concat(walks, axis=1)
    label = f"τ {tau}: {row['verdict'].replace('_', ' ')} ({row['votes']})"
    panel.plot(seeds.index, seeds.mean(axis=1), "-o", color=colour, markersize=3, linewidth=1.6, label=label)
    panel.fill_between(seeds.index, seeds.min(axis=1), seeds.max(axis=1), color=colour, alpha=0.15, linewidth=0)
    panel.plot(walk.index, walk.mean(axis=1), ":", color=colour, linewidth=1.1)


def cone_figure(cone: pd.DataFrame, confinement: pd.DataFrame, axes: Sequence[str]) -> Figure:
    """Unit kernels in space, with the smallest cone that holds those from a step τ on (arXiv:2505.13900, figure 5c).

    Args:
        cone: The `cone` table.
        confinement: The `confinement` table: τ is its step nearest to a quarter of the run.
        axes: Leaves that tell settings apart.

    Returns:
        The figure: the first seed of each setting, whose axis is the cone's and whose other two are principal
        components: a point may lie farther from the axis than it looks, and none nearer.
    """
    figure, shown = _panels(cone, axes, 4.6, projection="3d")
    for panel, key, kernel, label, paths in shown:
        path = paths[0]
        own = confinement[(confinement["setting_key"] == key) & (confinement["kernel"] == kernel)]
        taus = own.loc[own["trial_key"] == path.keys["trial_key"], "tau_step"].to_numpy(dtype=float)
        first = 0 if not len(taus) else int(np.flatnonzero(path.steps == _middle_tau(taus, path.steps[-1]))[0])
        words = _cone_in_space(panel, path, first)
        panel.set_title("\n".join([label, wrapped(f"seed {path.keys['seed']}: {words}")]), fontsize=9.5)
    return figure


def _middle_tau(taus: np.ndarray, end: float) -> float:
    return float(taus[np.abs(taus - end / 4).argmin()])


def _cone_in_space(panel: Any, path: KernelPath, first: int) -> str:
    between = distances(path.gram)
    found = enclosing_cone(between[first:, first:])
    weights = np.concatenate([np.zeros(first), found.weights])
    placed = coordinates(between, weights) if np.isfinite(found.half_angle) else None
    if placed is None or not np.isfinite(placed.points).all():
        panel.set_axis_off()
        return "a kernel isn't finite"
    x, y, z = placed.points.T
    panel.plot(x, y, z, "-", color=CONTROL_COLOUR, linewidth=0.8)
    colours = np.log1p(path.steps)
    panel.scatter(x, y, z, c=colours, cmap="viridis", s=22, depthshade=False)
    for i in sorted({0, first, len(x) - 1}):
        panel.text(x[i], y[i], z[i], f" {path.steps[i]:.0f}", fontsize=8)
    turn, along = np.meshgrid(np.linspace(0, 2 * np.pi, 49), [0.0, 1.0])
    radius = along * np.sin(found.half_angle)
    surface = (radius * np.cos(turn), radius * np.sin(turn), along * np.cos(found.half_angle))
    panel.plot_surface(*surface, color=KERNEL_COLOUR, alpha=0.18, linewidth=0)
    panel.plot(*(part[1] for part in surface), color=KERNEL_COLOUR, linewidth=1.0)
    reach = max(float(np.abs(placed.points[:, :2]).max()), float(np.sin(found.half_angle)), 1e-3)
    panel.set_xlim(-reach, reach)
    panel.set_ylim(-reach, reach)
    panel.set_zlim(0, 1.02)
    panel.set_box_aspect((2 * reach, 2 * reach, 1.02), zoom=1.1)
    panel.view_init(elev=14, azim=-60)
    panel.tick_params(labelsize=6.5, pad=-1)
    panel.xaxis.set_major_locator(mpl.ticker.MaxNLocator(3))
    panel.yaxis.set_major_locator(mpl.ticker.MaxNLocator(3))
    return (
        f"cone of {np.degrees(found.half_angle):.0f}° from step {path.steps[first]:.0f} on; "
        f"{placed.shown_fraction:.0%} of what is off its axis seen"
    )


_Panel = tuple[Any, str, str, str, list[KernelPath]]


def _panels(
    cone: pd.DataFrame, axes: Sequence[str], height: float, projection: str | None = None
) -> tuple[Figure, list[_Panel]]:
    """A panel for each setting and kind of kernel, in the order of their labels, with its paths."""
    labels = setting_labels(cone, axes)
    groups: dict[tuple[str, str], list[KernelPath]] = {}
    for path in sorted(kernel_paths(cone), key=lambda path: int(path.keys["seed"])):
        groups.setdefault((path.keys["setting_key"], path.kernel), []).append(path)
    pairs = [pair for key in labels.index for pair in groups if pair[0] == key]
    figure, panels = make_panels(min(len(pairs), MAX_PANELS), 4.6, height, projection=projection)
    note_left_out(figure, len(pairs) - MAX_PANELS, "settings" if len(pairs) == len(labels) else WHAT)

    def each() -> Iterator[_Panel]:
        for panel, pair in zip(panels, pairs, strict=False):
            name_panel(panel, pair[0])
            yield panel, *pair, wrapped(f"{labels[pair[0]]} · {pair[1]} kernel"), groups[pair]

    return figure, list(each())

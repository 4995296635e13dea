"""Figures: each takes tables and returns a `Figure`; none reads a file."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from study.analysis import is_measure
from twophase.perturb import NONE, ORDER

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito (2008), safe for all eyes
CONTROL_COLOUR = "#777777"
MAX_PANELS = 24


def setting_labels(frame: pd.DataFrame, axes: Sequence[str]) -> pd.Series:
    """Name each setting by the leaves that vary, e.g. ``cnn · depth 8 · width 16``, in their order."""

    def label(row: pd.Series) -> str:
        parts = [
            str(row[a]) if isinstance(row[a], str) else f"{a} {row[a]:g}" for a in axes if row[a] not in ("none", 0)
        ]
        return " · ".join(parts) or str(row["model"])

    settings = frame.drop_duplicates("setting_key").sort_values(list(axes)).set_index("setting_key")
    return settings.apply(label, axis=1)


def barrier_figure(
    chaos: pd.DataFrame, transitions: pd.DataFrame, axes: Sequence[str], indicator: str = "test_barrier"
) -> Figure:
    """An indicator over the fork step, a panel per setting: children, controls, threshold, interval and transition.

    Args:
        chaos: The `chaos` table.
        transitions: The `transitions` table; the primary's perturbation, magnitude and measure step are those marked.
        axes: Leaves that tell settings apart.
        indicator: Column to show.

    Returns:
        The figure. Thin lines are seeds (means over directions), thick ones their mean.
    """
    headline = transitions[transitions["is_primary"]]
    measure = str(headline["measure"].iloc[0]) if len(headline) else "end"
    shown = chaos[is_measure(chaos, measure) & (chaos["perturbation"] != NONE)]
    labels = setting_labels(chaos, axes)
    keys = list(labels.index)[:MAX_PANELS]
    figure, panels = _panels(len(keys), 4.4, 3.5)
    for panel, key in zip(panels, keys, strict=False):
        _curves(panel, shown[shown["setting_key"] == key], indicator)
        _transition(panel, marked_estimate(transitions, str(key), indicator))
        panel.set_title(_wrapped(str(labels[key])), fontsize=9)
    for panel in panels[:: max(1, min(3, len(keys)))]:
        panel.set_ylabel(f"{indicator.replace('_', ' ')}{'' if measure == 'end' else f', measured at {measure}'}")
    _legend(figure, panels)
    _note_left_out(figure, len(labels) - len(keys))
    return figure


def marked_estimate(transitions: pd.DataFrame, setting_key: str, indicator: str) -> pd.Series | None:
    """The row of an indicator at the primary's perturbation, magnitude and measure step; None if there is none."""
    of_setting = transitions[transitions["setting_key"] == setting_key]
    headline = of_setting[of_setting["is_primary"]]
    if headline.empty:
        return None
    same = (of_setting["indicator"] == indicator) & (of_setting["kernel"] == headline["kernel"].iloc[0])
    for column in ("perturbation", "magnitude", "measure"):
        same &= of_setting[column] == headline[column].iloc[0]
    found = of_setting[same]
    return found.iloc[0] if len(found) else None


def _curves(panel: Axes, rows: pd.DataFrame, indicator: str) -> None:
    kinds = sorted(set(zip(rows["perturbation"], rows["magnitude"], strict=True)), key=_in_legend)
    for i, (kind, magnitude) in enumerate(kinds):
        is_control = kind == ORDER
        colour = CONTROL_COLOUR if is_control else COLOURS[i % len(COLOURS)]
        chosen = rows[(rows["perturbation"] == kind) & (rows["magnitude"] == magnitude)]
        seeds = chosen.pivot_table(index="fork_step", columns="seed", values=indicator)
        panel.plot(seeds.index, seeds, color=colour, linewidth=0.7, alpha=0.35)
        label = "control: other data order" if is_control else _push_label(kind, magnitude)
        style = "--" if is_control else "-"
        panel.plot(
            seeds.index, seeds.mean(axis=1), style, color=colour, linewidth=2, marker="o", markersize=3.5, label=label
        )
    _step_axis(panel, rows["fork_step"].max() if len(rows) else 1)
    panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]))
    panel.set_xlabel("fork step $t_0$")


def _in_legend(push: tuple[str, float]) -> tuple[bool, float, str]:
    """Controls last, larger magnitudes first, then by name: the same order each time."""
    kind, magnitude = push
    return kind == ORDER, -magnitude, kind


def _push_label(kind: str, magnitude: float) -> str:
    """A perturbation and its magnitude, if it has one, in lines that a legend has room for."""
    return "\n".join(textwrap.wrap(f"{kind} {magnitude:g}" if magnitude else kind, 34))


def _step_axis(panel: Axes, last: float) -> None:
    """Logarithmic in 1 + t, so that step 0 has a place."""
    panel.set_xscale("function", functions=(np.log1p, np.expm1))
    ticks = [0, *(t for decade in (1, 10, 100, 1000, 10_000, 100_000) for t in (decade, 3 * decade) if t <= last)]
    panel.set_xticks([t for t in ticks if t == 0 or t >= last / 300], minor=False)
    panel.set_xlim(-0.15, last * 1.15 + 1)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.minorticks_off()
    panel.spines[["top", "right"]].set_visible(False)


def _transition(panel: Axes, row: pd.Series | None) -> None:
    """Mark threshold, interval and located transition, or say what else was found."""
    if row is None:
        return
    panel.axhline(
        row["threshold"], color="black", linewidth=0.8, linestyle=":", label=f"threshold {row['threshold']:g}"
    )
    right = panel.get_xlim()[1]
    if row["verdict"] == "located":
        panel.axvspan(max(row["ci_low"], 0), min(row["ci_high"], right), color="#F0E442", alpha=0.35, linewidth=0)
        high = "∞" if math.isinf(row["ci_high"]) else f"{row['ci_high']:.0f}"
        text = f"transition {row['transition_step']:.0f} [{row['ci_low']:.0f}, {high}]"
        panel.axvline(row["transition_step"], color="black", linewidth=1.2)
    else:
        text = str(row["verdict"]).replace("_", " ")
    if not row["is_primary"]:
        text += "\nexploratory"
    panel.annotate(text, (0.98, 0.98), xycoords="axes fraction", ha="right", va="top", fontsize=8.5, fontweight="bold")


def kernel_figure(cone: pd.DataFrame, transitions: pd.DataFrame, axes: Sequence[str]) -> Figure:
    """Kernel distance S between all pairs of checkpoints, a panel per setting and kind, mean over seeds.

    Checkpoints are evenly spaced on both axes whatever their steps, as in figure 4 of arXiv:2505.13900; the located
    transition of the primary is drawn where it falls between them.

    Args:
        cone: The `cone` table.
        transitions: The `transitions` table.
        axes: Leaves that tell settings apart.

    Returns:
        The figure; one colour scale for all panels, from 0 to 1.
    """
    labels = setting_labels(cone, axes)
    kernels = cone.drop_duplicates(["setting_key", "kernel"])
    pairs = [
        (str(key), str(kernel)) for key in labels.index for kernel in kernels[kernels["setting_key"] == key]["kernel"]
    ]
    figure, panels = _panels(min(len(pairs), MAX_PANELS), 4.4, 3.9)
    image = None
    for panel, (key, kernel) in zip(panels, pairs[:MAX_PANELS], strict=False):
        rows = cone[(cone["setting_key"] == key) & (cone["kernel"] == kernel)]
        mean = rows.groupby(["step_i", "step_j"], sort=True)["kernel_distance"].mean().unstack()
        steps = mean.index.to_numpy(dtype=float)
        image = panel.imshow(mean.to_numpy(), origin="lower", cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
        every = max(1, len(steps) // 7)
        ticks = sorted({*range(0, len(steps) - every // 2 - 1, every), len(steps) - 1})
        panel.set_xticks(ticks, [f"{steps[t]:.0f}" for t in ticks], fontsize=7.5)
        panel.set_yticks(ticks, [f"{steps[t]:.0f}" for t in ticks], fontsize=7.5)
        _mark_transition(panel, steps, marked_estimate(transitions, key, _primary_indicator(transitions)))
        seeds = rows["seed"].nunique()
        panel.set_title(
            _wrapped(f"{labels[key]} · {kernel} kernel · {seeds} seed{'s' if seeds > 1 else ''}"), fontsize=9
        )
        panel.set_xlabel("step")
    panels[0].set_ylabel("step")
    if image is not None:
        figure.colorbar(image, ax=panels, shrink=0.85, label="kernel distance $S$")
    _note_left_out(figure, len(pairs) - MAX_PANELS)
    return figure


def _primary_indicator(transitions: pd.DataFrame) -> str:
    headline = transitions[transitions["is_primary"]]
    return str(headline["indicator"].iloc[0]) if len(headline) else "test_barrier"


def _mark_transition(panel: Axes, steps: npt.NDArray[np.float64], row: pd.Series | None) -> None:
    """Draw the located transition where its step falls among the checkpoints."""
    if row is None or row["verdict"] != "located":
        return
    place = float(np.interp(row["transition_step"], steps, np.arange(len(steps))))
    for line in (panel.axvline, panel.axhline):
        line(place, color="white", linewidth=1.2, linestyle="--")
    panel.annotate(
        f"transition {row['transition_step']:.0f}",
        (place, len(steps) - 0.7),
        xytext=(3, 0),
        textcoords="offset points",
        va="top",
        color="white",
        fontsize=7.5,
        path_effects=[withStroke(linewidth=1.5, foreground="black")],
    )


def learning_figure(trajectory: pd.DataFrame, axes: Sequence[str]) -> Figure:
    """Reference learning curves, a panel per setting: train and test loss, and accuracy, every seed."""
    labels = setting_labels(trajectory, axes)
    keys = list(labels.index)[:MAX_PANELS]
    figure, panels = _panels(len(keys), 4.4, 3.2)
    for panel, key in zip(panels, keys, strict=False):
        rows = trajectory[trajectory["setting_key"] == key]
        for column, colour, name in (
            ("train_loss", COLOURS[0], "train loss"),
            ("test_loss", COLOURS[1], "test loss"),
            ("test_accuracy", COLOURS[2], "test accuracy"),
        ):
            for i, (_, seed) in enumerate(rows.groupby("seed")):
                panel.plot(seed["step"], seed[column], color=colour, linewidth=1.1, label=name if i == 0 else None)
        _step_axis(panel, rows["step"].max())
        panel.set_xlabel("step")
        panel.set_ylabel("loss (nats), accuracy")
        panel.set_title(_wrapped(str(labels[key])), fontsize=9)
    _legend(figure, panels)
    _note_left_out(figure, len(labels) - len(keys))
    return figure


def _wrapped(label: str) -> str:
    return "\n".join(textwrap.wrap(label, 48))


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    columns = max(1, min(3, count))
    rows = max(1, math.ceil(count / columns))
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for panel in grid[max(count, 1) :]:
        panel.set_visible(False)
    return figure, grid[: max(count, 1)]


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend under all panels, where it hides no curve."""
    known: dict[str, Artist] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        known |= dict(zip(labels, handles, strict=True))
    if known:
        longest = max(len(line) for label in known for line in label.splitlines())
        # Inches that a column takes: a sample of the line, and about 0.065 a letter at this size.
        columns = max(1, min(len(known), 4, int(figure.get_figwidth() / (0.6 + 0.065 * longest))))
        figure.legend(known.values(), known, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def _note_left_out(figure: Figure, count: int) -> None:
    if count > 0:
        figure.suptitle(f"{count} more settings are not shown", fontsize=9)

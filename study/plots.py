"""Figures over steps: each takes tables and returns a `Figure`; none reads a file."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from study.curves import is_measure
from study.evidence import DIVERGED, Evidence, judged
from study.kernel_transitions import KERNEL_VELOCITY
from study.labels import setting_labels
from study.panels import (
    COLOURS,
    CONTROL_COLOUR,
    KERNEL_COLOUR,
    MAX_PANELS,
    MOST_COLUMNS,
    legend,
    make_panels,
    mark_diverged,
    name_panel,
    note_left_out,
    say_empty,
    step_axis,
    wrapped,
)
from study.summary import interval_text
from twophase.perturb import ORDER


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
        The figure. Thin lines are seeds (means over directions), thick ones their mean; crosses are children that
        diverged.
    """
    shown = primary_children(chaos, transitions)
    labels = setting_labels(chaos, axes)
    keys = list(labels.index)[:MAX_PANELS]
    figure, panels = make_panels(len(keys), 4.6, 3.7)
    for panel, key in zip(panels, keys, strict=False):
        name_panel(panel, str(key))
        rows = shown[shown["setting_key"] == key]
        row = marked_estimate(transitions, str(key), indicator)
        _curves(panel, rows, indicator)
        found = _transition(panel, row)
        if not seed_values(rows, indicator).notna().any():
            say_empty(panel, "" if row is None else str(row["reason"]))
        panel.set_title("\n".join(filter(None, [wrapped(str(labels[key])), found])), fontsize=9.5)
        ends = set(rows["measure_step"]) == set(rows["num_steps"])
        measured = "" if ends or rows.empty else f", measured at {measured_text(rows)}"
        panel.set_ylabel(f"{indicator.replace('_', ' ')}{measured}")
    legend(figure, panels)
    note_left_out(figure, len(labels) - len(keys))
    return figure


def primary_children(chaos: pd.DataFrame, transitions: pd.DataFrame) -> pd.DataFrame:
    """Children and controls at each setting's own measure step of the primary, with `lost` of `study.evidence`.

    Where a setting has no row of the primary, that of the others stands in.
    """
    headline = transitions[transitions["is_primary"]]
    if headline.empty:
        headline = transitions[transitions["indicator"] != KERNEL_VELOCITY].drop_duplicates("setting_key")
    own = dict(zip(headline["setting_key"], headline["measure"], strict=True))
    usual = str(headline["measure"].iloc[0]) if len(headline) else "end"
    children = judged(chaos, Evidence())
    kept = [rows[is_measure(rows, own.get(key, usual))] for key, rows in children.groupby("setting_key", sort=False)]
    return pd.concat(kept) if kept else children


def seed_values(rows: pd.DataFrame, indicator: str) -> pd.Series:
    """An indicator's values: +inf where a child diverged, NaN where its reference did."""
    return rows[indicator].mask(rows["diverged"], np.inf).mask(rows["lost"] == DIVERGED, np.nan)


def measured_text(rows: pd.DataFrame) -> str:
    """When children were compared, in words."""
    steps = sorted(set(rows["measure_step"]))
    lags = sorted(set(rows["measure_step"] - rows["fork_step"]))
    if len(steps) == 1:
        return f"step {steps[0]}"
    return f"+{lags[0]} steps" if len(lags) == 1 else "several steps"


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
    values = rows.assign(value=seed_values(rows, indicator))
    for i, (kind, magnitude) in enumerate(kinds):
        is_control = kind == ORDER
        colour = CONTROL_COLOUR if is_control else COLOURS[i % len(COLOURS)]
        chosen = values[(values["perturbation"] == kind) & (values["magnitude"] == magnitude)]
        seeds = chosen.groupby(["fork_step", "seed"])["value"].mean().unstack()
        panel.plot(seeds.index, seeds, color=colour, linewidth=0.7, alpha=0.35)
        label = "control: other data order" if is_control else _push_label(kind, magnitude)
        style = "--" if is_control else "-"
        # A mean with a diverged child in it is infinite: a gap in the line, and a cross.
        mean = seeds.mean(axis=1)
        panel.plot(mean.index, mean, style, color=colour, linewidth=2, marker="o", markersize=3.5, label=label)
        mark_diverged(panel, list(seeds.index[np.isinf(seeds.to_numpy()).any(axis=1)]), colour)
    step_axis(panel, rows["fork_step"].max() if len(rows) else 1)
    panel.set_ylim(bottom=-0.03 * panel.get_ylim()[1])
    panel.set_xlabel("fork step $t_0$")


def _in_legend(push: tuple[str, float]) -> tuple[bool, float, str]:
    """Controls last, larger magnitudes first, then by name: the same order each time."""
    kind, magnitude = push
    return kind == ORDER, -magnitude, kind


def _push_label(kind: str, magnitude: float) -> str:
    """A perturbation and its magnitude, if it has one, in lines that a legend has room for."""
    return wrapped(f"{kind} {magnitude:g}" if magnitude else kind, 34)


def _transition(panel: Axes, row: pd.Series | None) -> str:
    """Mark threshold, interval and located transition; say what was found."""
    if row is None:
        return "no row of the primary"
    panel.axhline(
        row["threshold"], color="black", linewidth=0.8, linestyle=":", label=f"threshold {row['threshold']:g}"
    )
    # Tiny values must look tiny: the threshold is always in sight.
    top = max(panel.get_ylim()[1], 1.25 * float(row["threshold"]))
    panel.set_ylim(-0.03 * top, top)
    right = panel.get_xlim()[1]
    text = str(row["verdict"]).replace("_", " ")
    if row["verdict"] == "located":
        panel.axvspan(max(row["ci_low"], 0), min(row["ci_high"], right), color="#F0E442", alpha=0.35, linewidth=0)
        text = f"transition {row['transition_step']:.0f} {interval_text(row.to_dict())}"
        panel.axvline(row["transition_step"], color="black", linewidth=1.2)
    return text if row["is_primary"] else f"{text} (exploratory)"


def kernel_figure(cone: pd.DataFrame, transitions: pd.DataFrame, axes: Sequence[str]) -> Figure:
    """Kernel distance S between all pairs of checkpoints, a panel per setting and kind, mean over seeds.

    Checkpoints are evenly spaced on both axes whatever their steps, as in figure 4 of arXiv:2505.13900; the located
    transitions of the primary and of the kernel itself are drawn where they fall between them.

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
    figure, panels = make_panels(min(len(pairs), MAX_PANELS), 4.6, 4.3)
    image = None
    for panel, (key, kernel) in zip(panels, pairs[:MAX_PANELS], strict=False):
        name_panel(panel, key)
        rows = cone[(cone["setting_key"] == key) & (cone["kernel"] == kernel)]
        mean = rows.groupby(["step_i", "step_j"], sort=True)["kernel_distance"].mean().unstack()
        steps = mean.index.to_numpy(dtype=float)
        panel.set_facecolor("#e4e4e4")  # what isn't finite
        image = panel.imshow(mean.to_numpy(), origin="lower", cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
        every = max(1, len(steps) // 7)
        ticks = sorted({*range(0, len(steps) - every // 2 - 1, every), len(steps) - 1})
        panel.set_xticks(ticks, [f"{steps[t]:.0f}" for t in ticks], fontsize=7.5)
        panel.set_yticks(ticks, [f"{steps[t]:.0f}" for t in ticks], fontsize=7.5)
        _mark_transition(panel, steps, marked_estimate(transitions, key, _primary_indicator(transitions)))
        _mark_transition(panel, steps, kernel_estimate(transitions, key, kernel), of_kernel=True)
        seeds = rows["seed"].nunique()
        panel.set_title(
            wrapped(f"{labels[key]} · {kernel} kernel · {seeds} seed{'s' if seeds > 1 else ''}"), fontsize=9.5
        )
        panel.set_xlabel("step")
        panel.set_ylabel("step")
    if image is not None:
        # As long as one panel, beside the first row, however many there are.
        down = -(-len(panels) // MOST_COLUMNS)
        figure.colorbar(image, ax=panels, shrink=0.8 / down, anchor=(0.0, 1.0), aspect=18, label="kernel distance $S$")
    is_one_each = len(pairs) == len(labels)
    note_left_out(figure, len(pairs) - MAX_PANELS, "settings" if is_one_each else "panels (a setting's kind of kernel)")
    return figure


def _primary_indicator(transitions: pd.DataFrame) -> str:
    headline = transitions[transitions["is_primary"]]
    return str(headline["indicator"].iloc[0]) if len(headline) else "test_barrier"


def kernel_estimate(transitions: pd.DataFrame, setting_key: str, kernel: str) -> pd.Series | None:
    """The kernel's own transition of a setting; None if there is no row of it."""
    found = transitions[(transitions["setting_key"] == setting_key) & (transitions["kernel"] == kernel)]
    found = found[found["indicator"] == KERNEL_VELOCITY]
    return found.iloc[0] if len(found) else None


def _mark_transition(
    panel: Axes, steps: npt.NDArray[np.float64], row: pd.Series | None, *, of_kernel: bool = False
) -> None:
    """Draw the located transition where its step falls among the checkpoints: the kernel's own solid, at the bottom."""
    if row is None or row["verdict"] != "located":
        return
    place = float(np.interp(row["transition_step"], steps, np.arange(len(steps))))
    colour = KERNEL_COLOUR if of_kernel else "white"
    for line in (panel.axvline, panel.axhline):
        line(place, color=colour, linewidth=1.2, linestyle="-" if of_kernel else "--")
    is_right = place > len(steps) / 2
    panel.annotate(
        f"{'kernel: ' if of_kernel else 'transition '}{row['transition_step']:.0f}",
        (place, -0.3 if of_kernel else len(steps) - 0.7),
        xytext=(-3 if is_right else 3, 0),
        textcoords="offset points",
        ha="right" if is_right else "left",
        va="bottom" if of_kernel else "top",
        color=colour,
        fontsize=8,
        path_effects=[withStroke(linewidth=1.8, foreground="white" if of_kernel else "black")],
    )


def learning_figure(trajectory: pd.DataFrame, axes: Sequence[str]) -> Figure:
    """Reference learning curves, a panel per setting, every seed: losses on the left axis, accuracy on the right."""
    labels = setting_labels(trajectory, axes)
    keys = list(labels.index)[:MAX_PANELS]
    figure, panels = make_panels(len(keys), 4.6, 3.5)
    rights = []
    for panel, key in zip(panels, keys, strict=False):
        name_panel(panel, str(key))
        rows = trajectory[trajectory["setting_key"] == key]
        right = panel.twinx()
        for axis, column, colour, name in (
            (panel, "train_loss", COLOURS[0], "train loss"),
            (panel, "test_loss", COLOURS[1], "test loss"),
            (right, "test_accuracy", COLOURS[2], "test accuracy (right)"),
        ):
            for i, (_, seed) in enumerate(rows.groupby("seed")):
                style = "--" if axis is right else "-"
                label = name if i == 0 else None
                axis.plot(seed["step"], seed[column], style, color=colour, linewidth=1.1, label=label)
        step_axis(panel, rows["step"].max())
        panel.set_ylim(bottom=0)
        panel.set_xlabel("step")
        panel.set_ylabel("loss (nats)")
        right.set_ylim(0, 1)
        right.set_ylabel("accuracy", color=COLOURS[2])
        right.spines["top"].set_visible(False)
        panel.set_title(wrapped(str(labels[key])), fontsize=9.5)
        rights.append(right)
    legend(figure, [*panels, *rights])
    note_left_out(figure, len(labels) - len(keys))
    return figure

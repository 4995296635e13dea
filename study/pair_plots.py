"""A child and its reference: how they part over the steps, and the loss on the line between their ends."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.panels import CONTROL_COLOUR, legend, say_empty
from study.shown_rows import at_measure, by_seed, of_controls, of_push, push_words, setting_panels, some_fork_steps


@dataclass(frozen=True)
class Rate:
    """What a growth window says of a fork step.

    Attributes:
        per_step: Mean rate over seeds, in nats per step; NaN if growth isn't exponential in every one of them.
        burn_in: Steps before it counts.
        window: Length of the window.
    """

    per_step: float
    window: int

    @property
    def words(self) -> str:
        """For a legend."""
        return f"{self.per_step:.3g} per step" if np.isfinite(self.per_step) else "not exponential"


def rates_of(growth: pd.DataFrame, setting_key: str) -> dict[int, Rate]:
    """Fork step -> its rate, of one setting."""
    own = growth[growth["setting_key"] == setting_key]
    return {
        int(str(step)): Rate(float(rows["growth_rate"].mean(skipna=False)), int(rows["window"].iloc[0]))
        for step, rows in own.groupby("fork_step")
    }


def divergence_figure(
    divergence: pd.DataFrame, growth: pd.DataFrame, transitions: pd.DataFrame, axes: Sequence[str]
) -> Figure:
    """Distance between child and reference over the steps since the fork, on logarithmic axes, a panel per setting.

    Args:
        divergence: The `divergence` table.
        growth: The `growth` table, for rates.
        transitions: The `transitions` table; its primary's push is shown.
        axes: Leaves that tell settings apart.

    Returns:
        The figure: geometric means over seeds, a line per fork step; rates only where growth is exponential.
    """
    rows = divergence.assign(
        lag=divergence["step"] - divergence["fork_step"],
        log_distance=np.log(divergence["distance"].where(divergence["distance"] > 0)),
    )
    figure, panels = setting_panels(rows, axes, 4.8, 3.8)
    for panel, own in panels:
        rates = rates_of(growth, str(own["setting_key"].iloc[0]))
        pushed = of_push(own, transitions)
        for step, colour, is_first in _coloured(pushed):
            seeds = by_seed(pushed[pushed["fork_step"] == step], "lag", "log_distance")
            words = f"; {rates[step].words}" if step in rates else ""
            _line(panel, seeds, colour, f"forked at {step}{words}", is_first=is_first, is_log=True)
            if step in rates:
                _slope(panel, seeds, rates[step], colour)
            control = of_controls(own)
            control = control[control["fork_step"] == step]
            if is_first and len(control):
                _control(panel, np.exp(by_seed(control, "lag", "log_distance").mean(axis=1)), step)
        if pushed["log_distance"].notna().any():
            panel.set_xscale("log")
            panel.set_yscale("log")
        else:
            say_empty(panel, "no distance was recorded")
        panel.set_xlabel("steps since the fork")
        panel.set_ylabel(f"‖θ′ − θ‖ after {push_words(transitions, own)}")
        panel.legend(fontsize=7, frameon=False)
    return figure


def path_figure(path: pd.DataFrame, transitions: pd.DataFrame, axes: Sequence[str]) -> Figure:
    """Test loss along the straight line from reference to child, a line per fork step, a panel per setting.

    Args:
        path: The `path` table.
        transitions: The `transitions` table; its primary's push and measure step are shown.
        axes: Leaves that tell settings apart.

    Returns:
        The figure, means over seeds.
    """
    rows = at_measure(path, transitions)
    figure, panels = setting_panels(rows, axes, 4.8, 3.6)
    for panel, own in panels:
        pushed = of_push(own, transitions)
        for step, colour, is_first in _coloured(pushed):
            seeds = by_seed(pushed[pushed["fork_step"] == step], "alpha", "test_loss")
            _line(panel, seeds, colour, f"forked at {step}", is_first=is_first)
            control = of_controls(own)
            control = control[control["fork_step"] == step]
            if is_first and len(control):
                _control(panel, by_seed(control, "alpha", "test_loss").mean(axis=1), step)
        if not pushed["test_loss"].notna().any():
            say_empty(panel, "every child diverged, or none was measured")
        panel.set_xlabel("place on the line: reference 0, child 1")
        panel.set_ylabel("test loss (nats)")
    legend(figure, [panel for panel, _ in panels])
    return figure


def path_words(path: pd.DataFrame, transitions: pd.DataFrame, labels: pd.Series) -> str:
    """Of each setting the loss at the ends and in the middle, for the first fork step."""
    parts = []
    for key, rows in of_push(at_measure(path, transitions), transitions).groupby("setting_key", sort=False):
        first = rows[rows["fork_step"] == rows["fork_step"].min()]
        mean = first.groupby("alpha")["test_loss"].mean()
        parts.append(
            f"{labels[str(key)]}, forked at {first['fork_step'].iloc[0]}: {mean.iloc[0]:.2f} at the reference, "
            f"{mean.max():.2f} at most, {mean.iloc[-1]:.2f} at the child"
        )
    return "; ".join(parts)


def divergence_words(divergence: pd.DataFrame, transitions: pd.DataFrame, labels: pd.Series) -> str:
    """Of each setting by what factor the distance grows until the end, for the first and the last fork step."""
    parts = []
    for key, rows in of_push(divergence, transitions).groupby("setting_key", sort=False):
        told = []
        for step in sorted({rows["fork_step"].min(), rows["fork_step"].max()}):
            mean = rows[rows["fork_step"] == step].groupby("step")["distance"].median()
            told.append(f"× {mean.iloc[-1] / mean.iloc[0]:.3g} from step {step} to {mean.index[-1]}")
        parts.append(f"{labels[str(key)]}: {', '.join(told)}")
    return "; ".join(parts)


def _coloured(rows: pd.DataFrame) -> list[tuple[int, str, bool]]:
    steps = some_fork_steps(rows)
    colours = mpl.colormaps["viridis"](np.linspace(0.0, 0.9, max(len(steps), 1)))
    return [(step, mpl.colors.to_hex(colours[i]), i == 0) for i, step in enumerate(steps)]


def _line(panel: Axes, seeds: pd.DataFrame, colour: str, label: str, *, is_first: bool, is_log: bool = False) -> None:
    mean, low, high = seeds.mean(axis=1), seeds.min(axis=1), seeds.max(axis=1)
    if is_log:
        mean, low, high = np.exp(mean), np.exp(low), np.exp(high)
    panel.plot(mean.index, mean, "-", color=colour, linewidth=2.0 if is_first else 1.3, label=label)
    if is_first:
        panel.fill_between(mean.index, low, high, color=colour, alpha=0.15, linewidth=0)
    panel.spines[["top", "right"]].set_visible(False)


def _control(panel: Axes, mean: pd.Series, step: int) -> None:
    panel.plot(mean.index, mean, "--", color=CONTROL_COLOUR, linewidth=1.4, label=f"control, forked at {step}")


def _slope(panel: Axes, log_seeds: pd.DataFrame, rate: Rate, colour: str) -> None:
    """The rate's own line over its window, from where the child is after the first steps."""
    if not np.isfinite(rate.per_step) or log_seeds.empty:
        return
    mean = log_seeds.mean(axis=1).dropna()
    lags = np.array([lag for lag in mean.index if 0 < lag <= rate.window], dtype=float)
    if len(lags):
        start = float(mean[lags[0]])
        panel.plot(lags, np.exp(start + rate.per_step * (lags - lags[0])), "-.", color=colour, linewidth=1.0)

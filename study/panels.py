"""What all figures share: colours, a grid of panels, the axis of steps, one legend."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito (2008), safe for all eyes
CONTROL_COLOUR = "#777777"
KERNEL_COLOUR = "#D55E00"
MAX_PANELS = 24
MOST_COLUMNS = 2
"""More would be too small to read, on a phone and in a column of text."""


def make_panels(
    count: int, width: float, height: float, columns: int | None = None, projection: str | None = None
) -> tuple[Figure, list[Axes]]:
    """Make a figure of some panels, row by row; those past the count are hidden."""
    across = columns or max(1, min(MOST_COLUMNS, count))
    down = max(1, math.ceil(count / across))
    figure = Figure(figsize=(width * across, height * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, subplot_kw={"projection": projection}).flatten().tolist()
    for panel in grid[max(count, 1) :]:
        panel.set_visible(False)
        panel.set_in_layout(projection is None)  # hidden ones in space have no extent
    return figure, grid[: max(count, 1)]


_PANEL_OF = "setting "


def name_panel(panel: Axes, setting_key: str) -> None:
    """Keep whose panel it is: the report links a setting to its panels."""
    panel.set_label(f"{_PANEL_OF}{setting_key}")


def panel_setting(panel: Axes) -> str:
    """The key of the setting whose panel it is; empty if it is of none, or hidden."""
    label = str(panel.get_label())
    return label.removeprefix(_PANEL_OF) if label.startswith(_PANEL_OF) and panel.get_visible() else ""


def step_axis(panel: Axes, last: float) -> None:
    """Logarithmic in 1 + t, so that step 0 has a place."""
    panel.set_xscale("function", functions=(np.log1p, np.expm1))
    ticks = [0, *(t for decade in (1, 10, 100, 1000, 10_000, 100_000) for t in (decade, 3 * decade) if t <= last)]
    panel.set_xticks([t for t in ticks if t == 0 or t >= last / 300], minor=False)
    panel.set_xlim(-0.15, last * 1.15 + 1)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.minorticks_off()
    panel.spines[["top", "right"]].set_visible(False)


def mark_diverged(panel: Axes, places: Sequence[float], colour: str) -> None:
    """Put a cross at the upper edge wherever a child diverged: it is past any scale."""
    if len(places):
        panel.plot(
            places,
            [0.985] * len(places),
            "x",
            transform=panel.get_xaxis_transform(),
            color=colour,
            markersize=7,
            markeredgewidth=1.8,
            clip_on=False,
            label="diverged",
            zorder=5,
        )


def say_empty(panel: Axes, why: str) -> None:
    """Say in an empty panel why it is."""
    text = wrapped(why or "nothing was measured", 36)
    panel.text(0.5, 0.6, text, transform=panel.transAxes, ha="center", va="center", color="#57606a", fontsize=9)


def legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend under all panels, where it hides no curve."""
    known: dict[str, Artist] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        for label, handle in zip(labels, handles, strict=True):
            known.setdefault(label, handle)
    if known:
        longest = max(len(line) for label in known for line in label.splitlines())
        # Inches that a column takes: a sample of the line, and about 0.07 a letter at this size.
        room = int(figure.get_figwidth() / (0.6 + 0.07 * longest))
        columns = max(1, min(len(known), 4 if len(panels) > 1 else 2, room))
        figure.legend(known.values(), known, loc="outside lower center", ncols=columns, fontsize=8.5, frameon=False)


def note_left_out(figure: Figure, count: int, what: str = "settings") -> None:
    """Say how many there was no room for."""
    if count > 0:
        figure.suptitle(f"{count} more {what} are not shown", fontsize=9)


def wrapped(label: str, width: int = 48) -> str:
    """A title in lines that a panel has room for."""
    return "\n".join(textwrap.wrap(label, width))

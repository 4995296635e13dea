"""All settings' transitions in one picture, each beside its control."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.labels import setting_labels
from study.panels import COLOURS, CONTROL_COLOUR, legend, make_panels, note_left_out, step_axis
from study.summary import controls_of, interval_text, records, step_text

MOST_SETTINGS = 40
WIDTH, HEIGHT_OF_SETTING = 8.4, 0.42


def forest_figure(transitions: pd.DataFrame, settings: pd.DataFrame, axes: Sequence[str], last: float) -> Figure | None:
    """Draw the primary's transition of every setting, with its interval, over its control's in grey.

    Args:
        transitions: The `transitions` table.
        settings: Rows with `setting_key` and all leaves, such as the `trials` table.
        axes: Leaves that tell settings apart.
        last: The last fork step, where the axis ends.

    Returns:
        The figure; None with fewer than two settings. An arrow means that the interval is open: past the last fork step
        nothing was seen. Where there is no transition, the verdict stands in its place.
    """
    primary = transitions[transitions["is_primary"]]
    if primary["setting_key"].nunique() < 2:
        return None
    labels = setting_labels(settings[settings["setting_key"].isin(primary["setting_key"])], axes)
    controls = controls_of(transitions, primary, ())
    keys = list(labels.index)[:MOST_SETTINGS]
    figure, (panel,) = make_panels(1, WIDTH, 1.3 + HEIGHT_OF_SETTING * len(keys))
    step_axis(panel, last)
    for place, key in enumerate(keys):
        for rows, offset, colour in ((primary, -0.14, COLOURS[0]), (controls, 0.2, CONTROL_COLOUR)):
            chosen = records(rows[rows["setting_key"] == key])
            if chosen:
                _draw(panel, chosen[0], place + offset, colour)
    # Every other setting shaded, so that the eye keeps its line.
    for place in range(0, len(keys), 2):
        panel.axhspan(place - 0.5, place + 0.5, color="#000000", alpha=0.035, linewidth=0)
    panel.set_yticks(range(len(keys)), [str(labels[key]) for key in keys], fontsize=8.5)
    panel.set_ylim(len(keys) - 0.5, -0.5)
    panel.tick_params(axis="y", length=0)
    panel.set_xlabel("fork step $t_0$")
    for colour, name in ((COLOURS[0], "perturbed children"), (CONTROL_COLOUR, "controls: another data order")):
        panel.plot([], [], "-o", color=colour, markersize=5, label=name)
    legend(figure, [panel])
    note_left_out(figure, len(labels) - len(keys))
    return figure


def _draw(panel: Axes, row: Mapping[str, Any], height: float, colour: str) -> None:
    """One estimate: a point in its interval, an arrow where that is open, or the verdict."""
    right = panel.get_xlim()[1]
    verdict = str(row["verdict"])
    low, high = float(row["ci_low"]), float(row["ci_high"])
    if verdict == "located":
        panel.plot([low, min(high, right)], [height] * 2, color=colour, linewidth=1.6, solid_capstyle="butt")
        panel.plot([row["transition_step"]], [height], "o", color=colour, markersize=5)
        if math.isinf(high):
            _arrow(panel, right, height, colour)
    elif verdict == "chaotic_throughout":
        panel.plot([low, right], [height] * 2, color=colour, linewidth=1.6, linestyle=":")
        _arrow(panel, right, height, colour)
        panel.text(low, height, "chaotic throughout ", color=colour, fontsize=7.5, ha="right", va="center")
    elif verdict == "stable_from_start":
        panel.plot([0], [height], "o", markerfacecolor="white", markeredgecolor=colour, markersize=5)
        _say(panel, "stable from the start", height, colour)
    else:
        _say(panel, str(row["reason"]).partition(";")[0] or "undetermined", height, colour)


def _say(panel: Axes, words: str, height: float, colour: str) -> None:
    panel.annotate(
        words, (0, height), xytext=(7, 0), textcoords="offset points", va="center", color=colour, fontsize=7.5
    )


def _arrow(panel: Axes, right: float, height: float, colour: str) -> None:
    panel.plot([right], [height], ">", markerfacecolor="white", markeredgecolor=colour, markersize=6, clip_on=False)


def forest_words(transitions: pd.DataFrame, labels: Mapping[str, str]) -> str:
    """The same in words."""
    primary = transitions[transitions["is_primary"]]
    controls = controls_of(transitions, primary, ())
    parts = []
    for key, label in labels.items():
        own, control = (records(rows[rows["setting_key"] == key]) for rows in (primary, controls))
        said = [_words(rows[0], who) for rows, who in ((own, ""), (control, "control ")) if rows]
        if said:
            parts.append(f"{label}: {', '.join(said)}")
    return "; ".join(parts)


def _words(row: Mapping[str, Any], who: str) -> str:
    if row["verdict"] == "located":
        return f"{who}{step_text(row['transition_step'])} {interval_text(row)}"
    return f"{who}{str(row['verdict']).replace('_', ' ')}"

"""Which rows a figure shows: the primary's push and its controls, some fork steps, one number per seed."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.curves import is_measure
from study.labels import setting_labels
from study.panels import MAX_PANELS, make_panels, name_panel, note_left_out, wrapped
from twophase.perturb import NONE, ORDER

MOST_FORK_STEPS = 6


def primary_push(transitions: pd.DataFrame, rows: pd.DataFrame) -> tuple[str, float]:
    """Kind and magnitude of the primary's push; of rows that it has none of, the first kind's largest."""
    headline = transitions[transitions["is_primary"]]
    if len(headline):
        return str(headline["perturbation"].iloc[0]), float(headline["magnitude"].iloc[0])
    pushed = rows[~rows["perturbation"].isin([NONE, ORDER])]
    if pushed.empty:
        return ORDER, 0.0
    kind = str(pushed["perturbation"].iloc[0])
    return kind, float(pushed.loc[pushed["perturbation"] == kind, "magnitude"].max())


def push_words(transitions: pd.DataFrame, rows: pd.DataFrame) -> str:
    """The primary's push as a figure's axis names it."""
    kind, magnitude = primary_push(transitions, rows)
    return f"{kind.replace('_', ' ')} {magnitude:g}"


def of_push(rows: pd.DataFrame, transitions: pd.DataFrame) -> pd.DataFrame:
    """Children of the primary's push."""
    kind, magnitude = primary_push(transitions, rows)
    return rows[(rows["perturbation"] == kind) & (rows["magnitude"] == magnitude)]


def of_controls(rows: pd.DataFrame) -> pd.DataFrame:
    """Controls alone."""
    return rows[rows["perturbation"] == ORDER]


def at_measure(rows: pd.DataFrame, transitions: pd.DataFrame) -> pd.DataFrame:
    """Rows at the primary's measure step; at the end where it has none."""
    headline = transitions[transitions["is_primary"]]
    return rows[is_measure(rows, str(headline["measure"].iloc[0]) if len(headline) else "end")]


def some_fork_steps(rows: pd.DataFrame) -> list[int]:
    """The first fork step, the last, and some between."""
    steps = np.sort(rows["fork_step"].unique())
    places = np.linspace(0, len(steps) - 1, min(MOST_FORK_STEPS, len(steps))).round().astype(int)
    return [int(step) for step in steps[np.unique(places)]]


def by_seed(rows: pd.DataFrame, over: str, column: str) -> pd.DataFrame:
    """Means over directions: [values of `over`, seeds]."""
    return rows.groupby([over, "seed"])[column].mean().unstack()


def setting_panels(
    rows: pd.DataFrame, axes: Sequence[str], width: float, height: float
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A figure with a titled panel for each setting, and the rows of each."""
    labels = setting_labels(rows, axes)
    keys = list(labels.index)[:MAX_PANELS]
    figure, panels = make_panels(len(keys), width, height)
    note_left_out(figure, len(labels) - len(keys))

    def each() -> Iterator[tuple[Axes, pd.DataFrame]]:
        for panel, key in zip(panels, keys, strict=False):
            own = rows[rows["setting_key"] == key]
            name_panel(panel, str(key))
            panel.set_title(wrapped(f"{labels[key]} · {seeds_text(own)}"), fontsize=9.5)
            yield panel, own

    return figure, list(each())


def seeds_text(rows: pd.DataFrame) -> str:
    """How many seeds, in words."""
    number = rows["seed"].nunique()
    return f"{number} seed{'' if number == 1 else 's'}"

"""The axes of a comparison: which may be named, their levels, what is held fixed beside them and what goes along."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.labels import part
from twophase.config import LEAVES, TYPES
from twophase.errors import BadInput, unknown

MAGNITUDE = "magnitude"
AXES = (*LEAVES, MAGNITUDE)
KEEPS_SEED = frozenset(
    {
        *("optimizer", "lr", "momentum", "beta2", "weight_decay", "clip_norm"),
        *("num_steps", "schedule", "warmup_steps", "milestones", "gamma", "activation", "precision", MAGNITUDE),
    }
)
"""Axes that leave what a seed yields: the same initial draw, the same order of the data. Others, such as width or batch
size, make another draw of the same seed, which is no pair."""


def swept(table: pd.DataFrame) -> list[str]:
    """Leaves with more than one level."""
    return [leaf for leaf in LEAVES if table[leaf].nunique() > 1]


def check_axis(table: pd.DataFrame, axis: str) -> None:
    """Refuse an axis that can't be compared.

    Raises:
        BadInput: It is unknown, or has one level only.
    """
    if axis not in AXES:
        raise unknown("axis", axis, AXES, see="docs/settings.md")
    levels = table[axis].unique()
    if len(levels) < 2:
        others = [*swept(table), *[MAGNITUDE] * (table[MAGNITUDE].nunique() > 1)]
        would_do = f"swept are {', '.join(others)}" if others else "nothing was swept"
        one = f"only {level_text(levels[0])}" if len(levels) else "none"
        raise BadInput(
            f"axis must have at least two levels among the settings that tell anything, {axis} has {one}; {would_do}"
        )


def goes_along(table: pd.DataFrame, axis: str) -> list[str]:
    """Leaves that an axis settles: of one value at each of its levels, so that nobody can tell them apart from it."""
    if axis == MAGNITUDE:
        return []
    others = [leaf for leaf in swept(table) if leaf != axis]
    return [leaf for leaf in others if table.groupby(axis)[leaf].nunique().max() == 1]


def held_leaves(table: pd.DataFrame, axis: str) -> list[str]:
    """Leaves that vary beside an axis, and are held fixed when two of its levels are compared."""
    along = goes_along(table, axis)
    return [leaf for leaf in swept(table) if leaf != axis and leaf not in along]


def held_text(leaves: Iterable[str], values: Iterable[object]) -> str:
    """What is held fixed, in words; empty if nothing varies beside the axis."""
    return " · ".join(part(leaf, value) for leaf, value in zip(leaves, values, strict=True))


def level_text(level: object) -> str:
    """A level as it is written."""
    return f"{level:g}" if isinstance(level, float) else str(level)


def is_numeric(table: pd.DataFrame, axis: str) -> bool:
    """Tell whether octaves of an axis mean anything: numbers, all above 0."""
    is_number = axis == MAGNITUDE or TYPES[axis] in (int, float)
    return is_number and bool((table[axis] > 0).all())


UNIT_LEAVES: dict[str, tuple[str, ...]] = {
    "steps": (),
    "epochs": ("batch_size", "num_train"),
    "fraction": ("num_steps",),
}
"""Units of time, and the leaves that one of them hangs on."""


def unit_lengths(table: pd.DataFrame, unit: str) -> npt.NDArray[np.float64]:
    """Steps in one unit of time, for each row: one step, one epoch, or the whole run."""
    columns = {"epochs": "steps_per_epoch", "fraction": "num_steps"}
    return table[columns[unit]].to_numpy(dtype=float) if unit in columns else np.ones(len(table))


def units_that_differ(one: pd.DataFrame, other: pd.DataFrame) -> list[str]:
    """Steps, and each other unit in which the two sides of a comparison differ by another factor."""
    return [
        unit
        for unit in UNIT_LEAVES
        if unit == "steps" or set(unit_lengths(one, unit)) != set(unit_lengths(other, unit))
    ]

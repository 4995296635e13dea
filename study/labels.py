"""Names of settings: short, and no two alike."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from twophase.config import HEAD, applies

_SELF_EXPLAINING = (
    "data",
    "model",
    "activation",
    "optimizer",
    "schedule",
    "precision",
    "device",
    "perturbation",
    "indicator",
)


def varying_axes(frame: pd.DataFrame, leaves: Sequence[str]) -> list[str]:
    """Leaves that tell the settings of a table apart: the model, and what varies among settings of one model."""
    others = [leaf for leaf in leaves if leaf in frame and leaf != "model"]
    if frame.empty:
        return ["model"]
    within = frame.groupby("model")[others].nunique().max()
    return ["model", *(leaf for leaf in others if within[leaf] > 1)]


def setting_labels(frame: pd.DataFrame, axes: Sequence[str]) -> pd.Series:
    """Name each setting by the leaves that vary, e.g. ``cnn · depth 8 · width 16``.

    What doesn't apply to a setting is left out; what does is named, at 0 and ``none`` too. Settings that would still
    read alike get the start of their key.

    Args:
        frame: Rows with `setting_key` and all leaves.
        axes: The leaves to name.

    Returns:
        Setting key -> label, in order of the axes.
    """
    settings = frame.drop_duplicates("setting_key").sort_values([*axes, "setting_key"]).set_index("setting_key")
    labels = pd.Series([_label(row, axes) for row in settings.to_dict("records")], index=settings.index, dtype=object)
    is_shared = labels.duplicated(keep=False)
    labels[is_shared] += " · " + labels.index[is_shared].str[:6]
    return labels


def _label(row: Mapping[Any, Any], axes: Sequence[str]) -> str:
    head = {leaf: row[leaf] for leaf in HEAD if leaf in row}
    parts = [
        part(axis, row[axis])
        for axis in axes
        if row[axis] not in ("none", 0) or (len(head) == len(HEAD) and applies(axis, head))
    ]
    return " · ".join(parts) or str(row["model"])


def part(axis: str, value: Any) -> str:
    """One leaf in words: its value, with its name where the value doesn't say what it is of."""
    if isinstance(value, str):
        return value if axis in _SELF_EXPLAINING else f"{axis.replace('_', ' ')} {value}"
    return f"{axis.replace('_', ' ')} {value:g}"

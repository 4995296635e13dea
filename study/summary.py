"""The transition table as text for a terminal, and as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from twophase.perturb import ORDER


def varying_axes(frame: pd.DataFrame, leaves: Sequence[str]) -> list[str]:
    """Leaves that tell the settings of a table apart: the model, and what varies among settings of one model."""
    others = [leaf for leaf in leaves if leaf in frame and leaf != "model"]
    if frame.empty:
        return ["model"]
    within = frame.groupby("model")[others].nunique().max()
    return ["model", *(leaf for leaf in others if within[leaf] > 1)]


def to_json(**values: Any) -> str:
    """One JSON object; numbers that aren't finite are null."""
    return json.dumps(_finite(values), ensure_ascii=False)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain Python values."""
    return [{str(key): _plain(value) for key, value in row.items()} for row in frame.to_dict("records")]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def transition_text(found: pd.DataFrame, axes: Sequence[str]) -> str:
    """Lay out estimates: what was varied, transition, interval, verdict, seeds.

    Args:
        found: Rows of the `transitions` table.
        axes: Columns that tell them apart.

    Returns:
        A table of aligned columns, a line per row.
    """
    if found.empty:
        return "no transition was measured"
    extra = [c for c in ("indicator", "perturbation", "magnitude", "measure") if found[c].nunique() > 1]
    header = [*axes, *extra, "transition", "95 % interval", "verdict", "seeds"]
    lines = [
        [
            *(_text(row[name]) for name in [*axes, *extra]),
            step_text(row["transition_step"]),
            interval_text(row),
            *_end(row),
        ]
        for row in records(found.sort_values([*axes, *extra]))
    ]
    return aligned([header, *lines])


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells as text, columns flush left."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def headline_text(found: pd.DataFrame) -> str:
    """One line that says what the numbers are for."""
    primary = found[found["is_primary"]]
    if primary.empty:
        return "exploratory: not the primary that the study declared"
    row = primary.iloc[0]
    return (
        f"transition: the step from which {row['indicator']} stays at or below {row['threshold']:g} for good, "
        f"{row['perturbation']} at magnitude {row['magnitude']:g}, measured at {row['measure']}; median over seeds"
    )


def control_text(everything: pd.DataFrame, shown: pd.DataFrame, axes: Sequence[str]) -> str:
    """The same estimates of the controls, for what is shown; empty if there are none."""
    indicators = set(shown["indicator"])
    controls = everything[(everything["perturbation"] == ORDER) & everything["indicator"].isin(indicators)]
    if controls.empty:
        return ""
    return "controls (not perturbed, another data order from the fork on):\n" + transition_text(controls, axes)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def step_text(value: float) -> str:
    """A step, – where there is none."""
    return "–" if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.0f}"


def interval_text(row: Mapping[str, Any]) -> str:
    """An interval of steps, open where it has no end."""
    if math.isnan(row["ci_low"]):
        return "–"
    return f"[{step_text(row['ci_low'])}, {step_text(row['ci_high'])}{')' if math.isinf(row['ci_high']) else ']'}"


def _end(row: dict[str, Any]) -> list[str]:
    return [str(row["verdict"]), str(row["num_seeds"])]

"""The transition table as text for a terminal, and as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from study.kernel_transitions import KERNEL_VELOCITY
from study.labels import part, setting_labels, varying_axes
from study.manifest import Declared
from twophase.config import LEAVES
from twophase.perturb import ORDER


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
        found: Rows of the `transitions` table, or of estimates pooled over settings.
        axes: Columns that tell them apart.

    Returns:
        A table of aligned columns, a line per row.
    """
    if found.empty:
        return "no transition was measured"
    extra = [c for c in ("indicator", "perturbation", "magnitude", "measure", "kernel") if found[c].nunique() > 1]
    is_mixed = found["is_primary"].nunique() > 1
    counts = ["settings", "seeds"] if "num_settings" in found else ["seeds"]
    header = [*axes, *extra, "transition", "95 % interval", "verdict", *counts, *["declared"] * is_mixed]
    lines = [
        [
            *(_text(row[name]) for name in [*axes, *extra]),
            step_text(row["transition_step"]),
            interval_text(row),
            str(row["verdict"]),
            *(str(row[f"num_{name}"]) for name in counts),
            *["primary" if row["is_primary"] else "exploratory"] * is_mixed,
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


def located_text(
    found: pd.DataFrame, shown: pd.DataFrame, axes: Sequence[str], declared: Declared, trials: pd.DataFrame
) -> str:
    """Everything that `run` and `locate` say of transitions.

    Args:
        found: All estimates.
        shown: Those asked for.
        axes: Columns that tell settings apart.
        declared: The study's declarations.
        trials: Its `trials` table.

    Returns:
        What the numbers are, the table, what to know of it, and the controls beside it.
    """
    parts = [headline_text(shown, declared, trials)]
    if len(shown):
        parts.append(transition_text(shown, axes))
    notes = [*reason_lines(shown, axes), *missing_lines(found, shown, trials, declared)]
    parts += [f"note: {line}" for line in notes]
    controls = controls_of(found, shown, axes)
    if len(controls):
        parts += ["", "controls (not perturbed, another data order from the fork on):", transition_text(controls, axes)]
        parts += [f"note: {line}" for line in reason_lines(controls, axes) if line not in notes]
    return "\n".join(parts)


KERNEL_VERDICTS = {"chaotic_throughout": "it drifts without a break", "stable_from_start": "constant or still"}
"""What the words that all indicators share mean of a kernel."""


def headline_text(shown: pd.DataFrame, declared: Declared, trials: pd.DataFrame) -> str:
    """One line that says what the numbers are, and whether they were declared before running."""
    if shown.empty:
        primary = declared.primary
        wanted = f"{primary.indicator} of {declared.perturbation} at magnitude {declared.primary_magnitude:g}"
        num_failed = int((trials["status"] == "failed").sum())
        if num_failed and num_failed == len(trials):
            causes = trials["error"].value_counts()
            return f"no transition was measured: all {num_failed} trials failed; most often: {causes.index[0]}"
        return f"no transition of the declared primary was measured yet ({wanted}, at {declared.measure})"
    row = shown.iloc[0]
    if row["indicator"] == KERNEL_VELOCITY:
        met = [f"{verdict}: {words}" for verdict, words in KERNEL_VERDICTS.items() if verdict in set(shown["verdict"])]
        meaning = f" ({'; '.join(met)})" if met else ""
        return (
            f"transition of the kernel (exploratory): the step at which its velocity breaks; median over seeds{meaning}"
        )
    where = [
        words.format(row[column])
        for column, words in (("perturbation", "{}"), ("magnitude", "at magnitude {:g}"))
        if shown[column].nunique() == 1 and row[column] != 0  # 0: it has no magnitude
    ]
    measures = _measure_words(shown, declared)
    what = ", ".join(
        filter(
            None,
            [
                f"the step from which {row['indicator']} stays at or below {row['threshold']:g} for good",
                " ".join(where),
                measures,
            ],
        )
    )
    if shown["is_primary"].all():
        return f"transition: {what}; median over seeds"
    kind = "exploratory, only the rows marked primary were" if shown["is_primary"].any() else "exploratory, not"
    return f"transition ({kind} declared before running): {what}; median over seeds"


def _measure_words(shown: pd.DataFrame, declared: Declared) -> str:
    """Where all rows were measured; empty if at different measure steps."""
    measures = list(dict.fromkeys(shown["measure"]))
    if declared.measure.endswith("ep") and shown["is_primary"].all() and declared.measure not in measures:
        return f"measured at {declared.measure} (step {', '.join(sorted(measures, key=_natural))})"
    return f"measured at {measures[0]}" if len(measures) == 1 else ""


def _natural(text: str) -> tuple[int, str]:
    return len(text), text


def reason_lines(shown: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """What to know of the rows shown: each reason once, with the rows it is about."""
    extra = [c for c in ("perturbation", "magnitude", "measure", "kernel") if shown[c].nunique() > 1]
    about: dict[str, list[str]] = {}
    for row in records(shown.sort_values([*axes, *extra])):
        if row["reason"]:
            about.setdefault(row["reason"], []).append(" · ".join(part(name, row[name]) for name in [*axes, *extra]))
    lines = []
    for words, rows in about.items():
        who = "all rows" if len(rows) == len(shown) > 1 else ", ".join(rows[:3]) + (", …" if len(rows) > 3 else "")
        lines.append(f"{who}{f' ({len(rows)} rows)' if len(rows) > 3 else ''}: {words}")
    return lines


def missing_lines(found: pd.DataFrame, shown: pd.DataFrame, trials: pd.DataFrame, declared: Declared) -> list[str]:
    """Name the settings that the primary says nothing of, and why; empty if other rows are shown than the primary's."""
    if shown.empty or not shown["is_primary"].all() or "setting_key" not in shown:
        return []
    primary = declared.primary
    is_same = (found["indicator"] == primary.indicator) & (found["perturbation"] == declared.perturbation)
    measured = found[is_same & (found["magnitude"] == declared.primary_magnitude) & ~found["is_primary"]]
    labels = setting_labels(trials, varying_axes(trials, list(LEAVES)))
    lines = []
    for key, label in labels.items():
        if key in set(shown["setting_key"]):
            continue
        of_setting = trials[trials["setting_key"] == key]
        failed = of_setting[of_setting["status"] == "failed"]
        others = measured[measured["setting_key"] == key]
        if len(failed) == len(of_setting):
            why = f"all {len(failed)} trials failed: {failed['error'].iloc[0]}"
        elif len(others):
            why = f"{others['reason'].iloc[0] or 'not measured at ' + declared.measure}"
        else:
            why = f"no {declared.perturbation} child of magnitude {declared.primary_magnitude:g} was run"
        lines.append(f"{label} has no row of the primary: {why}")
    return lines


def controls_of(found: pd.DataFrame, shown: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """The same estimates of the controls: of the settings, indicators and measure steps shown, each once."""
    keys = ["setting_key"] if "setting_key" in found else list(axes)
    keys = [*keys, "indicator", "measure"]
    wanted = shown[keys].drop_duplicates()
    return found[found["perturbation"] == ORDER].merge(wanted, on=keys)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def step_text(value: float) -> str:
    """A step, – where there is none."""
    return "–" if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.0f}"


def interval_text(row: Mapping[Any, Any]) -> str:
    """An interval of steps, open where it has no end."""
    if math.isnan(row["ci_low"]):
        return "–"
    return f"[{step_text(row['ci_low'])}, {step_text(row['ci_high'])}{')' if math.isinf(row['ci_high']) else ']'}"

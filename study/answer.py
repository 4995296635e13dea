"""The answer of a study in sentences: what was found, what controls say of it, and what differs between settings."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from study.axes import level_text
from study.comparison_text import factor_interval, factor_text, p_text
from study.ratios import ALL
from study.summary import interval_text, records, step_text

MOST_NAMES = 4
"""Settings that a sentence names; of more it says how many."""

MOST_SENTENCES = 10
"""About pairs of levels; the table has the others."""

_VERDICTS = {
    "located": "located",
    "stable_from_start": "stable from the start",
    "chaotic_throughout": "chaotic throughout",
    "undetermined": "undetermined",
}
ALIKE, EARLIER, LATER = "not told apart", "earlier", "later"
NEITHER, ALONE, UNKNOWN = "neither parts", "no control", "unknown"
_CONTROL_SENTENCES = {
    ALIKE: "as far as the intervals tell, children settle when controls do: the step says from where two runs can't "
    "part any more, whatever parts them, not that perturbations stop growing",
    EARLIER: "children settle before controls: two runs could still part there, yet this push no longer parts them",
    NEITHER: "neither children nor controls are ever apart: there is no chaotic phase to leave",
    LATER: "children settle after controls: this push parts runs that other data no longer part",
    ALONE: "no controls were run: whether any two runs could still part there isn't known",
    UNKNOWN: "the controls tell nothing",
}


def answer_lines(primary: pd.DataFrame, controls: pd.DataFrame, labels: Mapping[str, str]) -> list[str]:
    """Say how many settings have which verdict, and how the located ones stand to their controls.

    Args:
        primary: Rows of the primary.
        controls: The same estimates of controls.
        labels: Setting key -> label.
    """
    if primary.empty:
        return []
    return [_verdict_line(primary, labels), *_control_lines(primary, controls, labels)]


def against_controls(own: Mapping[str, Any], control: Mapping[str, Any] | None) -> str:
    """Whether children settle when their controls do: intervals that overlap are not told apart."""
    if control is None:
        return ALONE
    if own["verdict"] == control["verdict"] == "stable_from_start":
        return NEITHER
    if math.isnan(own["ci_low"]) or math.isnan(control["ci_low"]):
        return UNKNOWN
    if own["ci_high"] < control["ci_low"]:
        return EARLIER
    return LATER if own["ci_low"] > control["ci_high"] else ALIKE


def _verdict_line(primary: pd.DataFrame, labels: Mapping[str, str]) -> str:
    parts = []
    for verdict, said in _VERDICTS.items():
        rows = primary[primary["verdict"] == verdict]
        if rows.empty:
            continue
        where = ""
        if verdict == "located":
            low, high = step_text(rows["transition_step"].min()), step_text(rows["transition_step"].max())
            where = f" at step {low}" if low == high else f" between steps {low} and {high}"
        parts.append(f"{len(rows)} {said}{where}{_names(rows['setting_key'], labels)}")
    count = len(primary)
    return f"Of {count} setting{'s' * (count > 1)}: {'; '.join(parts)}."


def _control_lines(primary: pd.DataFrame, controls: pd.DataFrame, labels: Mapping[str, str]) -> Iterator[str]:
    of_control = {row["setting_key"]: row for row in records(controls)}
    judged = records(primary[primary["verdict"] != "undetermined"])
    told: dict[str, list[str]] = {}
    for row in judged:
        told.setdefault(against_controls(row, of_control.get(row["setting_key"])), []).append(row["setting_key"])
    for kind, sentence in _CONTROL_SENTENCES.items():
        keys = told.get(kind, [])
        if keys:
            yield f"{len(keys)} of {len(judged)} with a verdict{_names(keys, labels)}: {sentence}."


def _names(keys: Sequence[str] | pd.Series, labels: Mapping[str, str]) -> str:
    names = [label for key, label in labels.items() if key in set(keys)]
    return f" ({', '.join(names)})" if len(names) <= MOST_NAMES else ""


def ratio_lines(rows: pd.DataFrame) -> list[str]:
    """Say of each two levels whether one settles later: over all contexts together where there are several."""
    told = rows[rows["unit"] == "steps"]
    is_joint = (told["held"] == ALL) | (told["num_contexts"] == 1)
    pair = [told[name].astype(str) for name in ("axis", "level_a", "level_b")]
    has_joint = (told["held"] == ALL).groupby(pair).transform("any")
    chosen = records(told[is_joint & ((told["held"] == ALL) | ~has_joint)])
    lines = [_ratio_line(row) for row in chosen[:MOST_SENTENCES]]
    more = len(chosen) - len(lines)
    return [*lines, *([f"{more} more pairs of levels stand in the table below."] if more else [])]


def _ratio_line(row: Mapping[str, Any]) -> str:
    axis = str(row["axis"]).replace("_", " ")
    held = (
        f", over {row['num_contexts']} contexts" if row["held"] == ALL else f" at {row['held']}" if row["held"] else ""
    )
    along = f" (with it go {str(row['goes_with']).replace('_', ' ')})" if row["goes_with"] else ""
    who = f"{axis} {level_text(row['level_b'])} against {level_text(row['level_a'])}{held}{along}"
    one, other = (
        f"{row[f'num_chaotic_{side}']} of {row[f'num_seeds_{side}']} at {level_text(row[f'level_{side}'])}"
        for side in "ab"
    )
    shares = f"seeds ever chaotic: {one} and {other}"
    if math.isnan(row["ratio"]):
        return f"{who}: no ratio, {row['reason'] or 'too few seeds cross'}; {shares}."
    control = (
        f"; controls ×{factor_text(row['control_ratio'])} "
        f"{factor_interval(row, 'control_ci_low', 'control_ci_high')}: {row['of_controls']}"
        if not math.isnan(row["control_ratio"])
        else ""
    )
    return (
        f"{who}: ×{factor_text(row['ratio'])} {factor_interval(row, 'ci_low', 'ci_high')} on the transition step, "
        f"{row['verdict']} (p {_p(row['p_holm'])}, Holm){control}; {shares}."
    )


def trend_lines(rows: pd.DataFrame) -> list[str]:
    """Say of each numeric axis that has a trend by what factor a doubling moves the transition."""
    lines = []
    known = records(rows[(rows["unit"] == "steps") & rows["per_octave"].notna()])
    for row in known[:MOST_SENTENCES]:
        axis = str(row["axis"]).replace("_", " ")
        who = f"{axis} ({row['held']})" if row["held"] else axis
        adjusted = f", adjusted for {row['adjusted_for'].replace('_', ' ')}" if row["adjusted_for"] else ""
        lines.append(
            f"{who}: each doubling is ×{factor_text(row['per_octave'])} {factor_interval(row, 'ci_low', 'ci_high')} on "
            f"the transition step, {row['verdict']} (p {_p(row['p_holm'])}, Holm{adjusted}); of controls: "
            f"{row['of_controls']}."
        )
    more = len(known) - len(lines)
    return [*lines, *([f"{more} more trends stand in the table below."] if more else [])]


def _p(value: float) -> str:
    text = p_text(value)
    return text if text.startswith(("<", "–")) else f"= {text}"


def sensitivity_lines(rows: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> list[str]:
    """Hold each setting's sensitivity transition against its connectivity transition.

    Args:
        rows: As `study.sensitivity.beside_connectivity` gives them.
        labels: Setting key -> label.
    """
    lines = [
        f"{labels[row['setting_key']]}: sensitivity {_estimate(row)} (window of {row['window']} steps, "
        f"{row['num_seeds']} seed{'s' * (row['num_seeds'] != 1)}), connectivity "
        f"{_estimate(row['connectivity']) if row['connectivity'] else 'not measured'}."
        for row in rows[:MOST_SENTENCES]
    ]
    more = len(rows) - len(lines)
    return [*lines, *([f"{more} more settings stand in the table below."] if more > 0 else [])]


def _estimate(row: Mapping[str, Any]) -> str:
    if row["verdict"] == "located":
        return f"{step_text(row['transition_step'])} {interval_text(row)}"
    return _VERDICTS[str(row["verdict"])]

"""A comparison in words for a terminal."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from study.axes import MAGNITUDE, level_text
from study.clocks import WHY_NOT_CV
from study.comparing import Comparison
from study.ratios import ALL, LEAST_PAIRS, ever_chaotic
from study.summary import aligned, records

CENSORED = (
    "ratios and trends are of seeds that are ever chaotic; one unsettled at its last fork step counts as later than it"
)


def comparison_text(found: Comparison) -> str:
    """Everything that `compare` says."""
    parts = [headline(found)]
    for axis in found.axes:
        parts += ["", f"is it ever chaotic? by {axis.replace('_', ' ')}", shares_text(found, axis)]
        rows = found.ratios[found.ratios["axis"] == axis]
        parts += ["", f"and if so, how much later? ratios of steps, by {axis.replace('_', ' ')}", ratios_text(rows)]
        parts += [f"note: {line}" for line in ratio_notes(rows)]
    if len(found.trends):
        parts += ["", "trends", trends_text(found.trends)]
        parts += [f"note: {line}" for line in trend_notes(found)]
    if len(found.clocks):
        parts += ["", "what foretells it? leave-one-setting-out error in octaves (1 is a factor of two)"]
        parts += [clocks_text(found.clocks), f"note: {WHY_NOT_CV}"]
    parts += [f"\n{line}" for line in agreement_lines(found.agreements)]
    return "\n".join(parts)


def headline(found: Comparison) -> str:
    """What the numbers are for."""
    row = found.pushes.iloc[0]
    sizes = found.pushes[MAGNITUDE].unique()
    push = f"{row['perturbation']} at magnitude {sizes[0]:g}" if len(sizes) == 1 else f"{row['perturbation']}"
    return (
        f"compared: the step from which {row['indicator']} stays at or below {row['threshold']:g} for good, {push}, "
        f"measured at {row['measure']}; {CENSORED}"
    )


def shares_text(found: Comparison, axis: str) -> str:
    """How many seeds are ever chaotic at each level, and of controls."""
    lines = [["level", "ever chaotic", "95 % interval", "never settled", "controls ever chaotic"]]
    for level, rows in found.pushes.groupby(axis, sort=True):
        share = ever_chaotic(rows)
        controls = found.controls[found.controls["setting_key"].isin(rows["setting_key"])]
        of_controls = ever_chaotic(controls)
        lines.append(
            [
                level_text(level),
                f"{share.hits} of {share.num}",
                f"[{share.low:.2f}, {share.high:.2f}]" if share.num and rows["setting_key"].nunique() == 1 else "–",
                str(int((rows["outcome"] == "chaotic_throughout").sum())),
                f"{of_controls.hits} of {of_controls.num}" if of_controls.num else "–",
            ]
        )
    return aligned(lines)


def ratios_text(rows: pd.DataFrame) -> str:
    """A line per pair of levels and context."""
    several = rows["unit"].nunique() > 1
    header = ["levels", "held", *["unit"] * several, "ratio", "95 % interval", "p (Holm)", "verdict"]
    lines = [[*header, "controls", "", "p ever chaotic"]]
    for row in records(rows):
        lines.append(
            [
                f"{level_text(row['level_b'])} / {level_text(row['level_a'])}",
                {ALL: f"all {row['num_contexts']} together", "": "–"}.get(row["held"], row["held"]),
                *[row["unit"]] * several,
                factor_text(row["ratio"]),
                factor_interval(row, "ci_low", "ci_high"),
                p_text(row["p_holm"]),
                row["verdict"],
                f"{factor_text(row['control_ratio'])} {factor_interval(row, 'control_ci_low', 'control_ci_high')}",
                row["of_controls"],
                p_text(row["fisher_p_holm"]),
            ]
        )
    return aligned(lines)


def ratio_notes(rows: pd.DataFrame) -> list[str]:
    """What to know of them: what goes along, pairs, and why there is no ratio."""
    notes = []
    axis, along = rows["axis"].iloc[0], rows["goes_with"].iloc[0]
    if along:
        notes.append(f"{axis} never varies alone: {along} go along, and the ratio is of all of them together")
    known = rows[rows["correlation"].notna()]
    if len(known):
        low, high, pairs = known["correlation"].min(), known["correlation"].max(), int(known["is_paired"].sum())
        shared = known["num_shared_seeds"].max()
        few = f", never with fewer than {LEAST_PAIRS} shared seeds" if shared < LEAST_PAIRS else ""
        notes.append(
            f"seeds of two levels correlate by {low:.2f} to {high:.2f} (up to {shared} shared); paired in {pairs} "
            f"of {len(known)} comparisons, where that is above 0 beyond chance{few}"
        )
    counted = rows.loc[rows["unit"] == "steps", "reason"].value_counts()
    notes += [f"{count} comparison{'s' * (count > 1)}: {words}" for words, count in counted.items() if words]
    if (rows["of_controls"] == "shared").any():
        notes.append(
            "shared by controls: runs that see other data from the fork on part for as much longer, so that it tells "
            "how far two runs can still part, not how chaotic they are"
        )
    return notes


def trends_text(rows: pd.DataFrame) -> str:
    """A line per axis, unit and, for magnitudes, setting."""
    is_held = bool((rows["held"] != "").any())
    header = ["axis", *["setting"] * is_held, "unit", "per octave", "95 % interval", "p (Holm)", "verdict"]
    lines = [[*header, "adjusted for", "controls", ""]]
    for row in records(rows):
        lines.append(
            [
                row["axis"],
                *[row["held"]] * is_held,
                row["unit"],
                factor_text(row["per_octave"]),
                factor_interval(row, "ci_low", "ci_high"),
                p_text(row["p_holm"]),
                row["verdict"],
                row["adjusted_for"] or "–",
                f"{factor_text(row['control_per_octave'])} {factor_interval(row, 'control_ci_low', 'control_ci_high')}",
                row["of_controls"],
            ]
        )
    return aligned(lines)


def trend_notes(found: Comparison) -> list[str]:
    """What trends leave out, magnitudes in words, and whether other indicators have the same sign."""
    notes = []
    for row in records(found.trends):
        who = " ".join(filter(None, [row["axis"], f"({row['held']})" if row["held"] else ""]))
        if row["words"] and row["words"] != "unknown":
            factor = "" if math.isnan(row["per_decade"]) else f"×{factor_text(row['per_decade'])} per decade; "
            notes.append(f"{who}: {factor}{row['words']}")
        if row["unit"] == "steps" and row["reason"]:
            notes.append(f"{who}: {row['reason']}")
        if row["unit"] == "steps" and row["goes_with"]:
            notes.append(f"{who}: not told apart from {row['goes_with']}")
    return notes + sign_notes(found)


def sign_notes(found: Comparison) -> list[str]:
    """Where the sign of a trend hangs on the indicator or on the unit of time."""
    notes = []
    for axis in found.axes:
        own = found.trends[(found.trends["axis"] == axis) & (axis != MAGNITUDE)]
        others = found.others[found.others["axis"] == axis] if len(found.others) else found.others
        rows = [*records(own), *records(others)]
        said = [(f"{row['indicator']} in {row['unit']}", row["per_octave"]) for row in rows]
        known = [(name, factor) for name, factor in said if not math.isnan(factor)]
        if len({factor > 1 for _, factor in known}) > 1:
            listed = ", ".join(f"{name} ×{factor_text(factor)}" for name, factor in known)
            notes.append(f"the sign of {axis}'s trend hangs on what is measured: per octave {listed}")
        elif len(known) > 1:
            names = dict.fromkeys(name.partition(" in ")[0] for name, _ in known)
            notes.append(f"{axis}: the same sign by {', '.join(names)}")
    return notes


def clocks_text(rows: pd.DataFrame) -> str:
    """A line per clock, best first."""
    lines = [["clock", "error", "largest", "reads at the transition", "settings", "never reached", "CV of readings"]]
    for row in records(rows):
        lines.append(
            [
                row["clock"],
                f"{row['error_octaves']:.2f}",
                f"{row['largest_error_octaves']:.2f}",
                f"{row['reading']:.3g}",
                str(row["num_settings"]),
                str(row["num_never"]),
                f"{row['coefficient_of_variation']:.2f}",
            ]
        )
    return aligned(lines)


def agreement_lines(rows: pd.DataFrame) -> Iterable[str]:
    """Whether barrier and kernel agree, in a sentence per kind of kernel."""
    for row in records(rows):
        if not row["num_both"]:
            yield (
                f"chaos and cone ({row['kernel']} kernel): no setting has both transitions; {row['only_first']} only "
                f"the barrier's, {row['only_second']} only the kernel's"
            )
            continue
        yield (
            f"chaos and cone ({row['kernel']} kernel): the kernel's transition over the barrier's is "
            f"{factor_text(row['ratio'])} {factor_interval(row, 'ci_low', 'ci_high')} in {row['num_both']} of "
            f"{row['num_settings']} settings; rank correlation {_number(row['correlation'])} "
            f"[{_number(row['correlation_low'])}, {_number(row['correlation_high'])}]; intervals overlap in "
            f"{row['overlap_share']:.0%}; only the barrier's: {row['only_first']}, only the kernel's: "
            f"{row['only_second']}"
        )


def factor_text(value: float) -> str:
    """A factor in three digits; – where there is none."""
    return "–" if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.3g}"


def p_text(value: float) -> str:
    """A p-value; – where there is none."""
    return "–" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def factor_interval(row: Mapping[str, Any], low: str, high: str) -> str:
    """The ends of a factor; empty where there are none."""
    if math.isnan(row[low]):
        return ""
    return f"[{factor_text(row[low])}, {factor_text(row[high])}{')' if math.isinf(row[high]) else ']'}"


def _number(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.2f}"

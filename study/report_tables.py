"""The tables of the report: what each row says, from the tables of the study."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from study.answer import against_controls
from study.axes import level_text
from study.comparison_text import factor_interval, p_text
from study.confinements import setting_verdicts
from study.kernel_drift import kernel_drift
from study.kernel_transitions import KERNEL_VELOCITY
from study.page_table import Cell, PageTable, interval, number, page_table, words
from study.summary import controls_of, interval_text, records

Labels = Mapping[str, str]
CHILDREN, CONTROLS = "Perturbed children", "Controls: another data order"


def transition_table(
    found: pd.DataFrame, labels: Labels, links: Mapping[str, Sequence[tuple[str, str]]]
) -> PageTable | None:
    """The primary of every setting beside the same estimate of its control, with links to its figures."""
    primary = found[found["is_primary"]]
    controls = {row["setting_key"]: row for row in records(controls_of(found, primary, ()))} if len(primary) else {}
    own, rank = {row["setting_key"]: row for row in records(primary)}, _ranks(labels)
    rows = []
    for key, label in labels.items():
        if key not in own:
            continue
        control = controls.get(key)
        against = Cell(against_controls(own[key], control))
        places = tuple(links.get(key, ()))
        name = Cell("" if places else label, rank[key], links=_first_panel(label, key, places))
        figures = Cell("" if places else "not drawn", len(places), links=places)
        seeds = number(own[key]["num_seeds"], ".0f")
        rows.append([name, *_estimate(own[key]), *_estimate(control), seeds, against, figures])
    columns: list[str | tuple[str, str]] = [
        "Setting",
        *((title, group) for group in (CHILDREN, CONTROLS) for title in ("Step", "95 % interval", "Verdict")),
        *("Seeds", "Against controls", "Figures"),
    ]
    return page_table("table-transitions", "Transition of each setting, beside its controls", columns, rows)


def _first_panel(label: str, key: str, places: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Where a setting's name leads: to its own panel before any figure of all settings."""
    own = sorted((place for _, place in places), key=lambda place: not place.endswith(key))
    return tuple((label, place) for place in own[:1])


def _ranks(labels: Labels) -> dict[str, int]:
    """Settings are sorted as they were swept, not by their letters."""
    return {key: place for place, key in enumerate(labels)}


def _estimate(row: Mapping[str, Any] | None) -> list[Cell]:
    if row is None:
        return [Cell("–", math.nan), Cell("–", math.nan), Cell("not run")]
    step = number(row["transition_step"], ".0f", is_strong=row["perturbation"] != "order")
    return [step, interval(row, interval_text(row)), words(row["verdict"])]


def ratio_table(rows: pd.DataFrame) -> PageTable | None:
    """By what factor the transition is later at one level than at another, and how many seeds are ever chaotic."""
    return page_table(
        "table-ratios",
        "Ratios of transition steps between levels",
        [
            *("Axis", "Levels", "Held", "Unit", "Ratio", "95 % interval", "p (Holm)", "Verdict"),
            *(("Ratio", "Controls"), ("95 % interval", "Controls"), ("Effect", "Controls")),
            *(("first", "Seeds ever chaotic"), ("second", "Seeds ever chaotic"), "Why no ratio"),
        ],
        [
            [
                words(row["axis"]),
                Cell(f"{level_text(row['level_b'])} / {level_text(row['level_a'])}"),
                Cell(f"all {row['num_contexts']} together" if row["held"] == "all" else row["held"] or "–"),
                Cell(row["unit"]),
                number(row["ratio"], is_strong=True),
                interval(row, factor_interval(row, "ci_low", "ci_high")),
                Cell(p_text(row["p_holm"]), row["p_holm"]),
                Cell(row["verdict"]),
                number(row["control_ratio"]),
                interval(row, factor_interval(row, "control_ci_low", "control_ci_high"), "control_ci_low"),
                Cell(row["of_controls"]),
                *(_share(row, side) for side in "ba"),
                Cell(row["reason"] or "–"),
            ]
            for row in records(rows)
        ],
    )


def _share(row: Mapping[str, Any], side: str) -> Cell:
    count = row[f"num_seeds_{side}"]
    chaotic = row[f"num_chaotic_{side}"]
    return Cell(f"{chaotic} of {count}", chaotic / count if count else math.nan)


def trend_table(rows: pd.DataFrame) -> PageTable | None:
    """By what factor the transition is later per octave of each numeric axis, beside its control."""
    return page_table(
        "table-trends",
        "Factor on the transition step for each doubling",
        [
            *("Axis", "Unit", "Factor per octave", "95 % interval", "p (Holm)", "Verdict", "Adjusted for"),
            *(("Factor", "Controls"), ("95 % interval", "Controls"), ("Effect", "Controls")),
        ],
        [
            [
                Cell(" · ".join(filter(None, [str(row["axis"]).replace("_", " "), row["held"]]))),
                Cell(row["unit"]),
                number(row["per_octave"], is_strong=True),
                interval(row, factor_interval(row, "ci_low", "ci_high")),
                Cell(p_text(row["p_holm"]), row["p_holm"]),
                Cell(row["verdict"]),
                words(row["adjusted_for"]),
                number(row["control_per_octave"]),
                interval(row, factor_interval(row, "control_ci_low", "control_ci_high"), "control_ci_low"),
                Cell(row["of_controls"]),
            ]
            for row in records(rows)
        ],
    )


def agreement_table(found: pd.DataFrame, labels: Labels) -> PageTable | None:
    """Each setting's transition of chaos beside that of its kernels."""
    primary = {row["setting_key"]: row for row in records(found[found["is_primary"]])}
    of_kernel = records(found[found["indicator"] == KERNEL_VELOCITY])
    rank = _ranks(labels)
    rows = []
    for row in sorted(of_kernel, key=lambda row: rank[row["setting_key"]]):
        own = primary.get(row["setting_key"])
        ratio = row["transition_step"] / own["transition_step"] if own and own["transition_step"] else math.nan
        head = [Cell(labels[row["setting_key"]], rank[row["setting_key"]]), words(row["kernel"])]
        rows.append([*head, *_estimate(own), *_estimate({**row, "perturbation": "none"}), number(ratio, ".2f")])
    triple = ("Step", "95 % interval", "Verdict")
    pairs = [(title, group) for group in ("Chaos", "Kernel") for title in triple]
    columns: list[str | tuple[str, str]] = ["Setting", "Kernel", *pairs, "Kernel's over chaos'"]
    return page_table("table-agreement", "Chaos beside cone", columns, rows)


def sensitivity_table(rows: Sequence[Mapping[str, Any]], labels: Labels) -> PageTable | None:
    """From which step small perturbations no longer grow, beside the step from which children stay connected."""
    triple, rank = ("Step", "95 % interval", "Verdict"), _ranks(labels)
    return page_table(
        "table-sensitivity",
        "Sensitivity beside connectivity (exploratory)",
        [
            *("Setting", "Window"),
            *((title, group) for group in ("Sensitivity", "Connectivity") for title in triple),
            "Seeds",
        ],
        [
            [
                Cell(labels[row["setting_key"]], rank[row["setting_key"]]),
                number(row["window"], ".0f"),
                *_estimate({**row, "perturbation": "none"}),
                *_estimate(row["connectivity"]),
                number(row["num_seeds"], ".0f"),
            ]
            for row in rows
        ],
    )


def confinement_table(confinement: pd.DataFrame, labels: Labels) -> PageTable | None:
    """Whether each setting's kernels stay in a cone, from each step that was tested; None where none could be."""
    tested = confinement[confinement["p_walk"].notna()]
    rank = _ranks(labels)
    found = sorted(records(setting_verdicts(tested)), key=lambda row: rank[row["setting_key"]]) if len(tested) else []
    return page_table(
        "table-confinement",
        "Confinement of kernels from each step tested",
        [
            *("Setting", "Kernel", "From step τ", "Half-angle", "Walks'", "p, walks", "p, other runs"),
            *("γ, steps", "γ, learning rates", "Axis' share", "Verdict", "Seeds"),
        ],
        [
            [
                Cell(labels[row["setting_key"]], rank[row["setting_key"]]),
                words(row["kernel"]),
                number(row["tau_step"], ".0f"),
                *(Cell(f"{row[name]:.0f}°", row[name]) for name in ("half_angle_deg", "walk_half_angle_deg")),
                number(row["p_walk"], ".2g"),
                number(row["p_natural"], ".2g"),
                *(number(row[name], ".2f") for name in ("gamma_step", "gamma_lr")),
                Cell(f"{row['drift_share']:.0%}", row["drift_share"]),
                words(row["verdict"]),
                Cell(str(row["votes"])),
            ]
            for row in found
        ],
    )


def drift_table(cone: pd.DataFrame, labels: Labels) -> PageTable | None:
    """How each setting's kernels move."""
    rank = _ranks(labels)
    found = sorted(records(kernel_drift(cone)), key=lambda row: rank[row["setting_key"]]) if len(cone) else []
    return page_table(
        "table-drift",
        "Kernel distance S, early and late",
        [
            *("Setting", "Kernel", "Mean S, early", "Mean S, late", "Split at step", "S, split to end"),
            *("In words", "Seeds"),
        ],
        [
            [
                Cell(labels[row["setting_key"]], rank[row["setting_key"]]),
                words(row["kernel"]),
                *(number(row[name], ".2f") for name in ("early", "late")),
                number(row["split_step"], ".0f"),
                number(row["to_end"], ".2f"),
                Cell(str(row["words"]), is_wide=True),
                number(row["num_seeds"], ".0f"),
            ]
            for row in found
        ],
    )


def failure_table(trials: pd.DataFrame) -> PageTable | None:
    """Trials that failed or diverged, with the cause."""
    return page_table(
        "table-failures",
        "Trials that failed or diverged",
        ["Trial", "Model", "Seed", "Status", "Cause"],
        [
            [
                Cell(row["trial_key"]),
                Cell(row["model"]),
                number(row["seed"], ".0f"),
                Cell(row["status"]),
                Cell(row["error"] or "a loss or parameter of the reference is not finite", is_wide=True),
            ]
            for row in records(trials)
            if row["status"] != "ok"
        ],
    )


def key_table(trials: pd.DataFrame, labels: Labels) -> PageTable | None:
    """Keys of settings and trials: the same keys give the same rows."""
    rows, rank = {str(key): of for key, of in trials.sort_values("seed").groupby("setting_key")}, _ranks(labels)
    return page_table(
        "table-keys",
        "Keys of settings and of their trials, seed by seed",
        ["Setting", "Setting key", "Seeds", "Trial keys"],
        [
            [
                Cell(label, rank[key]),
                Cell(key),
                Cell(", ".join(map(str, rows[key]["seed"]))),
                Cell(", ".join(rows[key]["trial_key"]), is_wide=True),
            ]
            for key, label in labels.items()
            if key in rows
        ],
    )

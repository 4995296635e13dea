"""The report: one HTML file that holds everything it shows and asks nothing of a network."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

import results
from results.files import write_bytes
from search_spaces import space_yaml
from study import manifest
from study.comparing import Comparison, all_trends
from study.comparison_text import factor_interval, factor_text, p_text, trend_notes
from study.confinements import setting_verdicts
from study.evidence import read_evidence
from study.figures import Picture, pictures, save
from study.kernel_drift import NARROW, SPLIT_FRACTION, kernel_drift
from study.labels import setting_labels, varying_axes
from study.protocols import protocol_words
from study.status import read_status
from study.summary import controls_of, headline_text, interval_text, missing_lines, reason_lines, records, step_text
from twophase import __version__
from twophase.config import LEAVES

FILE = "report.html"
MAX_ROWS = 500
"""Rows of a table on the page; the Parquet files have them all."""


def write_report(study: results.Study) -> Path:
    """Write a study's figures and its report, from what its tables hold now.

    Args:
        study: The study, finished or not.

    Returns:
        The HTML file, `<study>/report.html`.
    """
    names = ("trials", "chaos", "transitions", "cone", "confinement", "switch", "trajectory")
    tables = {name: study.table(name) for name in names}
    protocols = read_evidence(study, manifest.read_declared(study.path) or manifest.Declared()).protocols
    tables |= {name: protocols.one_each(tables[name]) for name in names if name not in ("trials", "transitions")}
    made = pictures(tables)
    save(study, made)
    write_bytes(study.path / FILE, page(study, tables, made).encode())
    return study.path / FILE


def page(study: results.Study, tables: Mapping[str, pd.DataFrame], made: list[Picture]) -> str:
    """Fill the template."""
    environment = Environment(
        loader=PackageLoader("study"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    declared = manifest.read_declared(study.path) or manifest.Declared()
    trials = tables["trials"]
    found = tables["transitions"]
    primary = found[found["is_primary"]]
    axes = varying_axes(trials, list(LEAVES))
    compared = all_trends(tables["chaos"], declared, read_evidence(study, declared)) if len(found) else None
    return environment.get_template("report.html").render(
        name=study.name,
        version=__version__,
        headline=headline_text(primary, declared, trials),
        transitions=transition_rows(found, trials),
        notes=note_lines(found, trials, declared, axes)[:MAX_ROWS],
        confinements=confinement_rows(tables["confinement"], axes),
        trends=trend_rows(compared),
        trend_notes=[] if compared is None else trend_notes(compared),
        drifts=drift_rows(tables["cone"], axes),
        narrow=NARROW,
        split_percent=round(100 * SPLIT_FRACTION),
        counts=read_status(study).counts(),
        facts=_facts(trials),
        failures=[row for row in records(trials) if row["status"] != "ok"][:MAX_ROWS],
        pictures=made,
        spaces=[space_yaml(space) for space in declared.spaces],
        schedules=sorted(set(trials["schedule"])),
        max_rows=MAX_ROWS,
    )


def transition_rows(found: pd.DataFrame, trials: pd.DataFrame) -> list[dict[str, str]]:
    """The primary of every setting beside the same estimate of its control."""
    primary = found[found["is_primary"]]
    if primary.empty:
        return []
    labels = setting_labels(trials, varying_axes(trials, list(LEAVES)))
    controls = controls_of(found, primary, ()).set_index("setting_key")
    rows = []
    rank = {key: place for place, key in enumerate(labels.index)}
    for row in sorted(records(primary), key=lambda row: rank[row["setting_key"]]):
        key = row["setting_key"]
        control = records(controls.loc[[key]])[0] if key in controls.index else None
        rows.append(
            {
                "setting": str(labels[key]),
                **{f"own_{name}": text for name, text in _estimate(row).items()},
                **{f"control_{name}": text for name, text in _estimate(control).items()},
                "seeds": str(row["num_seeds"]),
            }
        )
    return rows[:MAX_ROWS]


def note_lines(
    found: pd.DataFrame, trials: pd.DataFrame, declared: manifest.Declared, axes: Sequence[str]
) -> list[str]:
    """What to know of the primary's estimates and their controls, and which settings have none."""
    primary = found[found["is_primary"]]
    own = reason_lines(primary, axes)
    of_controls = [line for line in reason_lines(controls_of(found, primary, axes), axes) if line not in own]
    return [*own, *missing_lines(found, primary, trials, declared), *(f"controls: {line}" for line in of_controls)]


def confinement_rows(confinement: pd.DataFrame, axes: Sequence[str]) -> list[dict[str, str]]:
    """Whether each setting's kernels stay in a cone, from each step that was tested; empty where none could be."""
    tested = confinement[confinement["p_walk"].notna()]
    if tested.empty:
        return []
    labels = setting_labels(confinement, axes)
    rank = {key: place for place, key in enumerate(labels.index)}
    rows = [
        {
            "setting": str(labels[row["setting_key"]]),
            "kernel": str(row["kernel"]),
            "tau": str(row["tau_step"]),
            "half_angle": f"{row['half_angle_deg']:.0f}°",
            "walk": f"{row['walk_half_angle_deg']:.0f}°",
            "p": f"{row['p_walk']:.2g}",
            "others": "–" if math.isnan(row["p_natural"]) else f"{row['p_natural']:.2g}",
            "gamma_step": f"{row['gamma_step']:.2f}",
            "gamma_lr": f"{row['gamma_lr']:.2f}",
            "drift": f"{row['drift_share']:.0%}",
            "verdict": row["verdict"].replace("_", " "),
            "votes": str(row["votes"]),
        }
        for row in sorted(records(setting_verdicts(tested)), key=lambda row: rank[row["setting_key"]])
    ]
    return rows[:MAX_ROWS]


def trend_rows(found: Comparison | None) -> list[dict[str, str]]:
    """By what factor the transition is later per octave of each numeric axis, beside its control."""
    if found is None:
        return []
    return [
        {
            "axis": " · ".join(filter(None, [str(row["axis"]).replace("_", " "), row["held"]])),
            "unit": str(row["unit"]),
            "factor": f"{factor_text(row['per_octave'])} {factor_interval(row, 'ci_low', 'ci_high')}",
            "p": p_text(row["p_holm"]),
            "verdict": str(row["verdict"]),
            "adjusted": row["adjusted_for"].replace("_", " ") or "–",
            "control": f"{factor_text(row['control_per_octave'])} "
            f"{factor_interval(row, 'control_ci_low', 'control_ci_high')}",
            "shared": str(row["of_controls"]),
        }
        for row in records(found.trends)
    ][:MAX_ROWS]


def drift_rows(cone: pd.DataFrame, axes: Sequence[str]) -> list[dict[str, str]]:
    """How each setting's kernels move."""
    if cone.empty:
        return []
    labels = setting_labels(cone, axes)
    rows = [
        {
            "setting": str(labels[row["setting_key"]]),
            "kernel": str(row["kernel"]),
            "split": str(row["split_step"]),
            **{name: "–" if math.isnan(row[name]) else f"{row[name]:.2f}" for name in ("early", "late", "to_end")},
            "seeds": str(row["num_seeds"]),
            "words": str(row["words"]),
        }
        for row in sorted(records(kernel_drift(cone)), key=lambda row: list(labels.index).index(row["setting_key"]))
    ]
    return rows[:MAX_ROWS]


def _estimate(row: Mapping[str, Any] | None) -> dict[str, str]:
    if row is None:
        return {"step": "–", "interval": "–", "verdict": "not run"}
    verdict = str(row["verdict"]).replace("_", " ")
    return {"step": step_text(row["transition_step"]), "interval": interval_text(row), "verdict": verdict}


def _facts(trials: pd.DataFrame) -> dict[str, str]:
    """What the trials say of how they were computed."""
    if trials.empty:
        return {}
    computed = trials[trials["status"] != "failed"]
    exact = int(computed["is_sentinel_exact"].sum())

    def every(column: str) -> str:
        return ", ".join(map(str, sorted(set(computed[column])))) or "–"

    return {
        "Sentinels bitwise equal to their reference": f"{exact} of {len(computed)} trials",
        "Lane-steps": f"{int(trials['lane_steps'].sum()):,}",
        "Time in trials": f"{trials['wall_seconds'].sum():,.0f} s",
        "twophase": every("twophase_version"),
        "torch": every("torch_version"),
        "Python": every("python_version"),
        "Device": every("device_name"),
        "Threads": every("num_threads"),
        "Protocol": " · ".join(map(protocol_words, sorted(set(computed["protocol"])))) or "–",
    }

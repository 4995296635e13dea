"""The report: one HTML file that holds everything it shows and asks nothing of a network."""

import base64
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

import results
from results.files import write_bytes
from search_spaces import space_yaml
from study import manifest
from study.answer import answer_lines, ratio_lines, sensitivity_lines, trend_lines
from study.comparison_text import agreement_lines, ratio_notes, trend_notes
from study.dating import agreements
from study.evidence import read_evidence
from study.figures import FIGURE_TABLES, OPTIONAL_TABLES, pictures
from study.kernel_drift import NARROW, SPLIT_FRACTION
from study.labels import setting_labels, varying_axes
from study.overview import Overview, overview
from study.page_table import MAX_ROWS
from study.panels import MAX_PANELS
from study.picture import Picture, save
from study.report_figures import figure_links, num_undrawn, shown_figures
from study.report_tables import (
    agreement_table,
    confinement_table,
    drift_table,
    failure_table,
    key_table,
    ratio_table,
    sensitivity_table,
    transition_table,
    trend_table,
)
from study.run_facts import computed_facts, run_facts
from study.sensitivity import beside_connectivity, sensitivities
from study.status import partial_text, read_status
from study.summary import controls_of, headline_text, missing_lines, reason_lines
from twophase import __version__
from twophase.config import LEAVES

TABLES: Final = (*FIGURE_TABLES, *OPTIONAL_TABLES)


def write_report(study: results.Study) -> Path:
    """Write a study's figures and its report, from what its tables hold now.

    Args:
        study: The study, finished or not.

    Returns:
        The HTML file, `<study>/report.html`.
    """
    tables = {name: study.table(name) for name in TABLES}
    declared = manifest.read_declared(study.path) or manifest.Declared()
    evidence = read_evidence(study, declared)
    derived = ("trials", "transitions", "boundary")
    tables |= {name: evidence.protocols.one_each(tables[name]) for name in TABLES if name not in derived}
    compared = overview(tables["chaos"], declared, evidence)
    made = pictures(tables, compared.courses)
    save(study, made)
    write_bytes(study.path / manifest.REPORT_FILE, page(study, tables, made, compared).encode())
    return study.path / manifest.REPORT_FILE


def page(
    study: results.Study,
    tables: Mapping[str, pd.DataFrame],
    made: Sequence[Picture],
    compared: Overview | None = None,
) -> str:
    """Fill the template.

    Args:
        study: The study, for its name, its declarations and how far it is.
        tables: Those named in `TABLES`.
        made: Its pictures.
        compared: Its settings against each other.
    """
    declared = manifest.read_declared(study.path) or manifest.Declared()
    trials, status = tables["trials"], read_status(study)
    axes = varying_axes(trials, list(LEAVES))
    labels = {str(key): str(label) for key, label in setting_labels(trials, axes).items()} if len(trials) else {}
    figures = shown_figures(made, trials)
    return _render(
        name=study.name,
        version=__version__,
        facts=run_facts(tables, declared, status),
        partial=partial_text(status),
        figures=figures,
        num_undrawn=num_undrawn(figures, list(labels)),
        failures=failure_table(trials),
        computed=computed_facts(trials),
        keys=key_table(trials, labels),
        spaces=[space_yaml(space) for space in declared.spaces],
        shell_name=shlex.quote(study.name),
        schedules=sorted(set(trials["schedule"])),
        methods=sorted(set(tables["transitions"]["method"])),
        thresholds=_thresholds(tables["transitions"]),
        **_answer(tables, declared, labels, axes, figure_links(figures, list(labels))),
        **_comparison(compared),
        **_kernels(tables, labels),
        **_sensitivity(tables, labels),
    )


def _render(**values: Any) -> str:
    """Fill the template; only its own script may run, whatever the values hold."""
    environment = Environment(
        loader=PackageLoader("study"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    folder = files("study") / "templates"
    style, script = (folder.joinpath(f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment.get_template("report.html")
    return template.render(
        style=style, script=script, digest=digest, max_rows=MAX_ROWS, max_panels=MAX_PANELS, **values
    )


def _answer(
    tables: Mapping[str, pd.DataFrame],
    declared: manifest.Declared,
    labels: Mapping[str, str],
    axes: Sequence[str],
    links: Mapping[str, Sequence[tuple[str, str]]],
) -> dict[str, Any]:
    """The primary: what it is, what was found, its table, and what to know of it."""
    found, trials = tables["transitions"], tables["trials"]
    primary = found[found["is_primary"]]
    controls = controls_of(found, primary, ()) if len(primary) else primary
    return {
        "headline": headline_text(primary, declared, trials),
        "answers": answer_lines(primary, controls, labels),
        "transitions": transition_table(found, labels, links),
        "notes": note_lines(found, trials, declared, axes)[:MAX_ROWS],
    }


def note_lines(
    found: pd.DataFrame, trials: pd.DataFrame, declared: manifest.Declared, axes: Sequence[str]
) -> list[str]:
    """What to know of the primary's estimates and their controls, and which settings have none."""
    primary = found[found["is_primary"]]
    own = reason_lines(primary, axes)
    of_controls = [line for line in reason_lines(controls_of(found, primary, axes), axes) if line not in own]
    return [*own, *missing_lines(found, primary, trials, declared), *(f"controls: {line}" for line in of_controls)]


def _comparison(compared: Overview | None) -> dict[str, Any]:
    """Ratios between levels and trends over numeric axes, in words and as tables."""
    if compared is None:
        return {"ratios": None, "trends": None, "ratio_words": [], "trend_words": [], "compare_notes": []}
    ratios, courses = compared.ratios, compared.courses
    notes = list(compared.reasons)
    for axis in ratios["axis"].unique():
        notes += [f"{axis}: {line}" for line in ratio_notes(ratios[ratios["axis"] == axis])]
    notes += [] if courses is None else trend_notes(courses)
    has_trend = courses is not None and bool(courses.trends["per_octave"].notna().any())
    return {
        "ratios": ratio_table(ratios),
        "ratio_words": ratio_lines(ratios),
        "trends": trend_table(courses.trends) if courses is not None and has_trend else None,
        "trend_words": [] if courses is None else trend_lines(courses.trends),
        "compare_notes": notes,
    }


def _kernels(tables: Mapping[str, pd.DataFrame], labels: Mapping[str, str]) -> dict[str, Any]:
    """Whether chaos and cone agree, whether kernels stay in a cone, and how they move."""
    confined = confinement_table(tables["confinement"], labels)
    return {
        "agreement_words": list(agreement_lines(agreements(tables["transitions"]))),
        "agreement": agreement_table(tables["transitions"], labels),
        "confinement": confined,
        "drift": drift_table(tables["cone"], labels) if confined is None else None,
        "narrow": NARROW,
        "split_percent": round(100 * SPLIT_FRACTION),
    }


def _sensitivity(tables: Mapping[str, pd.DataFrame], labels: Mapping[str, str]) -> dict[str, Any]:
    """Sensitivity transitions beside those of connectivity, where growth was measured."""
    growth = tables["growth"]
    rows = beside_connectivity(sensitivities(growth), tables["transitions"]) if len(growth) else []
    rank = {key: place for place, key in enumerate(labels)}
    rows = sorted(rows, key=lambda row: (rank[str(row["setting_key"])], row["window"]))
    return {"sensitivity": sensitivity_table(rows, labels), "sensitivity_words": sensitivity_lines(rows, labels)}


def _thresholds(found: pd.DataFrame) -> str:
    """Each indicator with its threshold, where any was estimated."""
    each = found.drop_duplicates("indicator")
    return ", ".join(f"{name} {level:g}" for name, level in zip(each["indicator"], each["threshold"], strict=True))

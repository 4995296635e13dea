"""One row per trial, derived from its live commits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

import pyarrow as pa

from results.commits import Commit
from results.layout import StudyFolder
from results.schema import Column, Value
from results.tables import TABLES

_UNKNOWN: dict[str, Value] = {"string": "unknown", "int": 0, "float": math.nan, "bool": False}


def trials_table(study: StudyFolder, commits: Iterable[Commit]) -> pa.Table:
    """The `trials` table of `commits`, which must be live."""
    ordered = sorted(commits, key=lambda commit: (commit.trial_key, commit.part))
    rows = []
    for trial_key, group in groupby(ordered, key=lambda commit: commit.trial_key):
        parts = list(group)
        rows.append({**parts[0].keys, "trial_key": trial_key, **trial_row(parts)})
    return pa.Table.from_pylist(rows, schema=study.schema("trials"))


def trial_row(parts: Sequence[Commit]) -> dict[str, Value]:
    """Joins what the parts of one trial say.

    Times and lane-steps add up; the width is the greatest; one inexact sentinel makes the trial inexact, and so
    does the lack of any; the rest is what the first part with rows says.
    """
    statuses = {part.status for part in parts}
    errors = dict.fromkeys(part.error for part in parts if part.error)
    row: dict[str, Value] = {
        "status": next((status for status in ("failed", "diverged") if status in statuses), "ok"),
        "error": "; ".join(errors),
    }
    for column in TABLES["trials"].columns:
        if column.name not in row:
            row[column.name] = _joined(column, parts)
    return row


def _joined(column: Column, parts: Sequence[Commit]) -> Value:
    # Parts with rows know the reference; failures only stand in where nobody else says anything.
    ordered = sorted(parts, key=lambda part: not part.files)
    values = [part.trial[column.name] for part in ordered if column.name in part.trial]
    known = [value for value in values if not (isinstance(value, float) and math.isnan(value))]
    if not known:
        return _UNKNOWN[column.type]
    if column.name == "wall_seconds":
        return math.fsum(float(value) for value in known)
    if column.name == "lane_steps":
        return sum(int(value) for value in known)
    if column.name == "lane_width":
        return max(int(value) for value in known)
    if column.name == "is_sentinel_exact":
        return all(known)
    return known[0]

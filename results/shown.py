"""A study in a notebook: what it holds, at a glance."""

from __future__ import annotations

from collections import Counter
from html import escape

import pyarrow.parquet as pq

from results.layout import StudyFolder
from results.packs import read_commits
from results.places import arrow_place
from results.tables import TABLES


def num_rows(study: StudyFolder) -> dict[str, int]:
    """Rows of each table, from commits and footers alone."""
    commits = read_commits(study)
    counted = Counter({"trials": len({commit.trial_key for commit in commits})})
    for commit in commits:
        for file in commit.files:
            counted[file.table] += file.num_rows
    for name, table in TABLES.items():
        if table.is_derived and name != "trials" and study.derived_file(name).exists():
            path, store = arrow_place(study.derived_file(name))
            counted[name] = pq.read_metadata(path, filesystem=store).num_rows
    return {name: counted[name] for name in TABLES}


def study_html(study: StudyFolder) -> str:
    """Name and folder, and of each table that has rows how many, and its own columns."""
    rows = "".join(
        f"<tr><td><code>{name}</code></td><td>{number:,}</td>"
        f'<td style="text-align: left">{", ".join(column.name for column in TABLES[name].columns)}</td></tr>'
        for name, number in num_rows(study).items()
        if number
    )
    head = '<tr><th>table</th><th>rows</th><th style="text-align: left">columns, beside keys and settings</th></tr>'
    title = f"<p>Study <b>{escape(study.name)}</b> in <code>{escape(str(study.path))}</code></p>"
    return f"{title}<table>{head}{rows}</table>" if rows else f"{title}<p>No rows yet.</p>"

"""Writing to a study: parts, derived tables, and the removal of what is no longer live.

Data files are immutable: a part written again with other rows gets other files (`….r1.parquet`), its commit is
replaced in one instant, and the files before are swept: at no moment does a commit name rows that it didn't make.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from results.commits import (
    STATUSES,
    Commit,
    CommittedFile,
    checked_keys,
    checked_trial,
    commit_bytes,
    live_commits,
    parse_commit,
    read_loose_commits,
    unshadowed,
)
from results.errors import SchemaError, StudyError
from results.files import is_temp, parquet_bytes, write_bytes
from results.heartbeat import heartbeat_files
from results.layout import StudyFolder, table_named
from results.lease import LEASE_FILE, STALE_SECONDS, require_lease
from results.packs import (
    PREFIX,
    compact,
    pack_bytes,
    pack_paths,
    parse_pack,
    read_commits,
    read_packed_commits,
    remove_files,
)
from results.places import ensure_folder
from results.schema import all_columns, arrow_table, check_names, checked, checked_measurement
from results.tables import TABLES
from results.trials import trials_table

_TRIAL_KEY = re.compile(r"[A-Za-z0-9_]{1,80}")
_PART = re.compile(r"[A-Za-z0-9_-]{1,120}")


def write_part(  # noqa: PLR0913 - all that a commit says, by name
    study: StudyFolder,
    *,
    trial_key: str,
    part: str,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    covers: Any,
    trial: Mapping[str, Any],
    keys: Mapping[str, Any],
    status: str,
    lease_id: str,
    error: str = "",
    generation: int = 0,
) -> Commit:
    """Writes the rows of one part and commits them, all or nothing.

    Args:
        study: where to.
        trial_key: the trial; letters, digits and `_`.
        part: name of the part within its trial; letters, digits, `_` and `-`. Writing it again replaces it.
        tables: rows by table, each with the table's own columns only; the rest comes from `keys`.
        covers: what these rows answer, any strict JSON; ours to keep, not to read.
        trial: any of `TRIAL_COLUMNS`.
        keys: study, setting_key, seed and every setting leaf.
        status: ok, diverged or failed; a failure has no rows.
        lease_id: the driver's lease.
        error: cause of a failure.
        generation: a higher one supersedes all parts of the trial of lower ones.

    Raises:
        SchemaError: something does not fit the schema.
        LeaseLost: the study is no longer that driver's; nothing is committed.
        StudyError: the part stands committed with a higher generation, or its commit is damaged.
    """
    _check_request(trial_key, part, status, tables, generation)
    keys = checked_keys(study, keys)
    trial = checked_trial(trial)
    identity = {**keys, "trial_key": trial_key}
    parts = {
        name: arrow_table(table_named(name), study.setting_columns, rows, identity)
        for name, rows in sorted(tables.items())
        if rows
    }
    stem = f"{trial_key}-{part}"
    before = _committed(study, stem)
    if before is not None and before.generation > generation:
        raise StudyError(f"part {stem} stands at generation {before.generation}; {generation} is superseded")
    commit = Commit(trial_key, part, generation, status, error, lease_id, keys, trial, covers, files=())
    commit_bytes(commit)  # refuses bad `covers` before anything is written
    guard = partial(require_lease, study.path, lease_id)
    files = tuple(_write_file(study, stem, name, rows, before, guard) for name, rows in parts.items())
    commit = replace(commit, files=files)
    write_bytes(study.commits_path / f"{stem}.json", commit_bytes(commit), before_replace=guard)
    return commit


def write_derived(study: StudyFolder, table: str, frame: pd.DataFrame) -> None:
    """Replaces the one file of a derived table; columns in any order, but exactly the schema's.

    Raises:
        SchemaError: a column is missing, unknown, of another type, or a key is missing in a row.
    """
    if not table_named(table).is_derived:
        raise SchemaError(f"table {table!r} is written by parts; derived are {', '.join(_derived())}")
    _write_derived(study, table, _from_frame(study, table, frame))


def write_trials(study: StudyFolder) -> None:
    """Writes the `trials` table, one row per trial, from the live commits."""
    _write_derived(study, "trials", trials_table(study, read_commits(study)))


def remove_commit(study: StudyFolder, commit: Commit, *, lease_id: str) -> None:
    """Takes a part back, so that it counts as missing; one that is gone already is fine.

    Raises:
        LeaseLost: the study is not that driver's.
    """
    require_lease(study.path, lease_id)
    remove_files(study, [f"{commit.stem}.json"])
    for path in pack_paths(study):
        held = parse_pack(study, path, path.read_bytes())
        kept = [other for other in held if other.stem != commit.stem]
        if len(kept) < len(held):
            files = {file.table: replace(file, num_rows=file.rows_in_file) for other in held for file in other.files}
            write_bytes(path, pack_bytes(kept, files), before_replace=partial(require_lease, study.path, lease_id))
    for file in commit.files if not commit.pack else ():
        (study.path / file.table / file.name).unlink(missing_ok=True)


def sweep(study: StudyFolder, *, lease_id: str) -> list[str]:
    """Removes superseded commits, data files that no commit names, heartbeats and temporary files.

    To be called while no worker of the driver writes. A kill at any point loses and doubles nothing: a
    superseded row is hidden by the newer commit until its own commit is gone, and by the lack of one after.

    Returns:
        What was removed, as paths within the study.

    Raises:
        LeaseLost: the study is not that driver's.
        StudyError: a commit is damaged: then nobody knows whose the unnamed files are, and nothing is removed.
    """
    require_lease(study.path, lease_id)
    loose, packed = read_loose_commits(study), read_packed_commits(study)
    live = live_commits(unshadowed([*loose, *packed]))
    kept = {(commit.stem, commit.pack) for commit in live}
    superseded = [f"{commit.stem}.json" for commit in loose if (commit.stem, "") not in kept]
    held = {commit.pack for commit in live}
    superseded += [path.name for path in pack_paths(study) if path.name not in held]
    remove_files(study, superseded)
    if compact(study, lease_id=lease_id, is_whole=False):
        live = read_commits(study)
    removed = [f"{study.commits_path.name}/{name}" for name in superseded]
    for path in [*unnamed_files(study, live), *temporary_files(study), *heartbeat_files(study)]:
        path.unlink(missing_ok=True)
        removed.append(path.relative_to(study.path).as_posix())
    return sorted(removed)


def unnamed_files(study: StudyFolder, commits: Iterable[Commit]) -> list[Path]:
    """Data files that none of `commits` names and that are not a derived table's."""
    named = {study.path / file.table / file.name for commit in commits for file in commit.files}
    named.update(study.derived_file(table) for table in _derived())
    return [
        path for table in TABLES for path in sorted((study.path / table).glob("[!.]*.parquet")) if path not in named
    ]


def temporary_files(study: StudyFolder) -> list[Path]:
    """What killed writers left half-way; a lease being taken just now is not among it."""
    folders = [study.path, study.commits_path, *(study.path / table for table in TABLES)]
    found = [path for folder in folders for path in sorted(folder.glob(".*")) if is_temp(path)]
    return [path for path in found if not _is_fresh_lease(study, path)]


def _check_request(trial_key: str, part: str, status: str, tables: Mapping[str, Any], generation: int) -> None:
    if trial_key == PREFIX:
        raise SchemaError(f"trial_key must not be {PREFIX!r}, which files of packs begin with")
    for field, value, pattern in (("trial_key", trial_key, _TRIAL_KEY), ("part", part, _PART)):
        if not pattern.fullmatch(value):
            raise SchemaError(f"{field} must match {pattern.pattern}, got {value!r}")
    if status not in STATUSES:
        raise SchemaError(f"status must be one of {', '.join(STATUSES)}, got {status!r}")
    if generation < 0:
        raise SchemaError(f"generation must be >= 0, got {generation}")
    if status == "failed" and any(tables.values()):
        raise SchemaError("a failed part must have no rows")
    for name in tables:
        if table_named(name).is_derived:
            raise SchemaError(f"table {name!r} is derived; a part cannot have rows of it")


def _committed(study: StudyFolder, stem: str) -> Commit | None:
    path = study.commits_path / f"{stem}.json"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    return parse_commit(study, path, text)


def _write_file(
    study: StudyFolder,
    stem: str,
    table: str,
    rows: pa.Table,
    before: Commit | None,
    guard: Callable[[], None],
) -> CommittedFile:
    """Writes one data file, under a name that the commit `before` doesn't use for other content."""
    data = parquet_bytes(rows)
    digest = hashlib.sha256(data).hexdigest()
    taken = {file.name: file.sha256 for file in before.files if file.table == table} if before else {}
    names = itertools.chain([f"{stem}.parquet"], (f"{stem}.r{number}.parquet" for number in itertools.count(1)))
    name = next(name for name in names if taken.get(name, digest) == digest)
    path = study.path / table / name
    ensure_folder(path.parent)
    # The guard stands here too: a killed driver's worker must not replace a file that its successor has committed.
    write_bytes(path, data, before_replace=guard)
    return CommittedFile(table, name, rows.num_rows, len(data), digest)


def _write_derived(study: StudyFolder, table: str, rows: pa.Table) -> None:
    path = study.derived_file(table)
    ensure_folder(path.parent)
    write_bytes(path, parquet_bytes(rows))


def _from_frame(study: StudyFolder, table: str, frame: pd.DataFrame) -> pa.Table:
    definition = table_named(table)
    columns = all_columns(definition, study.setting_columns)
    check_names(f"table {table!r}", map(str, frame.columns), (column.name for column in columns))
    own = {column.name for column in definition.columns} - set(definition.keys)
    arrays = [
        pa.array(
            [
                checked_measurement(column, value) if column.name in own else checked(column, value, is_key=True)
                for value in frame[column.name].tolist()
            ],
            field.type,
        )
        for column, field in zip(columns, study.schema(table), strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=study.schema(table))


def _derived() -> list[str]:
    return [name for name, table in TABLES.items() if table.is_derived]


def _is_fresh_lease(study: StudyFolder, path: Path) -> bool:
    if path.parent != study.path or LEASE_FILE not in path.name:
        return False
    try:
        # The heartbeat tells the file server's time.
        return path.stat().st_mtime > (study.path / LEASE_FILE).stat().st_mtime - STALE_SECONDS
    except FileNotFoundError:
        return False

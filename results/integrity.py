"""Proves a study whole, or says what is not. Damage is what it looks for, so no damage makes it fail."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from results.commits import Commit, CommittedFile, live_commits, parse_commit
from results.errors import StudyError
from results.layout import StudyFolder, table_named
from results.lease import live_holder
from results.store import temporary_files, unnamed_files
from results.tables import TABLES

_SHOWN_DUPLICATES = 10


@dataclass(frozen=True)
class Finding:
    """Something wrong: in which table (or `_commits`), what, and where: a path within the study, or a row's key."""

    table: str
    what: str
    where: str


def check(study: StudyFolder) -> list[Finding]:
    """Everything that is wrong with a study; nothing found means whole.

    While a driver runs, files on their way in or out are its business and not reported.
    """
    commits, findings = _read_each_commit(study)
    live = live_commits(commits)
    findings += _leftovers(study, commits, live)
    tables: dict[str, list[pa.Table]] = defaultdict(list)
    for table, name, committed in _files(study, live):
        rows, problems = _check_file(study, study.path / table / name, table, committed)
        findings += problems
        if rows is not None:
            tables[table].append(rows)
    for table, parts in tables.items():
        findings += _duplicates(table, parts)
    findings += _inexact_sentinels(live, tables["chaos"])
    findings += _differing_references(live, tables["chaos"])
    return findings


def _read_each_commit(study: StudyFolder) -> tuple[list[Commit], list[Finding]]:
    commits, findings = [], []
    if not study.commits_path.is_dir():
        return [], [Finding("_commits", "folder is missing", study.commits_path.name)]
    for path in sorted(study.commits_path.glob("[!.]*.json")):
        try:
            commits.append(parse_commit(study, path, path.read_text(encoding="utf-8", errors="replace")))
        except (StudyError, OSError) as error:
            findings.append(Finding("_commits", str(error), _within(study, path)))
    return commits, findings


def _leftovers(study: StudyFolder, commits: Sequence[Commit], live: Sequence[Commit]) -> Iterator[Finding]:
    if live_holder(study.path) is not None:
        return
    for path in temporary_files(study):
        yield Finding(path.parent.name, "temporary file left by a kill", _within(study, path))
    # Superseded commits are told of once; the files they name are theirs, not strays.
    for path in unnamed_files(study, commits):
        yield Finding(path.parent.name, "data file that no commit names", _within(study, path))
    kept = {commit.stem for commit in live}
    for commit in commits:
        if commit.stem not in kept:
            path = study.commits_path / f"{commit.stem}.json"
            yield Finding("_commits", "superseded commit not yet swept", _within(study, path))


def _files(study: StudyFolder, live: Iterable[Commit]) -> Iterator[tuple[str, str, CommittedFile | None]]:
    """Table, file name and what the commit says of it, for each file that should be read."""
    for commit in live:
        for file in commit.files:
            yield file.table, file.name, file
    for name, table in TABLES.items():
        path = study.derived_file(name)
        if table.is_derived and path.exists():
            yield name, path.name, None


def _check_file(
    study: StudyFolder, path: Path, table: str, committed: CommittedFile | None
) -> tuple[pa.Table | None, list[Finding]]:
    """The rows of a file, None if it cannot be trusted, and what is wrong with it."""
    where = _within(study, path)
    try:
        rows = _parsed(_content(path, committed))
        _require_schema(study, table, rows.schema)
    except StudyError as error:
        return None, [Finding(table, str(error), where)]
    if committed is not None and rows.num_rows != committed.num_rows:
        what = f"data file has {rows.num_rows} rows, its commit says {committed.num_rows}"
        return rows, [Finding(table, what, where)]
    return rows, []


def _content(path: Path, committed: CommittedFile | None) -> bytes:
    """Bytes of a file, as its commit vouches for them."""
    if not path.parent.is_dir():
        raise StudyError("data file is missing: its table has no folder")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise StudyError("data file is missing") from None
    except OSError as error:
        raise StudyError(f"data file cannot be read: {error.strerror}") from error
    if committed is not None and len(data) != committed.num_bytes:
        raise StudyError(f"data file has {len(data)} bytes, its commit says {committed.num_bytes}")
    if committed is not None and hashlib.sha256(data).hexdigest() != committed.sha256:
        raise StudyError("content of data file differs from its commit (sha256)")
    return data


def _parsed(data: bytes) -> pa.Table:
    try:
        return pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise StudyError(f"data file is no Parquet: {first}") from error


def _require_schema(study: StudyFolder, table: str, found: pa.Schema) -> None:
    """Refuses a schema that differs from the study's; columns that were added later may be missing."""
    columns = (*study.setting_columns, *table_named(table).columns)
    optional = {column.name for column in columns if column.fill is not None}
    wanted = {field.name: field for field in study.schema(table)}
    problems = [f"no column {name!r}" for name in wanted if name not in found.names and name not in optional]
    for field in found:
        if field.name not in wanted:
            problems.append(f"unknown column {field.name!r}")
        elif field.type != wanted[field.name].type:
            problems.append(f"column {field.name!r} is {field.type}, not {wanted[field.name].type}")
        elif field.nullable != wanted[field.name].nullable:
            problems.append(f"column {field.name!r} is {'' if field.nullable else 'not '}nullable")
    if problems:
        raise StudyError(f"schema of data file differs: {'; '.join(problems)}")


def _duplicates(table: str, parts: Sequence[pa.Table]) -> Iterator[Finding]:
    key = list(TABLES[table].row_key)
    rows = pa.concat_tables([part.select(key) for part in parts]).to_pandas()
    doubled = rows[rows.duplicated(keep="first")].drop_duplicates()
    for row in doubled.head(_SHOWN_DUPLICATES).itertuples(index=False):
        where = ", ".join(f"{name}={value}" for name, value in zip(key, row, strict=True))
        yield Finding(table, "row key occurs more than once", where)
    if len(doubled) > _SHOWN_DUPLICATES:
        yield Finding(table, f"{len(doubled) - _SHOWN_DUPLICATES} more row keys occur more than once", table)


def _inexact_sentinels(live: Iterable[Commit], chaos: Sequence[pa.Table]) -> Iterator[Finding]:
    for commit in live:
        # A failure has no sentinel, nor rows that one would have to prove.
        if commit.status != "failed" and commit.trial.get("is_sentinel_exact") is False:
            where = f"trial_key={commit.trial_key}, part={commit.part}"
            yield Finding("trials", "a sentinel is not bitwise equal to the reference", where)
    for part in chaos:
        sentinels = part.filter(pc.field("perturbation") == "none").to_pandas()
        # Where training itself diverged, NaN − NaN proves nothing and refutes nothing.
        excused = sentinels["diverged"] & sentinels["distance"].isna()
        for row in sentinels[(sentinels["distance"] != 0) & ~excused].itertuples():
            where = f"trial_key={row.trial_key}, measure_step={row.measure_step}"
            yield Finding("chaos", f"sentinel's distance is {row.distance}, not 0", where)


def _differing_references(live: Iterable[Commit], chaos: Sequence[pa.Table]) -> Iterator[Finding]:
    pairs = {(commit.trial_key, str(commit.trial.get("reference_digest", ""))) for commit in live}
    for part in chaos:
        pairs.update(zip(*(part.column(name).to_pylist() for name in ("trial_key", "reference_digest")), strict=True))
    digests: dict[str, list[str]] = defaultdict(list)
    for trial_key, digest in sorted(pair for pair in pairs if pair[1]):
        digests[trial_key].append(digest)
    for trial_key, found in digests.items():
        if len(found) > 1:
            what = f"references differ within one trial: {', '.join(found)}"
            yield Finding("chaos", what, f"trial_key={trial_key}")


def _within(study: StudyFolder, path: Path) -> str:
    return path.relative_to(study.path).as_posix()

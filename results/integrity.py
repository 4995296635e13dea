"""Proves a study whole, or says what is not. Damage is what it looks for, so no damage makes it fail."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from results.commits import Commit, CommittedFile, live_commits, parse_commit, unshadowed
from results.errors import StudyError
from results.layout import StudyFolder, table_named
from results.lease import live_holder
from results.packs import SUFFIX, Span, pack_paths, parse_pack, spans_by_file
from results.places import is_remote
from results.store import temporary_files, unnamed_files
from results.tables import TABLES

_SHOWN_DUPLICATES = 10
_NOT_SWEPT = "superseded commit not yet swept"
_RUN_AGAIN = "run the study's space again"


@dataclass(frozen=True)
class Finding:
    """Something wrong.

    Attributes:
        table: In which table, or `_commits`.
        what: What is wrong.
        where: A path within the study, or a row's key.
        mend: What to do about it; empty where `what` says so.
    """

    table: str
    what: str
    where: str
    mend: str = field(default="", compare=False)


def check(study: StudyFolder) -> list[Finding]:
    """Everything that is wrong with a study; nothing found means whole.

    While a driver runs, files on their way in or out are its business and not reported.
    """
    commits, findings = _read_each_commit(study)
    live = live_commits(unshadowed(commits))
    findings += _leftovers(study, commits, live)
    spans = spans_by_file(live)
    tables: dict[str, list[pa.Table]] = defaultdict(list)
    for table, name, own, committed in _files(study, live):
        rows, problems = _check_file(study, study.path / table / name, table, committed)
        if rows is not None and committed is not None and committed.is_shared and not problems:
            rows, problems = _check_spans(study, study.path / table / name, rows, spans[table, name], live)
        mend = _compute_again(own) if own else _RUN_AGAIN
        findings += [replace(problem, mend=mend) for problem in problems]
        if rows is not None:
            tables[table].append(rows)
    for table, parts in tables.items():
        findings += _duplicates(table, parts)
    findings += _inexact_sentinels(live, tables["chaos"])
    findings += _differing_references(live, tables["chaos"])
    return findings


def _check_spans(
    study: StudyFolder, path: Path, rows: pa.Table, spans: Sequence[Span], live: Iterable[Commit]
) -> tuple[pa.Table, list[Finding]]:
    """The live rows of a pack's file, and whether each commit's are of its own trial."""
    trial = {commit.stem: commit.trial_key for commit in live}
    parts = [rows.slice(span.first, span.num_rows) for span in spans]
    for span, part in zip(spans, parts, strict=True):
        if pc.unique(part.column("trial_key")).to_pylist() != [trial[span.commit]]:
            what = f"rows {span.first} to {span.first + span.num_rows} are not those of commit {span.commit}"
            return rows.slice(0, 0), [Finding(path.parent.name, what, _within(study, path))]
    return pa.concat_tables(parts), []


def _read_each_commit(study: StudyFolder) -> tuple[list[Commit], list[Finding]]:
    commits, findings = [], []
    if not is_remote(study.path) and not study.commits_path.is_dir():
        return [], [Finding("_commits", "folder is missing", study.commits_path.name, f"restore it, or {_RUN_AGAIN}")]
    for path in sorted(study.commits_path.glob("[!.]*.json")):
        try:
            commits.append(parse_commit(study, path, path.read_text(encoding="utf-8", errors="replace")))
        except (StudyError, OSError) as error:
            findings.append(Finding("_commits", str(error), _within(study, path)))
    for path in pack_paths(study):
        try:
            commits += parse_pack(study, path, path.read_bytes())
        except (StudyError, OSError) as error:
            findings.append(Finding("_commits", str(error), _within(study, path)))
    return commits, findings


def _leftovers(study: StudyFolder, commits: Sequence[Commit], live: Sequence[Commit]) -> Iterator[Finding]:
    if live_holder(study.path) is not None:
        return
    for path in temporary_files(study):
        yield Finding(path.parent.name, "temporary file left by a kill", _within(study, path), _RUN_AGAIN)
    # Superseded commits are told of once; the files they name are theirs, not strays.
    for path in unnamed_files(study, commits):
        yield Finding(path.parent.name, "data file that no commit names", _within(study, path), _RUN_AGAIN)
    kept = {(commit.stem, commit.pack) for commit in live}
    stale = {commit.pack or f"{commit.stem}.json" for commit in commits if (commit.stem, commit.pack) not in kept}
    for name in sorted(stale):
        what = "pack with superseded commits, not yet swept" if name.endswith(SUFFIX) else _NOT_SWEPT
        yield Finding("_commits", what, _within(study, study.commits_path / name), _RUN_AGAIN)


def _compute_again(name: str) -> str:
    return f"remove _commits/{name} and {_RUN_AGAIN}, which computes its rows again"


def _files(study: StudyFolder, live: Iterable[Commit]) -> Iterator[tuple[str, str, str, CommittedFile | None]]:
    """Table, file name, name of the commit and what it says of the file, for each file that should be read."""
    seen = set()
    for commit in live:
        for file in commit.files:
            if (file.table, file.name) not in seen:
                seen.add((file.table, file.name))
                whole = replace(file, num_rows=file.rows_in_file) if file.is_shared else file
                yield file.table, file.name, commit.pack or f"{commit.stem}.json", whole
    for name, table in TABLES.items():
        path = study.derived_file(name)
        if table.is_derived and path.exists():
            yield name, path.name, "", None


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
    for column in found:
        if column.name not in wanted:
            problems.append(f"unknown column {column.name!r}")
        elif column.type != wanted[column.name].type:
            problems.append(f"column {column.name!r} is {column.type}, not {wanted[column.name].type}")
        elif column.nullable != wanted[column.name].nullable:
            problems.append(f"column {column.name!r} is {'' if column.nullable else 'not '}nullable")
    if problems:
        raise StudyError(f"schema of data file differs: {'; '.join(problems)}")


def _duplicates(table: str, parts: Sequence[pa.Table]) -> Iterator[Finding]:
    key = list(TABLES[table].row_key)
    mend = _RUN_AGAIN if TABLES[table].is_derived else _compute_again("<its trial key>-*.json")
    rows = pa.concat_tables([part.select(key) for part in parts]).to_pandas()
    doubled = rows[rows.duplicated(keep="first")].drop_duplicates()
    for row in doubled.head(_SHOWN_DUPLICATES).itertuples(index=False):
        where = ", ".join(f"{name}={value}" for name, value in zip(key, row, strict=True))
        yield Finding(table, "row key occurs more than once", where, mend)
    if len(doubled) > _SHOWN_DUPLICATES:
        yield Finding(table, f"{len(doubled) - _SHOWN_DUPLICATES} more row keys occur more than once", table, mend)


def _inexact_sentinels(live: Iterable[Commit], chaos: Sequence[pa.Table]) -> Iterator[Finding]:
    for commit in live:
        # A failure has no sentinel, nor rows that one would have to prove.
        if commit.status != "failed" and commit.trial.get("is_sentinel_exact") is False:
            where = f"trial_key={commit.trial_key}, part={commit.part}"
            what = "a sentinel is not bitwise equal to the reference"
            yield Finding("trials", what, where, _compute_again(f"{commit.trial_key}-*.json"))
    for part in chaos:
        sentinels = part.filter(pc.field("perturbation") == "none").to_pandas()
        # Where training itself diverged, NaN − NaN proves nothing and refutes nothing.
        excused = sentinels["diverged"] & sentinels["distance"].isna()
        for row in sentinels[(sentinels["distance"] != 0) & ~excused].itertuples():
            where = f"trial_key={row.trial_key}, measure_step={row.measure_step}"
            what = f"sentinel's distance is {row.distance}, not 0"
            yield Finding("chaos", what, where, _compute_again(f"{row.trial_key}-*.json"))


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
            yield Finding("chaos", what, f"trial_key={trial_key}", _compute_again(f"{trial_key}-*.json"))


def _within(study: StudyFolder, path: Path) -> str:
    return path.relative_to(study.path).as_posix()

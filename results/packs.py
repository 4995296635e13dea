"""Packs: many commits and their rows in few files, the same rows for every reader.

A pack is one file beside the commits, `_commits/<id>.pack`, and one data file per table, `<table>/pack-<id>.parquet`,
in which each commit's rows stand together. The data files come first, then the pack, then the commits that it holds
lose their own files, and last their data files go. A kill at any point loses and doubles nothing: a commit that has its
own file is read from there, and what no commit names is swept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from results.commits import (
    TRIAL_COLUMNS,
    Commit,
    CommittedFile,
    from_json,
    live_commits,
    read_loose_commits,
    to_json,
    unshadowed,
)
from results.errors import StudyError
from results.files import flush_folder, json_bytes, temp_path, write_bytes
from results.layout import StudyFolder
from results.lease import require_lease
from results.places import arrow_place, is_remote, upload_file
from results.schema import Column
from results.tables import TABLES

PREFIX, SUFFIX = "pack", ".pack"
ROWS_PER_GROUP = 1 << 17
MOST_LOOSE = 500
"""Commits with files of their own from which on the end of a run packs them: every file costs a reader time."""
MOST_PACKS = 8
"""Packs from which on they are made into one."""
_RELISTINGS = 100


def read_all_commits(study: StudyFolder, trial_key: str = "") -> list[Commit]:
    """Every commit, superseded ones included, by trial and part; those of a pack give way to files of their own.

    Args:
        study: The study.
        trial_key: A trial, whose commits alone are read; all by default.

    Raises:
        StudyError: one is damaged.
    """
    loose = read_loose_commits(study, trial_key)
    packed = [commit for commit in read_packed_commits(study) if trial_key in ("", commit.trial_key)]
    return unshadowed([*loose, *packed])


def read_commits(study: StudyFolder, trial_key: str = "") -> list[Commit]:
    """The live commits, by trial and part.

    Args:
        study: The study.
        trial_key: A trial, whose commits alone are read; all by default.

    Raises:
        StudyError: a commit or a pack is damaged.
    """
    return live_commits(read_all_commits(study, trial_key))


def read_packed_commits(study: StudyFolder) -> list[Commit]:
    """Every commit in a pack; to be read after those with files of their own, which are removed after they are packed.

    Raises:
        StudyError: a pack is damaged.
    """
    for _ in range(_RELISTINGS):
        try:
            return [commit for path in pack_paths(study) for commit in parse_pack(study, path, path.read_bytes())]
        except FileNotFoundError:  # gone between listing and reading: another one holds its commits now
            continue
    raise StudyError(f"the packs of {study.path} change all the time; try again")


def pack_paths(study: StudyFolder) -> list[Path]:
    """The packs that there are."""
    return sorted(study.commits_path.glob(f"[!.]*{SUFFIX}"))


def parse_pack(study: StudyFolder, path: Path, data: bytes) -> list[Commit]:
    """The commits of a pack.

    Raises:
        StudyError: it is damaged.
    """
    try:
        digest, _, body = data.partition(b"\n")
        if hashlib.sha256(body).hexdigest() != digest.decode():
            raise ValueError("its content isn't what was written (sha256)")
        content = json.loads(body)
        shared = {table: CommittedFile(**file) for table, file in content["files"].items()}
        if any(table not in TABLES or Path(file.name).name != file.name for table, file in shared.items()):
            raise ValueError("it names a file outside the tables")
        fills = {column.name: column.fill for column in study.setting_columns if column.fill is not None}
        floats = [column for column in study.setting_columns if column.type == "float"]
        keys = [_typed_keys({**fills, **entry}, floats) for entry in content["keys"]]
        if any(entry["study"] != study.name for entry in keys):
            raise ValueError(f"it is not of study {study.name!r}")
        return [_unpacked(entry, shared, keys, content["covers"], path.name) for entry in content["commits"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StudyError(
            f"damaged pack {path}: {error or type(error).__name__}; remove it to have its rows computed again"
        ) from error


def _typed_keys(entry: dict[str, Any], floats: Sequence[Column]) -> dict[str, Any]:
    for column in floats:
        entry[column.name] = from_json(column, entry[column.name])
    return entry


def _unpacked(
    entry: Mapping[str, Any],
    shared: Mapping[str, CommittedFile],
    keys: Sequence[Mapping[str, Any]],
    covers: Sequence[Any],
    pack: str,
) -> Commit:
    files = tuple(
        CommittedFile(table, file.name, rows, file.num_bytes, file.sha256, first, file.num_rows)
        for table, (first, rows) in entry["files"].items()
        for file in (shared[table],)
    )
    trial = {name: from_json(TRIAL_COLUMNS[name], value) for name, value in entry["trial"].items()}
    plain = {name: entry[name] for name in ("trial_key", "part", "generation", "status", "error", "lease_id")}
    return Commit(
        **plain, keys=keys[entry["keys"]], trial=trial, covers=covers[entry["covers"]], files=files, pack=pack
    )


def pack_bytes(commits: Iterable[Commit], files: Mapping[str, CommittedFile]) -> bytes:
    """A pack: its hash in the first line, then JSON in which what many commits share stands once.

    Args:
        commits: What it holds, each with its rows' place in `files`.
        files: Table -> its data file.
    """
    keys: dict[str, int] = {}
    covers: dict[str, int] = {}
    entries = []
    for commit in commits:
        of_keys = json.dumps({name: to_json(value) for name, value in commit.keys.items()}, sort_keys=True)
        of_covers = json.dumps(commit.covers, sort_keys=True)
        plain = {name: getattr(commit, name) for name in ("trial_key", "part", "generation", "status", "error")}
        entries.append(
            {
                **plain,
                "lease_id": commit.lease_id,
                "keys": keys.setdefault(of_keys, len(keys)),
                "covers": covers.setdefault(of_covers, len(covers)),
                "trial": {name: to_json(value) for name, value in commit.trial.items()},
                "files": {file.table: [file.first, file.num_rows] for file in commit.files},
            }
        )
    content = {
        "files": {table: asdict(replace(file, first=0, rows_in_file=-1)) for table, file in files.items()},
        "keys": list(map(json.loads, keys)),
        "covers": list(map(json.loads, covers)),
        "commits": entries,
    }
    body = json_bytes(content)
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


@dataclass(frozen=True)
class Span:
    """Live rows of one data file that hold together: of which commit, and where."""

    commit: str
    first: int
    num_rows: int


def spans_by_file(commits: Iterable[Commit], table: str | None = None) -> dict[tuple[str, str], list[Span]]:
    """Table and file name -> the live spans in it, by place; of all tables, or of one."""
    found: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for commit in commits:
        for file in commit.files:
            if table is not None and file.table != table:
                continue
            found[file.table, file.name].append(Span(commit.stem, file.first, file.num_rows))
    return {name: sorted(spans, key=lambda span: span.first) for name, spans in found.items()}


def holed_files(commits: Iterable[Commit]) -> set[tuple[str, str]]:
    """Table and file name of data files in which rows stand that no commit of these names."""
    commits = list(commits)
    whole = {(file.table, file.name): file.rows_in_file for c in commits for file in c.files if file.is_shared}
    named = spans_by_file(commits)
    return {name for name, rows in whole.items() if sum(span.num_rows for span in named[name]) < rows}


def compact(study: StudyFolder, *, lease_id: str, is_whole: bool = True) -> int:
    """Put commits and their rows into one pack.

    To be called by the driver, while no worker writes.

    Args:
        study: The study.
        lease_id: The driver's lease.
        is_whole: All of them; else only what has become too much: many commits with files of their own, many packs, and
            packs that hold rows of superseded commits.

    Returns:
        Commits that were put into another file.

    Raises:
        LeaseLost: the study is not that driver's.
        StudyError: a commit, pack or data file is damaged.
    """
    guard = partial(require_lease, study.path, lease_id)
    guard()
    live = read_commits(study)
    chosen = _chosen(study, live, is_whole=is_whole)
    if not chosen:
        return 0
    old = {commit.pack for commit in chosen if commit.pack}
    name = uuid.uuid4().hex[:16]
    try:
        _write_pack(study, name, chosen, guard)
    except BaseException:
        _take_back(study, name)
        raise
    remove_files(study, [*(f"{commit.stem}.json" for commit in chosen if not commit.pack), *old])
    return len(chosen)


def _write_pack(study: StudyFolder, name: str, chosen: Sequence[Commit], guard: Callable[[], None]) -> None:
    places: dict[str, list[CommittedFile]] = defaultdict(list)
    files = {}
    for table in TABLES:
        spans = spans_by_file(chosen, table)
        if spans:
            files[table], starts = _write_table(study, table, f"{PREFIX}-{name}.parquet", spans, guard)
            for stem, start, rows in starts:
                places[stem].append(replace(files[table], first=start, num_rows=rows))
    packed = [replace(commit, files=tuple(places[commit.stem])) for commit in chosen]
    write_bytes(study.commits_path / f"{name}{SUFFIX}", pack_bytes(packed, files), before_replace=guard)


def _take_back(study: StudyFolder, name: str) -> None:
    """Remove the data files of a pack that came to nothing: who knows nothing of commits would count them twice."""
    if (study.commits_path / f"{name}{SUFFIX}").exists():
        return
    for table in TABLES:
        with contextlib.suppress(OSError):  # what the disk doesn't let go of is swept later
            (study.path / table / f"{PREFIX}-{name}.parquet").unlink()


def remove_files(study: StudyFolder, names: Iterable[str]) -> None:
    """Removes commit files or packs for good, before anybody touches the data they name."""
    names = list(names)
    for name in names:
        (study.commits_path / name).unlink(missing_ok=True)
    if names:
        flush_folder(study.commits_path)


def _chosen(study: StudyFolder, live: Sequence[Commit], *, is_whole: bool) -> list[Commit]:
    """What is to be packed; whole packs only, so that the old ones can go."""
    packs = {path.name for path in pack_paths(study)}
    loose = [commit for commit in live if not commit.pack]
    holed = holed_files(live)
    torn = {commit.pack for commit in live if any((f.table, f.name) in holed for f in commit.files)}
    if is_whole or len(packs) > MOST_PACKS:
        return list(live) if loose or torn or len(packs) > 1 else []
    if len(loose) >= MOST_LOOSE:
        return [commit for commit in live if not commit.pack or commit.pack in torn]
    return [commit for commit in live if commit.pack in torn]


def _write_table(
    study: StudyFolder,
    table: str,
    name: str,
    spans: Mapping[tuple[str, str], Sequence[Span]],
    guard: Callable[[], None],
) -> tuple[CommittedFile, list[tuple[str, int, int]]]:
    """Write one table's data file; also each commit's place in it: its stem, first row and number of rows."""
    path = study.path / table / name
    starts: list[tuple[str, int, int]] = []
    written = 0
    with _scratch(path) as temp:
        with pq.ParquetWriter(temp, study.schema(table), compression="zstd") as writer:
            waiting: list[pa.Table] = []
            for (_, source), wanted in spans.items():
                for span, rows in _rows_of(study, study.path / table / source, table, wanted):
                    if not starts or starts[-1][0] != span.commit:
                        starts.append((span.commit, written, span.num_rows))
                    written += rows.num_rows
                    waiting.append(rows)
                    if sum(map(len, waiting)) >= ROWS_PER_GROUP:
                        writer.write_table(pa.concat_tables(waiting), row_group_size=ROWS_PER_GROUP)
                        waiting = []
            if waiting:
                writer.write_table(pa.concat_tables(waiting), row_group_size=ROWS_PER_GROUP)
        with temp.open("rb+") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        guard()
        size = temp.stat().st_size
        if is_remote(path):
            upload_file(temp, path)
        else:
            temp.replace(path)
    flush_folder(path.parent)
    return CommittedFile(table, name, written, size, digest), starts


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """A file of this machine to write what is to be `path`: beside it, or where that is no place of this machine."""
    if is_remote(path):
        with tempfile.TemporaryDirectory(prefix="twophase-") as folder:
            yield Path(folder) / path.name
        return
    temp = temp_path(path)
    try:
        yield temp
    finally:
        temp.unlink(missing_ok=True)


def _rows_of(study: StudyFolder, path: Path, table: str, wanted: Sequence[Span]) -> Iterator[tuple[Span, pa.Table]]:
    """The rows of spans of a file, in order, a part of a span at a time, with the columns of today."""
    schema = study.schema(table)
    fills = {c.name: c.fill for c in (*study.setting_columns, *TABLES[table].columns) if c.fill is not None}
    left, position = list(wanted), 0
    try:
        name, files = arrow_place(path)
        batches = pq.ParquetFile(name, filesystem=files).iter_batches(ROWS_PER_GROUP)
        for batch in batches:
            rows = _grown(pa.Table.from_batches([batch]), schema, fills)
            while left and left[0].first < position + rows.num_rows:
                span = left[0]
                begin, end = max(span.first, position), min(span.first + span.num_rows, position + rows.num_rows)
                yield span, rows.slice(begin - position, end - begin)
                if end < span.first + span.num_rows:
                    break
                left.pop(0)
            position += rows.num_rows
    except (pa.ArrowException, OSError) as error:
        raise StudyError(f"cannot read {path}: {(str(error) or type(error).__name__).splitlines()[0]}") from error
    if [span for span in left if span.num_rows]:
        raise StudyError(f"{path} has {position} rows, fewer than its commits say")


def _grown(rows: pa.Table, schema: pa.Schema, fills: Mapping[str, Any]) -> pa.Table:
    """Rows of an older version, with the columns that were added since."""
    columns = [
        rows.column(field.name)
        if field.name in rows.column_names
        else pa.chunked_array([pa.repeat(pa.scalar(fills[field.name], field.type), rows.num_rows)])
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)

"""A commit: the small file, written last, that makes a part's rows exist."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from results.errors import SchemaError, StudyError
from results.files import json_bytes
from results.layout import StudyFolder
from results.schema import IDENTITY, Column, Value, check_names, checked
from results.tables import TABLES

STATUSES = ("ok", "diverged", "failed")

TRIAL_COLUMNS: dict[str, Column] = {
    **{column.name: column for column in TABLES["trials"].columns if column.name not in ("status", "error")},
    "reference_digest": Column("reference_digest", "string", "", "hash of the reference's final state"),
}
"""What a commit may say about its trial; each is optional."""

_RELISTINGS = 100


@dataclass(frozen=True)
class CommittedFile:
    """Rows of a commit in one data file; `name` is its file name in the table's folder.

    In a file that holds several commits' rows, `first` is the place of this one's first, and `rows_in_file` counts all;
    bytes and hash are the file's.
    """

    table: str
    name: str
    num_rows: int
    num_bytes: int
    sha256: str
    first: int = 0
    rows_in_file: int = -1

    @property
    def is_shared(self) -> bool:
        """Whether the file may hold other commits' rows as well."""
        return self.rows_in_file >= 0


@dataclass(frozen=True)
class Commit:
    """What one part holds, and of which trial.

    `keys` are study, setting_key, seed and every setting leaf; `covers` is the caller's; `trial` has any of
    `TRIAL_COLUMNS`. Of one trial only the commits of the highest generation are live. `pack` is the file name of the
    pack that it stands in; empty for one with a file of its own.
    """

    trial_key: str
    part: str
    generation: int
    status: str
    error: str
    lease_id: str
    keys: Mapping[str, Value]
    trial: Mapping[str, Value]
    covers: Any
    files: tuple[CommittedFile, ...]
    pack: str = ""

    @property
    def stem(self) -> str:
        """Name of the commit file, and first part of its data files' names."""
        return f"{self.trial_key}-{self.part}"


def commit_bytes(commit: Commit) -> bytes:
    """The commit as strict JSON: NaN as null, infinities as text.

    Raises:
        SchemaError: `covers` is not JSON.
    """
    content = asdict(commit)
    del content["pack"]
    content["files"] = [
        {k: v for k, v in file.items() if k not in ("first", "rows_in_file")} for file in content["files"]
    ]
    content["keys"] = {name: to_json(value) for name, value in commit.keys.items()}
    content["trial"] = {name: to_json(value) for name, value in commit.trial.items()}
    try:
        return json_bytes(content)
    except (TypeError, ValueError) as error:
        raise SchemaError(f"covers of part {commit.part!r} must be strict JSON: {error}") from error


def parse_commit(study: StudyFolder, path: Path, text: str) -> Commit:
    """The commit in `text`, read from `path`; leaves that it is older than get their fill.

    Raises:
        StudyError: it is damaged.
    """
    try:
        content = json.loads(text)
        content["files"] = tuple(CommittedFile(**file) for file in content["files"])
        content["keys"] = checked_keys(study, _filled(study, content["keys"]), is_stored=True)
        content["trial"] = checked_trial(content["trial"], is_stored=True)
        commit = Commit(**content)
        if path.name != f"{commit.stem}.json":
            raise ValueError(f"it is about part {commit.stem}")
        if any(file.table not in TABLES or Path(file.name).name != file.name for file in commit.files):
            raise ValueError("it names a file outside the tables")
        _check_types(commit)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, SchemaError) as error:
        raise StudyError(
            f"damaged commit file {path}: {error or type(error).__name__}; remove it to have its rows computed again"
        ) from error
    return commit


def checked_keys(study: StudyFolder, keys: Mapping[str, Any], *, is_stored: bool = False) -> dict[str, Value]:
    """Study, setting key, seed and leaves, as their columns' types.

    Raises:
        SchemaError: one is missing, unknown, of another type, or the study is another one.
    """
    columns = {name: IDENTITY[name] for name in ("study", "setting_key", "seed")}
    columns.update({column.name: column for column in study.setting_columns})
    check_names("keys", keys, columns)
    values = {name: from_json(column, keys[name]) if is_stored else keys[name] for name, column in columns.items()}
    result = {name: checked(column, values[name], is_key=True) for name, column in columns.items()}
    if result["study"] != study.name:
        raise SchemaError(f"keys are of study {result['study']!r}, not {study.name!r}")
    return result


def checked_trial(trial: Mapping[str, Any], *, is_stored: bool = False) -> dict[str, Value]:
    """The trial summary, as its columns' types.

    Raises:
        SchemaError: a name is unknown or a value of another type.
    """
    check_names("trial", trial, TRIAL_COLUMNS.keys() & trial.keys())
    values = {name: from_json(TRIAL_COLUMNS[name], value) if is_stored else value for name, value in trial.items()}
    return {name: checked(TRIAL_COLUMNS[name], value, is_key=False) for name, value in values.items()}


def read_loose_commits(study: StudyFolder, trial_key: str = "") -> list[Commit]:
    """Every commit that has a file of its own, superseded ones included, by trial and part; of one trial if named.

    Raises:
        StudyError: one is damaged.
    """
    for _ in range(_RELISTINGS):
        try:
            # A file that vanishes between listing and reading was replaced by others that this listing lacks.
            paths = sorted(study.commits_path.glob(f"{trial_key}-*.json" if trial_key else "[!.]*.json"))
            texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths]
        except FileNotFoundError:
            continue
        return [parse_commit(study, path, text) for path, text in zip(paths, texts, strict=True)]
    raise StudyError(f"the commits of {study.path} change all the time; try again")


def unshadowed(commits: Iterable[Commit]) -> list[Commit]:
    """Of commits of one part the one that counts: the highest generation, and of equals the one with its own file."""
    best: dict[str, Commit] = {}
    for commit in commits:
        known = best.get(commit.stem)
        if known is None or _rank(commit) > _rank(known):
            best[commit.stem] = commit
    return [best[stem] for stem in sorted(best)]


def _rank(commit: Commit) -> tuple[int, bool, str]:
    return commit.generation, not commit.pack, commit.pack


def live_commits(commits: Iterable[Commit]) -> list[Commit]:
    """Those of the highest generation of each trial."""
    commits = list(commits)
    newest: dict[str, int] = {}
    for commit in commits:
        newest[commit.trial_key] = max(commit.generation, newest.get(commit.trial_key, 0))
    return [commit for commit in commits if commit.generation == newest[commit.trial_key]]


def require_files(study: StudyFolder, commits: Iterable[Commit]) -> None:
    """Refuses a study in which a file that a commit names is gone or has another size.

    Raises:
        StudyError: naming the file and the commit.
    """
    seen: set[Path] = set()
    for commit in commits:
        for file in commit.files:
            path = study.path / file.table / file.name
            if path in seen:
                continue
            seen.add(path)
            own = commit.pack or f"{commit.stem}.json"
            again = f"remove {study.commits_path / own} to have its rows computed again"
            try:
                size = path.stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                raise StudyError(f"data file {path} is missing, though a commit names it; {again}") from None
            if size != file.num_bytes:
                raise StudyError(f"data file {path} has {size} bytes, its commit says {file.num_bytes}; {again}")


def _filled(study: StudyFolder, keys: Mapping[str, Any]) -> dict[str, Any]:
    fills = {column.name: column.fill for column in study.setting_columns if column.fill is not None}
    return {**fills, **keys}


def _check_types(commit: Commit) -> None:
    words = (commit.trial_key, commit.part, commit.status, commit.error, commit.lease_id)
    counts = [commit.generation, *(count for file in commit.files for count in (file.num_rows, file.num_bytes))]
    if not all(isinstance(word, str) for word in words) or commit.status not in STATUSES:
        raise ValueError("a name or the status is wrong")
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError("a count is wrong")


def to_json(value: Value) -> Value | None:
    """A value as strict JSON has it: NaN is null, infinities are text."""
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else str(value)


def from_json(column: Column, value: Any) -> Any:
    """The reverse of `to_json`."""
    if column.type != "float":
        return value
    if value is None:
        return math.nan
    return float(value) if value in ("inf", "-inf") else value

"""Where things lie in a study's folder, and what it says about itself."""

from __future__ import annotations

import difflib
import errno
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from results.errors import SchemaError, StudyError, unknown_name
from results.files import is_temp, json_bytes, write_bytes
from results.places import ensure_folder, is_remote, place, require_reachable
from results.schema import VERSION, Column, Table, arrow_schema, check_setting_columns
from results.tables import TABLES

SCHEMA_FILE = "_schema.json"
COMMITS_FOLDER = "_commits"


@dataclass(frozen=True)
class StudyFolder:
    """A study on the disk: its folder, its name, its setting leaves, its version of the schema."""

    path: Path
    name: str
    setting_columns: tuple[Column, ...]
    version: int = VERSION

    @property
    def commits_path(self) -> Path:
        """The folder of commit files."""
        return self.path / COMMITS_FOLDER

    def schema(self, table: str) -> pa.Schema:
        """Arrow schema of one of the tables, with this study's leaves."""
        return arrow_schema(table_named(table), self.setting_columns)

    def derived_file(self, table: str) -> Path:
        """The one file of a derived table."""
        return self.path / table / f"{table}.parquet"


def table_named(name: str) -> Table:
    """The table called `name`.

    Raises:
        StudyError: naming the nearest and the known ones.
    """
    if name not in TABLES:
        raise StudyError(unknown_name("table", name, TABLES))
    return TABLES[name]


def read_folder(path: str | os.PathLike[str]) -> StudyFolder:
    """Reads what the study at `path` says about itself.

    Raises:
        StudyError: it is not there, is no study, is damaged, or was written by a newer version.
    """
    path = place(path)
    try:
        if is_remote(path):
            require_reachable(path)
        text = (path / SCHEMA_FILE).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise StudyError(_no_study(path)) from None
    except OSError as error:
        raise StudyError(f"cannot read {path / SCHEMA_FILE}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise StudyError(f"cannot read {path / SCHEMA_FILE}: {error}") from error
    try:
        content: dict[str, Any] = json.loads(text)
        version = int(content["version"])
        if version > VERSION:
            raise StudyError(
                f"study {path} has schema version {version}, newer than this program's {VERSION}; upgrade twophase"
            )
        columns = tuple(Column(**column) for column in content["setting_columns"])
        return StudyFolder(path, str(content["study"]), columns, version)
    except (ValueError, TypeError, KeyError, SchemaError) as error:
        raise StudyError(
            f"{path / SCHEMA_FILE} is damaged: {error}; restore it, or choose another folder or --name"
        ) from error


def make_folder(path: str | os.PathLike[str], *, study: str, setting_columns: Sequence[Column]) -> StudyFolder:
    """Makes the study at `path`, or opens it and lets its setting leaves grow.

    Raises:
        StudyError: it cannot be written, or is something else.
        SchemaError: a leaf has gone, changed its type, or is new without saying what it was before.
    """
    path = place(path)
    if not study:
        raise StudyError("the name of a study must not be empty")
    check_setting_columns(setting_columns, TABLES.values())
    columns = tuple(setting_columns)
    require_room(path)
    old = None
    if (path / SCHEMA_FILE).exists():
        old = read_folder(path)
        if old.name != study:
            raise StudyError(f"{path} holds study {old.name!r}, not {study!r}; choose another folder")
        columns = grown(old.setting_columns, columns)
    folder = StudyFolder(path, study, columns)
    try:
        ensure_folder(path, parents=True)
        # Also where only the version is older: parts written from now on may have columns that it didn't know.
        if old != folder:
            content = {"version": VERSION, "study": study, "setting_columns": [asdict(column) for column in columns]}
            write_bytes(path / SCHEMA_FILE, json_bytes(content))
        ensure_folder(folder.commits_path)
    except OSError as error:
        raise StudyError(f"cannot write to {path}: {error.strerror or error}") from error
    return folder


def require_room(path: str | os.PathLike[str]) -> None:
    """Refuses a place where no study is and none could be made; touches nothing.

    Raises:
        StudyError: it is no folder, can't be written, has too long a name, or holds other things.
    """
    path = place(path)
    try:
        if is_remote(path):
            _require_remote_room(path)
            return
        nearest = next(above for above in (path, *path.absolute().parents) if above.exists())
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if nearest == path and not (path / SCHEMA_FILE).exists() and not all(map(is_temp, path.iterdir())):
            raise StudyError(f"{path} has files but is not a study (no {SCHEMA_FILE}); choose another folder")
    except OSError as error:
        raise StudyError(f"cannot write to {path}: {error.strerror or error}") from error


def _require_remote_room(path: Path) -> None:
    require_reachable(path)
    if not (path / SCHEMA_FILE).exists() and path.exists() and not all(map(is_temp, path.iterdir())):
        raise StudyError(f"{path} has files but is not a study (no {SCHEMA_FILE}); choose another address")


def grown(old: Sequence[Column], new: Sequence[Column]) -> tuple[Column, ...]:
    """The leaves of a study that had `old` and is now given `new`: the old ones in their order, then added ones.

    Raises:
        SchemaError: a leaf has gone, changed its type, or is new without a `fill`.
    """
    given = {column.name: column for column in new}
    kept = []
    for column in old:
        if column.name not in given:
            raise SchemaError(f"setting column {column.name!r} of the study is gone; columns can only be added")
        now = given.pop(column.name)
        if now.type != column.type:
            raise SchemaError(f"setting column {column.name!r} is a {column.type} in the study, not a {now.type}")
        # The fill that old files were read with stays: changing it would change stored settings.
        kept.append(now if column.fill is None else replace(now, fill=column.fill))
    for column in given.values():
        if column.fill is None:
            raise SchemaError(f"setting column {column.name!r} is new and needs `fill`, the value that means the old")
    return (*kept, *given.values())


def widened(folder: StudyFolder, known: Sequence[Column]) -> StudyFolder:
    """The same study read with every leaf that is known now: one that it was written without has its `fill`.

    Raises:
        StudyError: it has a leaf that is not known, which a newer version wrote.
        SchemaError: a leaf changed its type, or is new without saying what it was before.
    """
    names = {column.name for column in known}
    extra = [column.name for column in folder.setting_columns if column.name not in names]
    if extra:
        leaves = f"setting column{'s' * (len(extra) > 1)} {', '.join(extra)}"
        raise StudyError(f"study {folder.path} has {leaves}, unknown to this version; upgrade twophase")
    return replace(folder, setting_columns=grown(folder.setting_columns, known))


def is_study(folder: Path) -> bool:
    """Whether a study is there; none has too long a name."""
    try:
        return (folder / SCHEMA_FILE).is_file()
    except OSError:
        return False


def studies_in(folder: Path) -> list[str]:
    """Names of the studies directly under `folder`."""
    try:
        return sorted(entry.name for entry in folder.iterdir() if is_study(entry))
    except OSError:
        return []


def _no_study(path: Path) -> str:
    if path.is_dir():
        inside = studies_in(path)
        if inside:
            return f"{path} is not a study (no {SCHEMA_FILE}); studies in it: {', '.join(inside)}"
    what = f"{path} is not a study (no {SCHEMA_FILE})" if path.exists() else f"no study at {path}"
    if not path.parent.is_dir():
        return f"{what}: there is no folder {path.parent}"
    beside = studies_in(path.parent)
    near = difflib.get_close_matches(path.name, beside, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{what}{hint} studies in {path.parent}: {', '.join(beside) or 'none'}"

"""Reading a study: exactly the committed rows, at any time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from results.commits import require_files
from results.errors import StudyError, unknown_name
from results.layout import StudyFolder, make_folder, read_folder, table_named, widened
from results.packs import Span, holed_files, read_commits, spans_by_file
from results.places import arrow_place
from results.schema import Column
from results.shown import study_html
from results.tables import TABLES
from results.trials import trials_table

Filter = tuple[str, str, Any]
Filters = Sequence[Filter] | Sequence[Sequence[Filter]]

_RELISTINGS = 100
_PLAIN_KEY = re.compile(r"[A-Za-z0-9]+")
"""Trial keys that stand for themselves in a pattern of file names."""


class Study(StudyFolder):
    """A study that can be read; made by `open` or `create`."""

    def __repr__(self) -> str:
        """Name and folder."""
        return f"<Study {self.name} in {self.path}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the tables that have rows."""
        return study_html(self)

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables; one without rows is there too, and empty."""
        return tuple(TABLES)

    def table(self, name: str, columns: Sequence[str] | None = None, filters: Filters | None = None) -> pd.DataFrame:
        """The committed, live rows of a table, sorted by trial and the table's keys.

        Args:
            name: one of `tables`.
            columns: those to return, in this order; all by default.
            filters: as pyarrow's: `[("lr", ">", 0.1), …]` all of which hold, or a list of such lists one of which
                holds; on any column, selected or not.

        Raises:
            StudyError: a table or column is unknown, a filter is wrong, or a file is damaged.
        """
        row_key = table_named(name).row_key
        known = self.schema(name).names
        wanted = known if columns is None else _known(columns, known)
        tested = _known(_filtered_columns(filters), known)
        expression = _expression(filters)
        needed = list(dict.fromkeys([*wanted, *row_key, *tested]))
        try:
            rows = _read(self, name, needed, expression, tested, _only_trial(filters))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OSError) as error:
            # A file that was lost or cut short is told of as such, with the way out.
            require_files(self, read_commits(self))
            raise StudyError(f"cannot read table {name!r} of {self.path}: {_first_line(error)}") from error
        rows = rows.sort_by([(key, "ascending") for key in row_key])
        frame: pd.DataFrame = rows.select(wanted).to_pandas()
        return frame


def open(  # noqa: A001 - `results.open(path)` is the contract
    path: str | os.PathLike[str], *, setting_columns: Sequence[Column] | None = None
) -> Study:
    """Opens the study in the folder `path`.

    Args:
        path: its folder.
        setting_columns: every leaf that the reader knows: those that the study was written without, by an earlier
            version, are read at their `fill`, the value that means the old behaviour; nothing is written. By default
            the study's own.

    Raises:
        StudyError: it is not there, is no study, is damaged, or was written by a newer version.
        SchemaError: a leaf changed its type, or is new without saying what it was before.
    """
    folder = read_folder(path)
    return _study(folder if setting_columns is None else widened(folder, setting_columns))


def create(path: str | os.PathLike[str], *, study: str, setting_columns: Sequence[Column]) -> Study:
    """Makes the study in the folder `path`, or opens it and lets its setting leaves grow.

    Raises:
        StudyError: it cannot be written, or is something else.
        SchemaError: a leaf has gone, changed its type, or is new without a `fill`.
    """
    return _study(make_folder(path, study=study, setting_columns=setting_columns))


def _study(folder: StudyFolder) -> Study:
    return Study(folder.path, folder.name, folder.setting_columns, folder.version)


def _known(names: Iterable[str], known: Sequence[str]) -> list[str]:
    names = list(names)
    for name in names:
        if name not in known:
            raise StudyError(unknown_name("column", name, known))
    return names


def _filtered_columns(filters: Filters | None) -> list[str]:
    try:
        flat = [term for item in filters or [] for term in ([item] if isinstance(item, tuple) else item)]
        return [column for column, _, _ in flat]
    except (TypeError, ValueError):
        raise StudyError(
            f"filters must be a list of (column, operator, value), or a list of such lists, got {filters!r}"
        ) from None


def _expression(filters: Filters | None) -> pc.Expression | None:
    if not filters:
        return None
    try:
        return pq.filters_to_expression(filters)
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise StudyError(f"cannot filter by {filters!r}: {_first_line(error)}") from error


def _only_trial(filters: Filters | None) -> str:
    """The trial that filters ask for, whose files alone need be read; empty if they ask for others as well."""
    keys = [term[2] for term in filters or () if isinstance(term, tuple) and term[:2] == ("trial_key", "==")]
    return str(keys[0]) if keys and _PLAIN_KEY.fullmatch(str(keys[0])) else ""


def _read(
    study: StudyFolder,
    name: str,
    needed: list[str],
    expression: pc.Expression | None,
    tested: Sequence[str],
    trial_key: str,
) -> pa.Table:
    """Rows that fulfil `expression`, with the columns `needed`; `trial_key` is the one they are of, if only one."""
    if name == "trials":
        rows = trials_table(study, read_commits(study, trial_key))
        return (rows if expression is None else rows.filter(expression)).select(needed)
    columns = (*study.setting_columns, *table_named(name).columns)
    fills = {column.name: column.fill for column in columns if column.fill is not None}
    # In old files a grown column is null until it is filled, so a filter on it must wait.
    late = not fills.keys().isdisjoint(tested)
    rows = _scan(study, name, needed, None if late else expression, trial_key)
    for position, column in enumerate(rows.column_names):
        if column in fills:
            filled = pc.fill_null(rows.column(position), pa.scalar(fills[column], rows.schema.field(position).type))
            rows = rows.set_column(position, column, filled)
    return rows.filter(expression) if late else rows


def _scan(
    study: StudyFolder, name: str, needed: list[str], expression: pc.Expression | None, trial_key: str
) -> pa.Table:
    schema = pa.schema([field.with_nullable(True) for field in study.schema(name)])
    for _ in range(_RELISTINGS):
        files = _live_files(study, name, trial_key)
        if not files:
            return schema.empty_table().select(needed)
        try:
            whole = [path for path, spans in files.items() if not spans]
            _, store = arrow_place(study.path)
            parts = [_spans(path, spans, schema, store).select(needed) for path, spans in files.items() if spans]
            found = [part if expression is None else part.filter(expression) for part in parts]
            if whole:
                dataset = ds.dataset(whole, schema=schema, format="parquet", filesystem=store)
                found.append(dataset.to_table(columns=needed, filter=expression))
            return pa.concat_tables(found)
        except FileNotFoundError:
            # Swept between listing and reading: then a new listing names other files. The same ones are truly lost.
            if files == _live_files(study, name, trial_key):
                raise
    raise StudyError(f"table {name!r} of {study.path} changes all the time; try again")


def _live_files(study: StudyFolder, name: str, trial_key: str) -> dict[str, list[Span]]:
    """Paths of a table's data files -> the spans of live rows, of one trial if named; none where all of a file are."""
    if table_named(name).is_derived:
        path = study.derived_file(name)
        return {arrow_place(path)[0]: []} if path.exists() else {}
    commits = read_commits(study, trial_key)
    holed = holed_files(commits)
    spans = spans_by_file(commits, name)
    folder = study.path / name
    return {
        arrow_place(folder / file)[0]: spans[name, file] if (name, file) in holed else [] for _, file in sorted(spans)
    }


def _spans(path: str, spans: Sequence[Span], schema: pa.Schema, store: Any) -> pa.Table:
    """The live rows of a file that also holds others: those of commits superseded since it was packed."""
    rows = ds.dataset([path], schema=schema, format="parquet", filesystem=store).to_table()
    return pa.concat_tables([rows.slice(span.first, span.num_rows) for span in spans])


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

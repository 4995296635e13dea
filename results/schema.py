"""What a column and a table are, and how they stand in Parquet."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from results.errors import SchemaError

VERSION = 3
"""Version of the schema; a study written by a newer one is refused, an older one is read."""

Value = str | int | float | bool

Floats = NDArray[np.float32]
"""What a column of type floats holds in a row: a list of numbers, in single precision."""

ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "floats": pa.list_(pa.float32()),
}

_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Column:
    """One column: its type is one of string, int, float, bool, floats.

    `fill` is for columns that a later version added: the value with which files lacking the column are read;
    of a setting leaf, the value that means the behaviour of before. A column of floats is a measurement: neither a
    key, nor a setting leaf, nor filled.
    """

    name: str
    type: str
    unit: str
    description: str
    fill: Value | None = None

    def __post_init__(self) -> None:
        if self.type not in ARROW_TYPES:
            raise SchemaError(f"column {self.name!r}: type must be one of {', '.join(ARROW_TYPES)}, got {self.type!r}")
        if self.fill is not None and self.type == "floats":
            raise SchemaError(f"column {self.name!r}: fill must be left out where the type is floats")
        if self.fill is not None:
            # NaN is the fill of a measurement that was unknown before.
            checked(self, self.fill, is_key=False)


IDENTITY: dict[str, Column] = {
    "study": Column("study", "string", "", "name of the study"),
    "trial_key": Column("trial_key", "string", "", "hash of setting, seed and measurement protocol"),
    "setting_key": Column("setting_key", "string", "", "hash of all setting leaves"),
    "seed": Column("seed", "int", "", "replicate number"),
}


@dataclass(frozen=True)
class Table:
    """One table: its own row-key column names (after the trial or setting key), and its columns, keys first."""

    name: str
    keys: tuple[str, ...]
    columns: tuple[Column, ...]
    identity: tuple[str, ...] = tuple(IDENTITY)
    is_derived: bool = False

    def __post_init__(self) -> None:
        for column in self.columns:
            if column.type == "floats" and column.name in self.keys:
                raise SchemaError(f"table {self.name!r}: key {column.name!r} must be a single value, not floats")

    @property
    def row_key(self) -> tuple[str, ...]:
        """The columns that tell one row from every other; rows are sorted by them."""
        return ("trial_key" if "trial_key" in self.identity else "setting_key", *self.keys)


def all_columns(table: Table, setting_columns: Iterable[Column]) -> tuple[Column, ...]:
    """Identity, setting leaves, then the table's own columns: the order in every file."""
    return (*(IDENTITY[name] for name in table.identity), *setting_columns, *table.columns)


def arrow_schema(table: Table, setting_columns: Iterable[Column]) -> pa.Schema:
    """Arrow schema of `table`, with units and descriptions as field metadata and the version as schema metadata.

    Keys and setting leaves are non-nullable.
    """
    own = {column.name for column in table.columns} - set(table.keys)
    fields = [
        pa.field(
            column.name,
            ARROW_TYPES[column.type],
            nullable=column.name in own,
            metadata={b"unit": column.unit.encode(), b"description": column.description.encode()},
        )
        for column in all_columns(table, setting_columns)
    ]
    return pa.schema(fields, metadata={b"schema_version": str(VERSION).encode(), b"table": table.name.encode()})


def check_setting_columns(columns: Sequence[Column], tables: Iterable[Table]) -> None:
    """Refuses setting leaves that repeat one another or a column of a table.

    Raises:
        SchemaError: naming the column.
    """
    seen = set(IDENTITY).union(*({column.name for column in table.columns} for table in tables))
    for column in columns:
        if column.type == "floats":
            raise SchemaError(f"setting column {column.name!r} must be a single value, not floats")
        if column.name in seen:
            raise SchemaError(f"setting column {column.name!r} is already the name of another column")
        seen.add(column.name)


def checked_measurement(column: Column, value: Any) -> Value | Floats:
    """Returns a measurement as the column's own Python type: `checked`, and lists of numbers too.

    Raises:
        SchemaError: if the value is of another type or missing.
    """
    if column.type != "floats":
        return checked(column, value, is_key=False)
    is_list = isinstance(value, list | tuple | np.ndarray)
    try:
        found = np.asarray(value if is_list else None)
    except ValueError:  # rows of several lengths
        found = np.empty(0, dtype=object)
    if found.ndim != 1 or not (found.dtype.kind in "fiu" or (is_list and not len(value))):
        raise SchemaError(f"measurement {column.name!r} must be a list of numbers, got {_shortened(value)}")
    return found.astype(np.float32)


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def checked(column: Column, value: Any, *, is_key: bool) -> Value:
    """Returns `value` as the column's own Python type.

    Keys and leaves are never missing; a float measurement that is unknown is NaN, and nothing else can be unknown.

    Raises:
        SchemaError: if the value is of another type or missing.
    """
    is_bool = isinstance(value, bool | np.bool_)
    if column.type == "string" and isinstance(value, str):
        return str(value)
    if column.type == "bool" and is_bool:
        return bool(value)
    if column.type == "int" and isinstance(value, numbers.Integral) and not is_bool and int(value) in _INT64:
        return int(value)
    if column.type == "float" and isinstance(value, numbers.Real) and not is_bool:
        number = float(value)
        if not (is_key and math.isnan(number)):
            return number
    role = "key or setting" if is_key else "measurement"
    hint = "; unknown is NaN" if column.type == "float" and not is_key else ""
    raise SchemaError(f"{role} {column.name!r} must be a {column.type}, got {value!r}{hint}")


def check_names(what: str, given: Iterable[str], wanted: Iterable[str]) -> None:
    """Raises SchemaError naming the missing and the extra columns, unless the two sets are the same."""
    given, wanted = set(given), set(wanted)
    missing, extra = sorted(wanted - given), sorted(given - wanted)
    problems = [f"{word} {', '.join(names)}" for word, names in (("missing", missing), ("extra", extra)) if names]
    if problems:
        raise SchemaError(f"{what}: {'; '.join(problems)}")


def arrow_table(
    table: Table,
    setting_columns: Sequence[Column],
    rows: Sequence[Mapping[str, Any]],
    identity: Mapping[str, Value],
) -> pa.Table:
    """Rows of one part as an Arrow table.

    Args:
        table: which table.
        setting_columns: the study's leaves.
        rows: the table's own columns only (keys and measurements), every one of them in every row.
        identity: study, trial key, setting key, seed and leaves: the same in all rows.

    Raises:
        SchemaError: if a row misses a column, has one too many, or holds a value of another type.
    """
    names = {column.name for column in table.columns}
    for row in rows:
        if row.keys() != names:
            check_names(f"row of table {table.name!r}", row, names)
    schema = arrow_schema(table, setting_columns)
    arrays = []
    for column in all_columns(table, setting_columns):
        if column.name in names:
            given = (row[column.name] for row in rows)
            if column.name in table.keys:
                values: list[Any] = [checked(column, value, is_key=True) for value in given]
            else:
                values = [checked_measurement(column, value) for value in given]
            arrays.append(pa.array(values, ARROW_TYPES[column.type]))
        else:
            arrays.append(pa.repeat(pa.scalar(identity[column.name], ARROW_TYPES[column.type]), len(rows)))
    return pa.Table.from_arrays(arrays, schema=schema)

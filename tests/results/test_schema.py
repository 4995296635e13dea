import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sample_study import SETTING_COLUMNS, rows_of

from results import TABLES, VERSION, Column, SchemaError, Table, arrow_schema
from results.schema import all_columns, arrow_table, check_setting_columns, checked, checked_measurement

IDENTITY = {
    "study": "s",
    "trial_key": "t",
    "setting_key": "k",
    "seed": 1,
    "model": "mlp",
    "lr": 0.1,
    "depth": 2,
    "augment": True,
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
class TestEveryTable:
    def test_units_and_descriptions_stand_in_the_metadata(self, table):
        schema = arrow_schema(table, SETTING_COLUMNS)
        assert schema.metadata == {b"schema_version": str(VERSION).encode(), b"table": table.name.encode()}
        for column in all_columns(table, SETTING_COLUMNS):
            assert column.description
            metadata = schema.field(column.name).metadata
            assert metadata == {b"unit": column.unit.encode(), b"description": column.description.encode()}

    def test_identity_and_leaves_come_first_and_are_never_null(self, table):
        schema = arrow_schema(table, SETTING_COLUMNS)
        leading = [*table.identity, *(column.name for column in SETTING_COLUMNS)]
        assert schema.names[: len(leading)] == leading
        never_null = {field.name for field in schema if not field.nullable}
        assert never_null == {*leading, *table.keys}

    def test_keys_are_columns_and_names_are_unique(self, table):
        names = [column.name for column in all_columns(table, SETTING_COLUMNS)]
        assert len(set(names)) == len(names)
        assert set(table.keys) <= {column.name for column in table.columns}

    def test_types_are_64_bit(self, table):
        # Lists of numbers are sketches, whose error is far above single precision's.
        allowed = {pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.list_(pa.float32())}
        assert {field.type for field in arrow_schema(table, SETTING_COLUMNS)} <= allowed


def test_contract_names():
    keys = {name: table.row_key for name, table in TABLES.items()}
    child = ("trial_key", "perturbation", "fork_step", "magnitude", "direction")
    assert keys == {
        "trials": ("trial_key",),
        "trajectory": ("trial_key", "step"),
        "chaos": (*child, "measure_step"),
        "divergence": (*child, "step"),
        "path": (*child, "measure_step", "alpha"),
        "cone": ("trial_key", "kernel", "step_i", "step_j"),
        "kernel": ("trial_key", "kernel", "step"),
        "sketch": ("trial_key", "kernel", "size", *child[1:], "step"),
        "growth": ("trial_key", "fork_step", "direction"),
        "switch": ("trial_key", "switch_step"),
        "transitions": ("setting_key", "indicator", "perturbation", "magnitude", "measure", "kernel"),
        "confinement": ("trial_key", "kernel", "tau_step"),
        "boundary": ("setting_key", "fork_step", "indicator", "perturbation", "measure"),
    }


def test_key_floats_refuse_nan_and_measured_floats_take_it():
    column = Column("x", "float", "1", "")
    assert math.isnan(checked(column, math.nan, is_key=False))
    assert checked(column, math.inf, is_key=False) == math.inf
    with pytest.raises(SchemaError, match=r"key or setting 'x' must be a float, got nan"):
        checked(column, math.nan, is_key=True)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("int", np.int32(3), 3),
        ("float", 2, 2.0),
        ("float", np.float32(0.5), 0.5),
        ("bool", np.True_, True),
        ("string", "a", "a"),
    ],
)
def test_numpy_and_whole_numbers_become_the_columns_type(kind, value, expected):
    result = checked(Column("x", kind, "", ""), value, is_key=False)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", 3.0),
        ("int", True),
        ("int", None),
        ("int", 2**63),
        ("float", "0.1"),
        ("float", None),
        ("float", False),
        ("bool", 1),
        ("bool", None),
        ("string", 1),
        ("string", None),
    ],
)
def test_other_types_are_refused(kind, value):
    with pytest.raises(SchemaError, match=f"'x' must be a {kind}"):
        checked(Column("x", kind, "", ""), value, is_key=False)


def test_a_list_of_numbers_is_a_measurement_in_single_precision():
    column = Column("x", "floats", "", "")
    for value in ([1, 0.1, math.nan], np.array([1, 0.1, math.nan]), []):
        found = checked_measurement(column, value)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.array(value, dtype=np.float32))
    for value in (0.1, "1.0", None, [[1.0], [2.0]], [[1.0], []], ["1.0"], [True], [None]):
        with pytest.raises(SchemaError, match="measurement 'x' must be a list of numbers, got"):
            checked_measurement(column, value)
    with pytest.raises(SchemaError, match="'x' must be a floats"):
        checked(column, [1.0], is_key=True)
    with pytest.raises(SchemaError, match="'x': fill must be left out"):
        Column("x", "floats", "", "", fill=0.0)
    with pytest.raises(SchemaError, match="key 'x' must be a single value"):
        Table("t", ("x",), (column,))
    with pytest.raises(SchemaError, match="setting column 'x' must be a single value"):
        check_setting_columns([column], TABLES.values())


def test_tables_with_lists_compare_exactly(study, write):
    write("a", {"sketch": rows_of("sketch")})
    frame = study.table("sketch")
    pd.testing.assert_frame_equal(frame, study.table("sketch"), check_exact=True)
    other = frame.copy()
    other["sketch"] = [cell.copy() for cell in frame["sketch"]]
    other["sketch"].iloc[1][0] = np.nextafter(other["sketch"].iloc[1][0], np.float32(1))
    with pytest.raises(AssertionError):
        pd.testing.assert_frame_equal(frame, other, check_exact=True)
    np.testing.assert_array_equal(
        pd.read_parquet(study.path / "sketch")["sketch"].iloc[2], np.array([0.25, -math.inf], np.float32)
    )


def test_missing_and_extra_columns_are_named():
    row = rows_of("kernel", count=1)[0]
    row["wrong"] = row.pop("trace")
    with pytest.raises(SchemaError, match=r"row of table 'kernel': missing trace; extra wrong"):
        arrow_table(TABLES["kernel"], SETTING_COLUMNS, [*rows_of("kernel"), row], IDENTITY)


def test_identity_is_repeated_in_every_row():
    table = arrow_table(TABLES["kernel"], SETTING_COLUMNS, rows_of("kernel"), IDENTITY)
    assert table.schema.equals(arrow_schema(TABLES["kernel"], SETTING_COLUMNS), check_metadata=True)
    assert table.select(list(IDENTITY)).to_pylist() == [IDENTITY] * 3


@pytest.mark.parametrize("name", ["seed", "test_loss", "twice"])
def test_setting_columns_may_not_repeat_a_name(name):
    columns = [Column("twice", "int", "", ""), Column(name, "int", "", "")]
    with pytest.raises(SchemaError, match=f"'{name}' is already"):
        check_setting_columns(columns, TABLES.values())


def test_column_validates_type_and_fill():
    with pytest.raises(SchemaError, match="type must be one of string, int, float, bool, floats, got 'double'"):
        Column("x", "double", "", "")
    with pytest.raises(SchemaError, match="'x' must be a int"):
        Column("x", "int", "", "", fill="none")


def test_row_key_of_a_table_without_trials():
    assert Table("x", ("a",), (Column("a", "int", "", ""),), identity=("study", "setting_key")).row_key == (
        "setting_key",
        "a",
    )

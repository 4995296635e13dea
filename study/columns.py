"""Setting leaves as table columns, from their one definition."""

import pandas as pd

from results import IDENTITY, Column
from twophase.chaos import INDICATORS
from twophase.config import LEAVES, TYPES
from twophase.errors import BadInput

_KINDS = {str: "string", int: "int", float: "float"}


CHAOS_COLUMNS = (
    *IDENTITY,
    *("perturbation", "fork_step", "magnitude", "direction", "measure_step", "diverged", "changed_fraction"),
    *INDICATORS,
)
"""Columns of `chaos` that estimates rest on, leaves apart."""


def complete(chaos: pd.DataFrame) -> pd.DataFrame:
    """Rows of `chaos` with every leaf: one that was not known yet when they were written means the old behaviour.

    Frames of studies of different versions, put one below the other, have such leaves missing in some rows.

    Raises:
        BadInput: A column is missing, or a leaf in some rows, and nothing says what it would have been.
    """
    old = {name: leaf.old_value for name, leaf in LEAVES.items() if leaf.old_value is not None}
    lacking = [name for name in (*CHAOS_COLUMNS, *LEAVES) if name not in chaos and name not in old]
    if lacking:
        raise BadInput(f"chaos must have the columns of that table, docs/tables.md; missing: {', '.join(lacking)}")
    filled = {name: chaos[name].fillna(value) if name in chaos else value for name, value in old.items()}
    filled = {name: values for name, values in filled.items() if name not in chaos or chaos[name].isna().any()}
    whole = chaos.assign(**filled).astype({name: TYPES[name] for name in filled}) if filled else chaos
    holes = [name for name in (*IDENTITY, *LEAVES) if whole[name].isna().any()]
    if holes:
        raise BadInput(f"chaos must have no row without {', '.join(holes)}; were tables of other columns put together?")
    return whole


def setting_columns() -> list[Column]:
    """Every leaf of a setting as a column, in order of definition."""
    return [
        Column(name, _KINDS[TYPES[name]], leaf.unit, leaf.doc, fill=leaf.old_value) for name, leaf in LEAVES.items()
    ]

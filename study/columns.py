"""Setting leaves as table columns, from their one definition."""

from results import Column
from twophase.config import LEAVES, TYPES

_KINDS = {str: "string", int: "int", float: "float"}


def setting_columns() -> list[Column]:
    """Every leaf of a setting as a column, in order of definition."""
    return [
        Column(name, _KINDS[TYPES[name]], leaf.unit, leaf.doc, fill=leaf.old_value) for name, leaf in LEAVES.items()
    ]

"""Comparisons that a report makes without being asked for an axis: by all that was swept, within bounds."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import pandas as pd

from study.axes import goes_along, held_leaves, swept
from study.comparing import Comparison, all_trends
from study.crossings import crossings
from study.evidence import Evidence
from study.manifest import Declared
from study.ratios import RATIO_COLUMNS, ratios
from twophase.errors import BadInput
from twophase.perturb import ORDER

MOST_RATIOS = 60
"""Ratios fitted for one page, each of which takes about a quarter of a second."""


@dataclass(frozen=True)
class Overview:
    """All settings against each other.

    Attributes:
        ratios: Rows of `study.ratios.ratios`, one axis after the other.
        reasons: Of every axis that has none why.
        courses: Trends over all that is numeric; None where there are none.
    """

    ratios: pd.DataFrame
    reasons: tuple[str, ...]
    courses: Comparison | None


def overview(chaos: pd.DataFrame, declared: Declared, evidence: Evidence) -> Overview:
    """Compare by all that was swept.

    Args:
        chaos: The `chaos` table.
        declared: The study's declarations.
        evidence: What is known of its trials beside.
    """
    if chaos.empty:
        return Overview(pd.DataFrame(columns=RATIO_COLUMNS), (), None)
    ratio_rows, reasons = own_ratios(chaos, declared, evidence)
    return Overview(ratio_rows, tuple(reasons), all_trends(chaos, declared, evidence))


def own_axes(pushes: pd.DataFrame) -> list[str]:
    """Leaves to compare by: of those that go along with each other only one, the model before others."""
    chosen: list[str] = []
    leaves = sorted(swept(pushes), key=lambda leaf: leaf != "model")
    for leaf in leaves:
        if not any(leaf in goes_along(pushes, other) for other in chosen):
            chosen.append(leaf)
    return chosen


def num_ratios(pushes: pd.DataFrame, axis: str) -> int:
    """How many pairs of levels, in how many contexts at most."""
    held = held_leaves(pushes, axis)
    contexts = len(pushes.drop_duplicates(held)) if held else 1
    return comb(pushes[axis].nunique(), 2) * (contexts + (contexts > 1))


def own_ratios(chaos: pd.DataFrame, declared: Declared, evidence: Evidence) -> tuple[pd.DataFrame, list[str]]:
    """Ratios of the primary's transition steps between the levels of all that was swept.

    Args:
        chaos: The `chaos` table.
        declared: The study's declarations.
        evidence: What is known of its trials beside.

    Returns:
        Rows of `study.ratios.ratios`, one axis after the other; and of every axis that has none why.
    """
    found = crossings(chaos, declared, evidence)
    found = found[found["is_primary_measure"]]
    is_push = (found["perturbation"] == declared.perturbation) & (found["magnitude"] == declared.primary_magnitude)
    pushes, controls = found[is_push], found[found["perturbation"] == ORDER]
    empty = pd.DataFrame(columns=RATIO_COLUMNS)
    if pushes["seed"].nunique() < 2:
        return empty, ["settings are compared from two seeds on"] if pushes["setting_key"].nunique() > 1 else []
    tables, notes = _within_bounds(pushes, controls, own_axes(pushes))
    return pd.concat(tables, ignore_index=True) if tables else empty, notes


def _within_bounds(
    pushes: pd.DataFrame, controls: pd.DataFrame, axes: Sequence[str]
) -> tuple[list[pd.DataFrame], list[str]]:
    tables: list[pd.DataFrame] = []
    notes: list[str] = []
    left = MOST_RATIOS
    for axis in axes:
        count = num_ratios(pushes, axis)
        if count > left:
            notes.append(f"{axis}: {count} ratios, more than this page makes; twophase compare --by {axis} has them")
            continue
        try:
            tables.append(ratios(pushes, controls, axis))
            left -= count
        except BadInput as reason:  # an axis that never varies alone is a finding about the sweep
            notes.append(f"{axis}: {reason}")
    return tables, notes

"""A study's settings against each other: ratios, trends, clocks, and whether the two effects agree."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from study.axes import MAGNITUDE, check_axis, goes_along, is_numeric, swept
from study.clocks import clocks
from study.crossings import crossings
from study.dating import agreements
from study.evidence import Evidence
from study.manifest import Declared
from study.ratios import ratios
from study.trends import trends
from twophase.chaos import INDICATORS
from twophase.errors import BadInput, unknown
from twophase.perturb import ORDER
from twophase.relative import RELATIVE_INDICATORS

SIGN_INDICATORS = ("test_barrier", "train_barrier", "test_error_barrier", "disagreement")
"""By each of these the sign of a trend is told: an effect that hangs on the indicator is none of phases."""


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        axes: The axes asked for.
        pushes: Crossings that it rests on.
        controls: Those of controls.
        ratios: Rows of `study.ratios.ratios`, one axis after the other.
        trends: Rows of `study.trends.trends`.
        others: The same trends by other indicators, for their signs.
        clocks: Rows of `study.clocks.clocks`.
        agreements: Rows of `study.dating.agreements`.
    """

    axes: tuple[str, ...]
    pushes: pd.DataFrame
    controls: pd.DataFrame
    ratios: pd.DataFrame
    trends: pd.DataFrame
    others: pd.DataFrame
    clocks: pd.DataFrame
    agreements: pd.DataFrame


def compare(
    chaos: pd.DataFrame,
    axes: Sequence[str],
    declared: Declared | None = None,
    *,
    evidence: Evidence | None = None,
    indicator: str | None = None,
    magnitude: float | None = None,
    trajectory: pd.DataFrame | None = None,
    transitions: pd.DataFrame | None = None,
) -> Comparison:
    """Compare settings along axes.

    Args:
        chaos: The `chaos` table, of one study or of several together.
        axes: Leaves, or ``magnitude``.
        declared: The study's declarations; by default test barrier, threshold 0.05, the largest magnitude.
        evidence: What is known of its trials beside.
        indicator: Another indicator than the primary's.
        magnitude: Another magnitude than the primary's.
        trajectory: The `trajectory` table, for clocks.
        transitions: The `transitions` table, for whether the kernel's agree with the barrier's.

    Raises:
        BadInput: An axis is unknown, wasn't swept, or never varies alone; there is one seed only; the indicator is
            unknown; the magnitude wasn't run.
    """
    declared = declared or Declared(magnitudes=tuple(sorted(set(chaos["magnitude"]) - {0.0}, reverse=True)))
    wanted = indicator or declared.primary.indicator
    if wanted not in INDICATORS and wanted not in RELATIVE_INDICATORS:
        raise unknown("indicator", wanted, [*INDICATORS, *RELATIVE_INDICATORS])
    found = crossings(chaos, declared, evidence, indicators=dict.fromkeys([wanted, *SIGN_INDICATORS]))
    found = found[found["is_primary_measure"]]
    size = declared.primary_magnitude if magnitude is None else magnitude
    is_kind = (found["perturbation"] == declared.perturbation) & (found["indicator"] == wanted)
    every, pushes = found[is_kind], found[is_kind & (found["magnitude"] == size)]
    controls = found[(found["perturbation"] == ORDER) & (found["indicator"] == wanted)]
    if every.empty and wanted in RELATIVE_INDICATORS:
        raise BadInput(f"{wanted} needs controls that part, and no seed has one; see twophase locate")
    _check(every, pushes, axes, size, declared)
    tables = [ratios(every if axis == MAGNITUDE else pushes, controls, axis) for axis in axes]
    leaves = [axis for axis in axes if axis != MAGNITUDE]
    courses = [trends(every, controls, [MAGNITUDE])] if MAGNITUDE in axes else []
    courses += [trends(pushes, controls, leaves)] if leaves else []
    return Comparison(
        axes=tuple(axes),
        pushes=every if MAGNITUDE in axes else pushes,
        controls=controls,
        ratios=pd.concat(tables, ignore_index=True),
        trends=pd.concat(courses, ignore_index=True),
        others=_others(found, declared, size, wanted, leaves),
        clocks=clocks(pushes, trajectory) if trajectory is not None and len(trajectory) else pd.DataFrame(),
        agreements=agreements(transitions) if transitions is not None else pd.DataFrame(),
    )


def all_trends(chaos: pd.DataFrame, declared: Declared, evidence: Evidence) -> Comparison | None:
    """Trends over everything numeric that was swept, magnitudes included, as a report shows them.

    Returns:
        A comparison without ratios, clocks and agreements; None where nothing numeric was swept, or there is one seed.
    """
    found = crossings(chaos, declared, evidence)
    found = found[found["is_primary_measure"]]
    every = found[found["perturbation"] == declared.perturbation]
    pushes = every[every["magnitude"] == declared.primary_magnitude]
    controls = found[found["perturbation"] == ORDER]
    sizes = [MAGNITUDE] if every["magnitude"].nunique() > 1 else []
    leaves = [leaf for leaf in swept(pushes) if is_numeric(pushes, leaf) and not goes_along(pushes, leaf)]
    if pushes.empty or not (sizes or leaves) or pushes["seed"].nunique() < 2:
        return None
    empty = pd.DataFrame()
    tables = [trends(every, controls, sizes), trends(pushes, controls, leaves)]
    table = pd.concat([table for table in tables if len(table)], ignore_index=True)
    return Comparison((*sizes, *leaves), every if sizes else pushes, controls, empty, table, empty, empty, empty)


def _check(every: pd.DataFrame, pushes: pd.DataFrame, axes: Sequence[str], size: float, declared: Declared) -> None:
    if every.empty:
        raise BadInput(f"no {declared.perturbation} children measured at {declared.measure} tell anything yet")
    if pushes.empty:
        run = ", ".join(f"{value:g}" for value in sorted(set(every["magnitude"])))
        raise BadInput(f"magnitude must be one that was run ({run}), got {size:g}")
    for axis in axes:
        check_axis(every if axis == MAGNITUDE else pushes, axis)
    seeds = every["seed"].nunique()
    if seeds < 2:
        raise BadInput(f"seeds must be at least two to compare by, the study has {seeds}; run it with --set seeds=4")


def _others(found: pd.DataFrame, declared: Declared, size: float, wanted: str, axes: Sequence[str]) -> pd.DataFrame:
    """Trends by the other indicators, for their signs: estimates alone."""
    is_push = (found["perturbation"] == declared.perturbation) & (found["magnitude"] == size)
    tables = [
        trends(found[is_push & (found["indicator"] == name)], found.iloc[:0], axes, is_judged=False)
        for name in SIGN_INDICATORS
        if name != wanted and axes
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

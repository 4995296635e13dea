"""Several studies read as one, so that their settings can be located and compared.

A study is a folder, not a condition: a setting of one and the same setting of another have one key, because all that
determines their runs agrees, and their seeds are joined. A trial that both have, one seed of one setting, counts once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

import results
from study.analysis import transitions
from study.evidence import Evidence, evidence_of
from study.kernel_transitions import with_kernels
from study.manifest import Declared, require_declared
from twophase.errors import BadInput

CHILD = ["trial_key", "perturbation", "fork_step", "magnitude", "direction", "measure_step"]


@dataclass(frozen=True)
class Together:
    """What estimates rest on, of one study or several.

    Attributes:
        chaos: Their `chaos` tables, every child once.
        cone: Their `cone` tables, the kernels of every trial once.
        trials: Their `trials` tables, every trial once; one that failed in some study only is as it is in another.
        trajectory: Their `trajectory` tables.
        transitions: The `transitions` table of one study; of several, estimated from all their rows.
        declared: Their declarations, of which the primary is the same in all.
        evidence: What is known of their trials.
        notes: What was left out, in words.
    """

    chaos: pd.DataFrame
    cone: pd.DataFrame
    trials: pd.DataFrame
    trajectory: pd.DataFrame
    transitions: pd.DataFrame
    declared: Declared
    evidence: Evidence
    notes: tuple[str, ...] = ()


def read_together(studies: Sequence[results.Study]) -> Together:
    """Read studies as one.

    Children of one trial in several studies are joined where their references are bitwise the same, as its digests
    tell; else those of the first study named stand for it.

    Raises:
        BadInput: They declare different primaries: one number would mean several things.
    """
    declared = _joined([require_declared(study.path) for study in studies], studies)
    name = " + ".join(study.name for study in studies)
    tables = {
        table: pd.concat([study.table(table) for study in studies], keys=range(len(studies)), names=["place", None])
        .reset_index(level="place")
        .assign(study=name)
        .reset_index(drop=True)
        for table in ("chaos", "cone", "trials", "trajectory")
    }
    trials = tables["trials"].assign(is_failed=tables["trials"]["status"] == "failed")
    trials = trials.sort_values("is_failed", kind="stable").drop_duplicates("trial_key").sort_values("trial_key")
    chaos, notes = _children(tables["chaos"])
    first_paths = _first(tables["cone"], ["trial_key", "kernel"])
    trials = trials.drop(columns=["is_failed", "place"]).reset_index(drop=True)
    trajectory = _first(tables["trajectory"], ["trial_key"])
    evidence = evidence_of(trials, trajectory, declared)
    if len(studies) > 1:
        pinned = frozenset(own.protocol for study in studies if (own := require_declared(study.path)).protocol)
        evidence = replace(evidence, protocols=replace(evidence.protocols, also_pinned=pinned))
        found = with_kernels(transitions(chaos, declared, evidence=evidence), first_paths, evidence.protocols)
    else:
        found = studies[0].table("transitions")
    return Together(chaos, first_paths, trials, trajectory, found, declared, evidence, notes)


def _joined(declared: Sequence[Declared], studies: Sequence[results.Study]) -> Declared:
    """The declarations of all, where they agree on the primary."""
    first = declared[0]
    for study, other in zip(studies, declared, strict=True):
        if _headline(other) != _headline(first):
            both = f"'{studies[0].name}' has {_words(first)}, '{study.name}' {_words(other)}"
            raise BadInput(f"studies must declare the same primary to be read as one: {both}")
    return replace(
        first,
        measures=tuple(dict.fromkeys(text for own in declared for text in own.measures)),
        magnitudes=tuple(sorted({size for own in declared for size in own.magnitudes}, reverse=True)),
        spaces=tuple(space for own in declared for space in own.spaces),
    )


def _first(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Rows with the same keys from the first study that has any."""
    is_first = rows["place"] == rows.groupby(keys)["place"].transform("min")
    return rows[is_first].drop(columns="place").reset_index(drop=True)


def _children(rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Every child once, of references that are the first study's, and how many trials had another one."""
    ordered = rows.sort_values("place", kind="stable")
    first = ordered.groupby("trial_key")["reference_digest"].transform("first")
    is_same = ordered["reference_digest"] == first
    count = ordered.loc[~is_same, "trial_key"].nunique()
    kept = ordered[is_same].drop_duplicates(CHILD).sort_values(CHILD).drop(columns="place").reset_index(drop=True)
    words = f"{count} trial{'s' * (count > 1)} in several studies with another reference each: the first study's count"
    return kept, (words,) if count else ()


def _headline(declared: Declared) -> tuple[object, ...]:
    primary = declared.primary
    return primary.indicator, primary.threshold, declared.perturbation, declared.primary_magnitude, declared.measure


def _words(declared: Declared) -> str:
    indicator, threshold, kind, size, measure = _headline(declared)
    return f"{indicator} at {threshold:g} of {kind} {size:g} at {measure}"

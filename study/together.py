"""Several studies read as one, so that their settings can be compared."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

import results
from study.crossings import KIND_COLUMNS
from study.evidence import Evidence, read_evidence
from study.manifest import Declared, require_declared
from study.protocols import Protocols
from twophase.errors import BadInput


@dataclass(frozen=True)
class Together:
    """What a comparison takes, of one study or several.

    Attributes:
        chaos: Their `chaos` tables, every child once.
        trajectory: Their `trajectory` tables.
        transitions: Their `transitions` tables.
        declared: Their declarations, of which the primary is the same in all.
        evidence: What is known of their trials.
    """

    chaos: pd.DataFrame
    trajectory: pd.DataFrame
    transitions: pd.DataFrame
    declared: Declared
    evidence: Evidence


def read_together(studies: Sequence[results.Study]) -> Together:
    """Read studies as one.

    Raises:
        BadInput: They declare different primaries: one number would mean several things.
    """
    declared = [require_declared(study.path) for study in studies]
    first = declared[0]
    for study, other in zip(studies, declared, strict=True):
        if _headline(other) != _headline(first):
            both = f"'{studies[0].name}' has {_words(first)}, '{study.name}' {_words(other)}"
            raise BadInput(f"studies must declare the same primary to be compared: {both}")
    evidence = [read_evidence(study, own) for study, own in zip(studies, declared, strict=True)]
    name = " + ".join(study.name for study in studies)
    tables = {
        table: pd.concat([study.table(table) for study in studies], ignore_index=True).assign(study=name)
        for table in ("chaos", "trajectory", "transitions")
    }
    child = ["trial_key", "perturbation", "fork_step", "magnitude", "direction", "measure_step"]
    return Together(
        tables["chaos"].drop_duplicates(child),
        tables["trajectory"].drop_duplicates(["trial_key", "step"]),
        tables["transitions"].drop_duplicates(["setting_key", *KIND_COLUMNS]),
        replace(first, measures=tuple(dict.fromkeys(text for own in declared for text in own.measures))),
        Evidence(
            Protocols(
                {key: known for own in evidence for key, known in own.protocols.of_trial.items()}, first.protocol
            ),
            frozenset().union(*(own.unlearned for own in evidence)),
            sum((Counter(own.failures) for own in evidence), Counter()),
        ),
    )


def _headline(declared: Declared) -> tuple[object, ...]:
    primary = declared.primary
    return primary.indicator, primary.threshold, declared.perturbation, declared.primary_magnitude, declared.measure


def _words(declared: Declared) -> str:
    indicator, threshold, kind, size, measure = _headline(declared)
    return f"{indicator} at {threshold:g} of {kind} {size:g} at {measure}"

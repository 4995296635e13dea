"""What follows from a study's rows, whenever they change: derived tables, figures and the report."""

from pathlib import Path

import pandas as pd

import results
from study import manifest
from study.analysis import transitions
from study.boundary import boundary
from study.confinements import confinements
from study.evidence import read_evidence
from study.kernel_transitions import with_kernels
from study.manifest import Declared
from study.natural_null import natural_null


def derive(study: results.Study, declared: Declared | None = None) -> None:
    """Write the tables that follow from all rows: `trials`, `transitions`, `confinement` and `boundary`."""
    results.write_trials(study)
    chaos = study.table("chaos")
    if declared is None:
        declared = Declared() if chaos.empty else manifest.require_declared(study.path)
    evidence = read_evidence(study, declared)
    cone = study.table("cone")
    found = with_kernels(transitions(chaos, declared, evidence=evidence), cone, evidence.protocols)
    results.write_derived(study, "transitions", found)
    results.write_derived(study, "boundary", boundary(chaos, declared, evidence))
    others = natural_null(evidence.protocols.one_each(study.table("sketch")))
    results.write_derived(study, "confinement", confinements(cone, found, _known_confinements(study), others))


def _known_confinements(study: results.Study) -> pd.DataFrame:
    """Rows from before, to save their tests; a damaged file saves none, and is about to be replaced."""
    try:
        return study.table("confinement")
    except results.StudyError:
        return pd.DataFrame(columns=study.schema("confinement").names)


def write_report(study: results.Study) -> Path:
    """Write figures and report; see `study.report`."""
    from study import report  # noqa: PLC0415 - what draws takes a second to import, and workers and most commands don't

    return report.write_report(study)

"""What follows from a study's rows, whenever they change: derived tables, figures and the report."""

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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


_UNWRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}


def is_derived(study: results.Study) -> bool:
    """Bring a study's derived tables up to date; tell whether that could be: not where nothing can be written."""
    try:
        derive(study)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        return False
    return True


@contextmanager
def up_to_date(study: results.Study) -> Iterator[results.Study]:
    """A study with derived tables that follow from all its rows.

    Yields:
        The study; where nothing can be written to its folder, links to all that is there, in a scratch folder.

    Raises:
        PermissionError: Nothing can be written to a study that lies where there are no links.
    """
    if results.is_remote(study.path):
        derive(study)
        yield study
        return
    if is_derived(study):
        yield study
        return
    with tempfile.TemporaryDirectory(prefix="twophase-") as scratch:
        folder = Path(scratch) / study.path.name
        folder.mkdir()
        for entry in study.path.absolute().iterdir():
            if entry.name not in results.TABLES or not results.TABLES[entry.name].is_derived:
                (folder / entry.name).symlink_to(entry)
            elif entry.is_dir():
                shutil.copytree(entry, folder / entry.name)
        linked = results.open(folder)
        derive(linked)
        yield linked


def write_report(study: results.Study) -> Path:
    """Write figures and report; see `study.report`."""
    from study import report  # noqa: PLC0415 - what draws takes a second to import, and workers and most commands don't

    return report.write_report(study)

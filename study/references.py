"""The one reference of a trial whose pieces run side by side: that of the piece that ended first.

Rows of one trial have one reference. Where pieces run on machines that round differently, their references differ; who
finds that another piece was first with another one computes the whole trial again, as for a stored reference.
"""

from pathlib import Path

from results.lease import require_lease
from results.places import remove_folder
from study.pinned import pin

FOLDER = "_references"


def common_digest(study: Path, trial_key: str, generation: int, digest: str, *, lease_id: str) -> str:
    """Say which reference a trial's rows of a generation have; that of the caller, if it is the first to say.

    Args:
        study: The study's folder.
        trial_key: The trial.
        generation: Of its rows.
        digest: The caller's reference.
        lease_id: The driver's lease.

    Raises:
        LeaseLost: The study is no longer that driver's.
    """
    require_lease(study, lease_id)
    return pin(study / FOLDER / f"{trial_key}-{generation}", digest.encode()).decode()


def forget_references(study: Path) -> None:
    """Forget what was agreed on; commits that are there say it, and no worker of the driver may run."""
    remove_folder(study / FOLDER)

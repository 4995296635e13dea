"""What is being worked on right now: one small file per running trial or piece, read from any terminal or machine.

It is news, not a record: nothing is decided by it, and a kill leaves it behind until the next driver sweeps.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from results.files import json_bytes, temp_path
from results.layout import StudyFolder
from results.lease import live_holder
from results.places import ensure_folder, is_remote, upload

RUNNING_FOLDER = "_running"


@dataclass(frozen=True)
class Heartbeat:
    """How far a trial has come.

    Attributes:
        trial_key: The trial.
        lease_id: The driver's lease.
        host: Where it runs.
        pid: In which process.
        lane_steps: Lane-steps done.
        total_lane_steps: Lane-steps to do.
        seconds: Time spent on them.
        piece: Which piece of the trial; empty where it is worked on whole.
    """

    trial_key: str
    lease_id: str
    host: str
    pid: int
    lane_steps: int
    total_lane_steps: int
    seconds: float
    piece: str = ""


def beat(study: StudyFolder, heartbeat: Heartbeat) -> None:
    """Says how far a trial is; whole or not at all, but not flushed to the disk."""
    folder = study.path / RUNNING_FOLDER
    ensure_folder(folder)
    path = folder / _file_name(heartbeat.trial_key, heartbeat.piece)
    if is_remote(path):
        upload(path, json_bytes(asdict(heartbeat)))
        return
    temp = temp_path(path)
    temp.write_bytes(json_bytes(asdict(heartbeat)))
    temp.replace(path)


def end_beat(study: StudyFolder, trial_key: str, piece: str = "") -> None:
    """Says that a trial, or a piece of one, is no longer worked on."""
    (study.path / RUNNING_FOLDER / _file_name(trial_key, piece)).unlink(missing_ok=True)


def _file_name(trial_key: str, piece: str) -> str:
    return f"{trial_key}-{piece}.json" if piece else f"{trial_key}.json"


def running(study: StudyFolder) -> list[tuple[Heartbeat, float]]:
    """Trials that the present driver's workers are at, each with the seconds since it was last heard of."""
    holder = live_holder(study.path)
    if holder is None:
        return []
    found = []
    for path in sorted((study.path / RUNNING_FOLDER).glob("[!.]*.json")):
        try:
            heartbeat = Heartbeat(**json.loads(path.read_text(encoding="utf-8")))
            silent = max(0.0, time.time() - path.stat().st_mtime)
        except FileNotFoundError:  # it ended between listing and reading
            continue
        if heartbeat.lease_id == holder.id:
            found.append((heartbeat, silent))
    return found


def heartbeat_files(study: StudyFolder) -> list[Path]:
    """All that was ever said and not taken back."""
    return sorted((study.path / RUNNING_FOLDER).glob("*"))

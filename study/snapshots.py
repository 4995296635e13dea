"""The snapshots of a study: `_snapshots/<trial_key>/<step>-<digest>.safetensors`, named for what is in them.

Beside them, of a long trial that runs, one checkpoint of all its lanes. What the pieces of one trial share for the time
of a run stands in `_shared`, laid out alike. A cache, nothing more: what is damaged, foreign
or lost is told of and computed again.
"""

import hashlib
import logging
import re
from collections.abc import Collection
from pathlib import Path

from results.files import is_temp, write_bytes
from results.places import ensure_folder, remove_folder
from twophase.checkpoint import Checkpoint
from twophase.lanes import LaneState
from twophase.snapshot import SnapshotError, Snapshots, from_bytes, note_of, to_bytes

FOLDER, SHARED_FOLDER = "_snapshots", "_shared"
_NAME = re.compile(r"(\d+)-([0-9a-f]{16})\.safetensors")
_log = logging.getLogger(__name__)


class StoredSnapshots(Snapshots):
    """Snapshots of one trial."""

    def __init__(self, study: Path, trial_key: str, *, is_kept: bool, shared_steps: Collection[int] = ()) -> None:
        """Point at a trial's folder.

        Args:
            study: The study's folder.
            trial_key: The trial.
            is_kept: Whether more are written, or those that are there only read.
            shared_steps: Steps of which one is written all the same, for the time of a run.
        """
        self._shared_folder, self._shared_steps = study / SHARED_FOLDER / trial_key, shared_steps
        self._folder, self._trial_key, self._is_kept = study / FOLDER / trial_key, trial_key, is_kept

    def nearest(self, step: int, like: LaneState) -> tuple[int, LaneState] | None:
        """The latest sound snapshot at or before a step."""
        for path in sorted(self._files(), key=_step_of, reverse=True):
            if _step_of(path) <= step:
                try:
                    return _step_of(path), self._read(path, like)
                except (SnapshotError, OSError) as error:
                    _log.warning("snapshot %s is refused and computed again: %s", path, error)
        return None

    def keep(self, step: int, state: LaneState) -> None:
        """Write a snapshot, whole or not at all, unless it is there."""
        if not self._is_kept and step not in self._shared_steps:
            return
        data = to_bytes(state, self._note(step))
        folder = self._folder if self._is_kept else self._shared_folder
        path = folder / f"{step}-{_digest(data)}.safetensors"
        if not path.exists() or path.read_bytes() != data:
            ensure_folder(folder, parents=True)
            write_bytes(path, data)

    @property
    def steps(self) -> set[int]:
        """Steps of which there is one, sound or not."""
        return {_step_of(path) for path in self._files()}

    def load_checkpoint(self, name: str) -> Checkpoint | None:
        """The state of a run of that name that was killed; None if there is no sound one."""
        for path in self._checkpoints(name):
            try:
                data = path.read_bytes()
                if path.stem.rpartition("-")[2] != _digest(data):
                    raise SnapshotError("its content is not what its name says")
                return Checkpoint.from_bytes(data)
            except (SnapshotError, OSError) as error:
                _log.warning("checkpoint %s is refused; the trial begins anew: %s", path, error)
        return None

    def save_checkpoint(self, name: str, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, whole or not at all, then remove those before it."""
        data, old = checkpoint.to_bytes(), self._checkpoints(name)
        ensure_folder(self._folder, parents=True)
        path = self._folder / f"checkpoint-{name}-{_digest(data)}.safetensors"
        write_bytes(path, data)
        for other in old:
            if other != path:
                other.unlink(missing_ok=True)

    def drop_checkpoint(self, name: str) -> None:
        """Remove the checkpoints of a run that is done."""
        for path in self._checkpoints(name):
            path.unlink(missing_ok=True)

    def _checkpoints(self, name: str) -> list[Path]:
        return sorted(self._folder.glob(f"checkpoint-{name}-*.safetensors"))

    def forget(self) -> None:
        """Remove all of the trial's snapshots."""
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        folders = (self._folder, self._shared_folder)
        return [path for folder in folders for path in folder.glob("*.safetensors") if _NAME.fullmatch(path.name)]

    def _read(self, path: Path, like: LaneState) -> LaneState:
        data = path.read_bytes()
        if _digest(data) != _NAME.fullmatch(path.name)[2]:  # type: ignore[index] # `_files` lists no other
            raise SnapshotError("its content is not what its name says")
        if note_of(data) != self._note(_step_of(path)):
            raise SnapshotError("it is of another trial or step")
        return from_bytes(data, like)

    def _note(self, step: int) -> dict[str, str]:
        return {"trial_key": self._trial_key, "step": str(step)}


def sweep_snapshots(study: Path) -> None:
    """Remove what a killed worker left half written."""
    for folder in (FOLDER, SHARED_FOLDER):
        for path in (study / folder).glob("*/.*"):
            if is_temp(path):
                path.unlink()


def forget_shared(study: Path) -> None:
    """Remove what pieces shared, once all of them are done."""
    remove_folder(study / SHARED_FOLDER)


def _step_of(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]

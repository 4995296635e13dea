"""One driver at a time per study.

The lease is a file. It appears by hard link, which fails if it is there. The right to replace one *particular* stale
holder is itself such a file, named after that holder's id: so among any number of processes that all saw the same dead
driver, exactly one takes over, and nobody can mistake a new holder for the dead one.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from results.errors import LeaseHeld, LeaseLost, StudyError
from results.files import json_bytes, temp_path, write_bytes, write_flushed
from results.places import is_remote, place

LEASE_FILE = "_lease.json"
TEMP_PREFIX = f".{LEASE_FILE}"
HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
_START_TOLERANCE_SECONDS = 1.0  # start times are derived from the clock, which may be adjusted a little
_ATTEMPTS = 100


@dataclass(frozen=True)
class Holder:
    """Who holds a lease; the file's modification time is the heartbeat.

    In an object store, where a file can be touched only by writing it anew, over whoever holds it by then, the
    heartbeat is a file of this holder's own.
    """

    id: str
    host: str
    pid: int
    process_started: float
    since: str


def read_holder(path: Path) -> Holder | None:
    """Who stands in the lease file `path`; None if there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return Holder(**json.loads(text))
    except (TypeError, ValueError):
        # Where links are missing the file is written in place, and may be caught half-way: an unknown host's.
        return Holder("unreadable", "", 0, 0.0, "an unknown time")


def is_running(pid: int, process_started: float) -> bool:
    """Whether that very process still runs: not gone, not a zombie, not another one with its number."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        started: float = process.create_time()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    return abs(started - process_started) <= _START_TOLERANCE_SECONDS


def is_stale(holder: Holder, heartbeat: float, now: float) -> bool:
    """Whether `holder` is gone. `heartbeat` and `now` are both by the file server's clock."""
    if holder.host == socket.gethostname():
        return not is_running(holder.pid, holder.process_started)
    return now - heartbeat > STALE_SECONDS


def live_holder(study_path: Path) -> Holder | None:
    """The driver that works on a study now; None if there is none, or it is gone.

    Touches nothing: a foreign heartbeat is judged by the local clock here, for information only.
    """
    path = study_path / LEASE_FILE
    holder = read_holder(path)
    if holder is None:
        return None
    try:
        heartbeat = _last_beat(path, holder)
    except FileNotFoundError:
        return None
    return None if is_stale(holder, heartbeat, datetime.now(UTC).timestamp()) else holder


def require_lease(study_path: Path, lease_id: str) -> None:
    """Raises LeaseLost unless `lease_id` holds the study now."""
    holder = read_holder(study_path / LEASE_FILE)
    if holder is None or holder.id != lease_id:
        now = "nobody" if holder is None else f"host {holder.host}, pid {holder.pid}"
        raise LeaseLost(f"lease {lease_id} of study {study_path.name!r} is lost; held by {now}: nothing was changed")


class Lease:
    """The right to write to a study, kept alive by a daemon thread until released."""

    def __init__(self, path: Path, lease_id: str) -> None:
        self._path = path
        self.id = lease_id
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease-{path.parent.name}", daemon=True)
        self._thread.start()

    @classmethod
    def acquire(cls, study_path: str | os.PathLike[str]) -> Lease:
        """Takes the lease of a study.

        Raises:
            LeaseHeld: another driver works on it.
            StudyError: the folder is not there or cannot be written.
        """
        path = place(study_path) / LEASE_FILE
        holder = Holder(
            id=uuid.uuid4().hex,
            host=socket.gethostname(),
            pid=os.getpid(),
            process_started=psutil.Process().create_time(),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        try:
            _claim(path, holder)
        except OSError as error:
            raise StudyError(f"cannot take the lease of {path.parent}: {error.strerror or error}") from error
        return cls(path, holder.id)

    def is_held(self) -> bool:
        """Whether the study is still ours."""
        holder = read_holder(self._path)
        return holder is not None and holder.id == self.id

    def release(self) -> None:
        """Gives the study back; another's lease is left alone."""
        self._ended.set()
        self._thread.join()
        if self.is_held():
            self._path.unlink(missing_ok=True)
        if is_remote(self._path):
            _beat_file(self._path, self.id).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            # A file server may be away for a moment; the next beat tries again.
            with contextlib.suppress(OSError):
                if not self.is_held():
                    continue
                if is_remote(self._path):
                    write_bytes(_beat_file(self._path, self.id), b"")
                else:
                    os.utime(self._path)


def _beat_file(path: Path, holder_id: str) -> Path:
    return path.with_name(f"{TEMP_PREFIX}.{holder_id}.beat.tmp")


def _last_beat(path: Path, holder: Holder) -> float:
    """When `holder` was last heard of, by the file server's clock.

    Raises:
        FileNotFoundError: the lease is gone.
    """
    heard = path.stat().st_mtime
    if is_remote(path):
        with contextlib.suppress(FileNotFoundError):
            heard = max(heard, _beat_file(path, holder.id).stat().st_mtime)
    return heard


def _claim(path: Path, mine: Holder) -> None:
    """Makes the lease file `path` ours, or raises LeaseHeld."""
    for _ in range(_ATTEMPTS):
        temp = temp_path(path)
        try:
            write_flushed(temp, json_bytes(asdict(mine)))
            if _appear(temp, path) or _take_over(temp, path, mine):
                return
        except FileNotFoundError:
            if not is_remote(path) and not path.parent.is_dir():
                raise
            # Somebody swept our temporary file, or released between two looks: look again.
        finally:
            temp.unlink(missing_ok=True)
    raise LeaseHeld(f"study {path.parent.name!r}: its lease changes hands all the time; try again")


def _appear(temp: Path, path: Path) -> bool:
    """Links `temp` to `path` unless there is something."""
    try:
        if is_remote(path):
            write_flushed(path, temp.read_bytes())
        else:
            path.hardlink_to(temp)
    except FileExistsError:
        return False
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        if is_remote(path):
            raise
        try:
            write_flushed(path, temp.read_bytes())
        except FileExistsError:
            return False
    return True


def _take_over(temp: Path, path: Path, mine: Holder) -> bool:
    """Replaces a stale holder; False if the lease changed meanwhile, and it is worth another look."""
    holder = read_holder(path)
    if holder is None:
        return False
    # Both times come from the file server: `temp` was written a moment ago.
    if not is_stale(holder, heartbeat=_last_beat(path, holder), now=temp.stat().st_mtime):
        raise LeaseHeld(
            f"study {path.parent.name!r} is in use by host {holder.host}, pid {holder.pid}, since {holder.since}; "
            "wait until it ends or stop it"
        )
    marker = path.with_name(f"{TEMP_PREFIX}.{holder.id}.tmp")
    _claim(marker, mine)
    try:
        current = read_holder(path)
        if current is None or current.id != holder.id:
            return False
        if is_remote(path):
            write_bytes(path, temp.read_bytes())
        else:
            temp.replace(path)
        return True
    finally:
        marker.unlink(missing_ok=True)

"""Where workers fetch their jobs and say what became of them: what stands between the driver and its workers.

An actor of Ray's, so that each call is done whole before the next: a job is here, or with one worker, or ended. Nothing
but the standard library is imported, for the actor's process gets this module as it stands.
"""

from collections import deque
from typing import Any

Slip = tuple[str, str, bool]
"""What a worker is given: a job's name, the job as JSON, and whether it is to end before the worker fetches another."""
Report = dict[str, Any]
"""What a worker says of a job: its name, its lane-steps, and its failure, empty if there was none."""

CLOSED: Slip = ("", "", True)
"""In place of a job, where there will be none any more."""


class Desk:
    """Gives each job to one worker, and keeps what was heard for the driver."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._ready: deque[Slip] = deque()
        self._held: dict[str, list[str]] = {}
        self._heard: list[tuple[str, Report | None, str]] = []
        self._is_closed = False

    def employ(self, worker: str) -> None:
        """Know a worker; to one that isn't known, or no longer, nothing is given."""
        self._held.setdefault(worker, [])

    def fetch(self, worker: str) -> Slip | None:
        """A worker's next job; None if there is none now, `CLOSED` if there will be none."""
        if self._is_closed or worker not in self._held:
            return CLOSED
        if not self._ready:
            return None
        slip = self._ready.popleft()
        self._held[worker].append(slip[0])
        self._heard.append((worker, None, slip[0]))
        return slip

    def end(self, worker: str, report: Report) -> None:
        """Hear of a job's end; of a worker that was given up it is no news: its job went to another one."""
        name = str(report["name"])
        if name in self._held.get(worker, ()):
            self._held[worker].remove(name)
            self._heard.append((worker, report, name))

    def stock(self, slips: list[Slip], is_closed: bool) -> tuple[list[tuple[str, Report | None, str]], int]:
        """Take jobs to be given, the next one first.

        Args:
            slips: The jobs, after those that are here already.
            is_closed: Whether nothing is given any more; what is here isn't either.

        Returns:
            What was heard since the last time (worker, report of the job's end or None where it was fetched, the job's
            name), and how many jobs are here.
        """
        self._ready.extend(slips)
        if is_closed:
            self._is_closed = True
            self._ready.clear()
        heard, self._heard = self._heard, []
        return heard, len(self._ready)

    def dismiss(self, worker: str, again: list[Slip]) -> None:
        """Forget a worker that ended, and give its jobs to the next ones that ask."""
        self._held.pop(worker, None)
        self._ready.extendleft(reversed(again))

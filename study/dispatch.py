"""Jobs in order of their cost, each once it may begin: a piece that shares its trial's reference waits for that.

It waits until the first piece has left the reference at the step at which this one forks, or has ended, however it
ended: a piece that finds no reference trains its own.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from pathlib import Path

from study.planner import Job
from study.snapshots import StoredSnapshots

LOOK_SECONDS = 1.0


class Dispatch:
    """Gives jobs out, and hears of their ends."""

    def __init__(
        self,
        jobs: Sequence[Job],
        study: Path,
        mourn: Callable[[Job, str], None],
        following: Callable[[Job], Sequence[Job]] = lambda _: (),
    ) -> None:
        """Sort out what waits.

        Args:
            jobs: What to do, in order.
            study: The study's folder, where references are shared.
            mourn: Is told of each job whose worker died too often, and of what.
            following: Tells what is to be done next where a job has ended, before all that is left.
        """
        self._jobs, self._study, self._mourn, self._following = list(jobs), study, mourn, following
        self._next: deque[Job] = deque()
        self._ready: list[int] = []
        self._waiting: dict[str, list[int]] = {}
        self._looked = -LOOK_SECONDS
        leading = {job.trial.key for job in jobs if job.is_first}
        for place, job in enumerate(jobs):
            waits = not job.is_first and job.trial.key in leading and bool(job.start or job.reference_digest)
            if waits:
                self._waiting.setdefault(job.trial.key, []).append(place)
            else:
                heappush(self._ready, place)

    def next_job(self) -> Job | None:
        """The next job that may begin; None if there is none now, as long as first pieces are at work."""
        if self._next:
            return self._next.popleft()
        self._look()
        return self._jobs[heappop(self._ready)] if self._ready else None

    def end(self, job: Job, death: str) -> None:
        """Hear of a job's end, and of its worker's death, if that was how."""
        if death:
            self._mourn(job, death)
        else:
            self._next += self._following(job)
        if job.is_first:
            for place in self._waiting.pop(job.trial.key, []):
                heappush(self._ready, place)

    def _look(self) -> None:
        """Let pieces begin whose reference is there.

        Where there is a stored one to reproduce they wait for the first piece's end: otherwise all of them would find
        at the same time that it isn't reproduced, and each compute the whole trial.
        """
        now = time.monotonic()
        if self._ready or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        for trial_key, places in list(self._waiting.items()):
            there = StoredSnapshots(self._study, trial_key, is_kept=False).steps
            begin = [p for p in places if not self._jobs[p].reference_digest and self._jobs[p].start in there]
            for place in begin:
                heappush(self._ready, place)
            left = [place for place in places if place not in begin]
            if left:
                self._waiting[trial_key] = left
            else:
                del self._waiting[trial_key]

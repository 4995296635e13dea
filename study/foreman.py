"""Workers that stay, and jobs that they fetch: Ray Tune starts workers, each of which does one job after another.

Tune remembers every trial that it ran, so that a trial of its own for each job would fill the driver's memory, and each
would cost it a round trip. So what Tune runs are workers, as many as there is room for. Their jobs come from a desk
(`study.desk`), which is kept filled here, and here is known who has which.
"""

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import GetTimeoutError, RayActorError

from study import desk as desk_module
from study.desk import Report, Slip
from study.planner import Job
from study.progress import Progress
from study.proposals import Proposals
from study.vitals import RayGone

WORKER_RETRIES = 3
LOOK_SECONDS = 0.05
ANSWER_SECONDS = 60.0
HEAD = {"node:__internal_head__": 0.001}
"""The desk stands on the node that the cluster can't do without."""


@dataclass(frozen=True)
class OpenDesk:
    """A desk that workers find by its name.

    Attributes:
        name: Its name.
        actor: Its process.
    """

    name: str
    actor: Any

    def call(self, method: str, *arguments: Any) -> Any:
        """Call one of its methods.

        Raises:
            RayGone: Its process doesn't live any more, or doesn't answer.
        """
        try:
            return ray.get(getattr(self.actor, method).remote(*arguments), timeout=ANSWER_SECONDS)
        except (RayActorError, GetTimeoutError) as error:
            raise RayGone("the process of Ray's that hands out jobs was killed") from error


def open_desk() -> OpenDesk:
    """Open a desk; Ray must have started."""
    # Else its process would import all of ours, and take seconds and memory for nothing.
    cloudpickle.register_pickle_by_value(desk_module)  # type: ignore[no-untyped-call]
    name = f"desk-{uuid.uuid4().hex}"
    options = {"name": name, "num_cpus": 0, "resources": HEAD, "max_concurrency": 1}
    return OpenDesk(name, ray.remote(desk_module.Desk).options(**options).remote())


class Foreman:
    """Keeps the desk filled, hears of what ended, and gives out again what a worker had that died."""

    def __init__(
        self, proposals: Proposals, desk: Callable[..., Any], progress: Progress, room: Callable[[], int]
    ) -> None:
        """Begin with no worker.

        Args:
            proposals: Jobs, one after the other.
            desk: Calls a method of the desk by name, and returns what it does.
            progress: Is told of jobs, and knows whether any more are to begin.
            room: Most workers, at present.
        """
        self._proposals, self._desk, self._progress, self._room = proposals, desk, progress, room
        self._workers: dict[str, list[str]] = {}  # the jobs of each, the one that it is at last
        self._jobs: dict[str, Job] = {}
        self._deaths: dict[str, int] = {}
        self._num_ready = self._num_futile = 0
        self._is_closed = False
        self._looked = 0.0

    def hire(self, worker: str) -> bool | None:
        """Whether a worker of that name is to begin; None if none will ever again."""
        if self._is_closed or self._progress.is_ending:
            return None
        if len(self._workers) >= self._room():
            return False
        self._fill(1)
        if self._num_ready <= self._num_idle:
            return False
        self._desk("employ", worker)
        self._workers[worker] = []
        return True

    def look(self) -> None:
        """Hear what is new and fill the desk, a few times a second."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        self._stock([])
        self._fill(0 if self._jobs else 1)
        if not self._is_closed and (self._progress.is_ending or not self._jobs):
            self._is_closed = True
            self._stock([])

    def leave(self, worker: str) -> None:
        """A worker ended by itself: nothing was left for it, or the machine failed, and its jobs with it."""
        self._stock([])
        self._workers.pop(worker, None)
        self._desk("dismiss", worker, [])

    def bury(self, worker: str, cause: str) -> None:
        """A worker died: what it was at counts the death and is given out again, unless it did so too often.

        Args:
            worker: The worker.
            cause: What it died of, in one line.

        """
        self._stock([])
        names = self._workers.pop(worker, [])
        if not names:
            self._num_futile += 1
            if self._num_futile > WORKER_RETRIES:
                self._progress.faults.append(f"workers die before they begin: {cause}")
        else:
            self._deaths[names[-1]] = self._deaths.get(names[-1], 0) + 1
        dead = [name for name in names if self._deaths.get(name, 0) > WORKER_RETRIES]
        again = [name for name in names if name not in dead]
        # Alone from now on: of two jobs at once nobody could tell which one it is that kills workers.
        self._desk("dismiss", worker, [_slip(self._jobs[name], is_alone=True) for name in again])
        self._num_ready += len(again)
        for name in names:
            self._progress.lost(name, self._num_running, is_given_up=name in dead)
        for name in dead:
            self._proposals.end(self._jobs.pop(name), cause)

    @property
    def _num_running(self) -> int:
        """Jobs that are computed: of each worker's the last, for those before are only being committed."""
        return sum(bool(jobs) for jobs in self._workers.values())

    @property
    def _num_idle(self) -> int:
        return len(self._workers) - self._num_running

    def _fill(self, more: int) -> None:
        """Have a job ready for each worker that has none, and where nothing depends on what ends, for the others."""
        ahead = len(self._workers) if self._proposals.is_settled else self._num_idle
        slips: list[Slip] = []
        while self._num_ready + len(slips) < ahead + more and not self._progress.is_ending:
            job = self._proposals.next_job()
            if job is None:
                break
            self._jobs[job.name] = job
            slips.append(_slip(job))
        if slips:
            self._stock(slips)

    def _stock(self, slips: list[Slip]) -> None:
        heard, self._num_ready = self._desk("stock", slips, self._is_closed)
        for worker, report, name in heard:
            self._hear(worker, report, name)

    def _hear(self, worker: str, report: Report | None, name: str) -> None:
        mine = self._workers[worker]
        if report is None:
            mine.append(name)
            self._num_futile = 0
            self._progress.began(name, self._num_running)
            return
        mine.remove(name)
        self._progress.ended(name, report, self._num_running)
        self._proposals.end(self._jobs.pop(name), "")


def _slip(job: Job, *, is_alone: bool = False) -> Slip:
    """A job as it is given out: written out only now, for thousands wait."""
    return job.name, json.dumps(job.to_json()), is_alone

"""The Ray Tune trainable: a worker that fetches one job after another, and commits each while it computes the next."""

import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, cast

import ray
from ray import tune

import results
import twophase
from study import packages
from study.desk import CLOSED, Report, Slip
from study.planner import Job
from study.worker import Place, commit_failure, is_environment_fault, prepare_process, run_job

REPORT_SECONDS = 3.0
"""Tune hears from a worker so often: each time is a round trip to the driver, in which nothing is computed."""
BEAT_SECONDS = 1.0
IDLE_SECONDS = 30.0
"""A worker for which there is nothing so long leaves its processors and GPUs to others."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.01, 0.2


class Desk(Protocol):
    """Where jobs come from; see `study.desk`."""

    def fetch(self, worker: str) -> Slip | None:
        """The next job."""

    def end(self, worker: str, report: Report) -> None:
        """Say that a job ended."""


class _DistantDesk:
    """The desk, in its own process."""

    def __init__(self, name: str) -> None:
        self._actor = ray.get_actor(name)

    def fetch(self, worker: str) -> Slip | None:
        return cast("Slip | None", ray.get(self._actor.fetch.remote(worker)))

    def end(self, worker: str, report: Report) -> None:
        ray.get(self._actor.end.remote(worker, report))


def desk_called(name: str) -> Desk:
    """The desk of that name."""
    return _DistantDesk(name)


@dataclass(frozen=True)
class _Writing:
    """A job that is being committed."""

    job: Job
    report: Report
    commit: "Future[None]"


class JobRunner(tune.Trainable):
    """Does jobs until none is left; reports lane-steps every few seconds.

    A job's end is told once it is committed: success is the rows, not what is told. A job that raises is committed as
    failed, with its cause, and isn't tried again: it would raise again. What the machine's failure ends, or the
    worker's death, is to be done again.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Begin."""
        prepare_process()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin anew in the same process."""
        self._config = new_config
        self._shift: Iterator[None] | None = None
        self._writing: _Writing | None = None
        self._job: Job | None = None
        self._lane_steps = self._total = 0
        return True

    def step(self) -> dict[str, Any]:
        """Work for a few seconds."""
        until = time.monotonic() + REPORT_SECONDS
        try:
            self._shift = self._shift or self._work()
            for _ in self._shift:
                if time.monotonic() >= until:
                    return self._report(is_done=False)
        except results.LeaseLost as error:
            return self._report(is_done=True, fault=str(error))
        except Exception as error:  # noqa: BLE001 - what is no job's fault ends the worker, and is told
            return self._report(is_done=True, fault=_cause(error))
        return self._report(is_done=True)

    def _work(self) -> Iterator[None]:
        """Do jobs until the desk is closed, or has had nothing for a while."""
        if self._config["version"] != twophase.__version__:
            raise OSError(errno.EIO, f"worker has twophase {twophase.__version__}, driver {self._config['version']}")
        if unlike := packages.difference(self._config["packages"]):
            raise OSError(errno.EIO, unlike)
        self._place, self._desk = Place(**self._config["place"]), desk_called(self._config["desk"])
        pause, leaves = FIRST_PAUSE_SECONDS, time.monotonic() + IDLE_SECONDS
        with ThreadPoolExecutor(1) as self._threads:
            while (slip := self._desk.fetch(self.trial_id)) != CLOSED:
                if slip is not None:
                    yield from self._do(Job.from_json(json.loads(slip[1])))
                    self._hand_in(is_waited_for=slip[2])
                    pause, leaves = FIRST_PAUSE_SECONDS, time.monotonic() + IDLE_SECONDS
                elif self._hand_in(is_waited_for=True):
                    continue
                elif time.monotonic() >= leaves:
                    return
                else:
                    time.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                    yield
            self._hand_in(is_waited_for=True)

    def _do(self, job: Job) -> Iterator[None]:
        """Compute one job, and leave it to be committed."""
        self._job, self._lane_steps, self._total = job, 0, job.lane_steps
        self._began, self._next_beat = time.monotonic(), 0.0
        is_written = False

        def write(commit: Callable[[], None]) -> None:
            nonlocal is_written
            self._hand_in(is_waited_for=True)
            self._writing, is_written = _Writing(job, self._told(), self._threads.submit(commit)), True

        try:
            for done, total in run_job(job, self._place, write):
                self._lane_steps, self._total = done, total
                self._beat(job)
                self._hand_in()
                yield
        except Exception as error:  # noqa: BLE001 - recorded with its cause, and told
            self._fail(job, self._told(), error)
            return
        if not is_written:
            self._desk.end(self.trial_id, self._told())

    def _hand_in(self, *, is_waited_for: bool = False) -> bool:
        """Tell of the job that was committed meanwhile, if there is one."""
        writing = self._writing
        if writing is None or not (is_waited_for or writing.commit.done()):
            return False
        self._writing = None
        try:
            writing.commit.result()
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(writing.job, writing.report, error)
        else:
            self._desk.end(self.trial_id, writing.report)
        return True

    def _fail(self, job: Job, report: Report, error: Exception) -> None:
        if isinstance(error, results.LeaseLost) or is_environment_fault(error):
            raise error
        commit_failure(job, self._place, _cause(error))
        self._desk.end(self.trial_id, {**report, "failure": _cause(error)})

    def _beat(self, job: Job) -> None:
        """Tell other terminals how far this trial is, about once a second."""
        now = time.monotonic()
        if now < self._next_beat:
            return
        self._next_beat = now + BEAT_SECONDS
        heartbeat = results.Heartbeat(
            job.trial.key,
            self._place.lease_id,
            socket.gethostname(),
            os.getpid(),
            self._lane_steps,
            self._total,
            now - self._began,
            job.piece,
        )
        results.beat(results.open(self._place.study), heartbeat)

    def _told(self) -> Report:
        return {"name": self._job.name if self._job else "", "lane_steps": self._lane_steps, "failure": ""}

    def _report(self, *, is_done: bool, fault: str = "") -> dict[str, Any]:
        return {**self._told(), "done": is_done, "fault": fault}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to keep: what counts is in the store."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]

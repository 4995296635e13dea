"""The Ray Tune trainable: a reused actor that does one job after another."""

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from ray import tune

import results
import twophase
from study import packages
from study.planner import Job
from study.worker import Place, commit_failure, is_environment_fault, prepare_process, run_job

REPORT_SECONDS = 1.0


class JobRunner(tune.Trainable):
    """Runs the job that its config names; reports lane-steps about once a second.

    Success is the committed rows, not what Ray is told. A trial that raises is committed as failed, with its cause, and
    isn't tried again: it would raise again. A worker that dies is Ray's to restart.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Take a job."""
        prepare_process()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next job in the same process."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._work = config["work"]
        self._progress: Iterator[tuple[int, int]] | None = None
        self._lane_steps = self._total = 0
        self._began, self._next_beat = time.monotonic(), 0.0

    def _open(self) -> Iterator[tuple[int, int]]:
        """Read the job; here and not in `setup`, where an error would reach Ray and be tried again."""
        if self._work["version"] != twophase.__version__:
            raise OSError(errno.EIO, f"worker has twophase {twophase.__version__}, driver {self._work['version']}")
        if unlike := packages.difference(self._work["packages"]):
            raise OSError(errno.EIO, unlike)
        self._job = Job.from_json(json.loads(self._work["job"]))
        self._place = Place(**self._work["place"])
        return run_job(self._job, self._place)

    def step(self) -> dict[str, Any]:
        """Run for about a second."""
        until = time.monotonic() + REPORT_SECONDS
        try:
            self._progress = self._progress or self._open()
            for done, total in self._progress:
                self._lane_steps, self._total = done, total
                self._beat()
                if time.monotonic() >= until:
                    return self._report(is_done=False)
        except results.LeaseLost as error:
            return self._report(is_done=True, fault=str(error))
        except Exception as error:  # noqa: BLE001 - recorded with its cause, and told
            return self._failed(error)
        return self._report(is_done=True)

    def _beat(self) -> None:
        """Tell other terminals how far this trial is, about once a second."""
        now = time.monotonic()
        if now < self._next_beat:
            return
        self._next_beat = now + REPORT_SECONDS
        trial = self._job.trial
        heartbeat = results.Heartbeat(
            trial.key,
            self._place.lease_id,
            socket.gethostname(),
            os.getpid(),
            self._lane_steps,
            self._total,
            now - self._began,
            self._job.piece,
        )
        results.beat(results.open(self._place.study), heartbeat)

    def _failed(self, error: Exception) -> dict[str, Any]:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        if is_environment_fault(error):
            return self._report(is_done=True, fault=cause)
        commit_failure(self._job, self._place, cause)
        return self._report(is_done=True, failure=cause)

    def _report(self, *, is_done: bool, fault: str = "", failure: str = "") -> dict[str, Any]:
        return {"done": is_done, "lane_steps": self._lane_steps, "fault": fault, "failure": failure}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to keep: what counts is in the store."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""

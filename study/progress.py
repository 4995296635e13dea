"""The live progress line, on stderr: trials done, failed, running; lane-steps per second; time left."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune

from study.interruption import Interruption
from study.terminal import is_live
from study.vitals import RayGone

LINE_SECONDS, LIVE_SECONDS = 15.0, 0.5


class Progress(tune.Callback):
    """Follows a sweep; holds no stream before `setup`, for Ray copies callbacks.

    It is told of jobs as `study.foreman` hears of them. One that ended has its line when another one has taken its
    place, so that the number of running ones is right.
    """

    def __init__(
        self, num_jobs: int, lane_steps: int, fault: Callable[[], str] = str, interruption: Interruption | None = None
    ) -> None:
        """Begin at nothing.

        Args:
            num_jobs: Jobs expected.
            lane_steps: Lane-steps expected.
            fault: Tells what is wrong with Ray; empty if nothing.
            interruption: Knows whether Ctrl-C came.
        """
        self._fault, self._interruption = fault, interruption or Interruption()
        self._is_interruption_told = False
        self._num_jobs, self._total = num_jobs, lane_steps
        self._steps: dict[str, int] = {}  # of jobs that haven't ended
        self._steps_before = self._num_started = self._done = self._failed = 0
        self._began = self._shown = 0.0
        self._is_due = False
        self._num_running = self._most_running = 0
        self.faults: list[str] = []

    def __getstate__(self) -> dict[str, Any]:
        """Ray writes callbacks down; what watches over Ray holds on to processes."""
        return {**self.__dict__, "_fault": str}

    def setup(self, *arguments: Any, **info: Any) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    @property
    def is_ending(self) -> bool:
        """Whether no more trials are to begin: Ctrl-C came, or the machine failed, as it would for the next ones."""
        return self._interruption.is_asked or bool(self.faults)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """End the sweep where Ray is gone: Tune itself would wait. Tell what Ctrl-C waits for."""
        if fault := self._fault():
            raise RayGone(fault)
        if self._interruption.is_asked and not self._is_interruption_told:
            self._is_interruption_told = True
            self._tell_what_ends()

    def _tell_what_ends(self) -> None:
        number = self._num_running
        if not number:
            raise KeyboardInterrupt
        what = "the running trial" if number == 1 else f"{number} running trials"
        begin = "\r\x1b[K" if is_live(sys.stderr) else ""
        sys.stderr.write(f"{begin}twophase: finishing {what}; Ctrl-C again stops now\n")
        sys.stderr.flush()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Take the lane-steps of the job that a worker is at, or what the machine failed at."""
        if result["name"] in self._steps:
            self._steps[result["name"]] = int(result["lane_steps"])
        if result["fault"]:
            self.faults.append(str(result["fault"]))
        self._show()

    def began(self, name: str, num_running: int) -> None:
        """Hear of a job that begins, and how many run."""
        self._num_started += 1
        self._steps[name] = 0
        self._count(num_running)

    def ended(self, name: str, report: Mapping[str, Any], num_running: int) -> None:
        """Hear of a job that ended."""
        self._failed += bool(report["failure"])
        self._done += not report["failure"]
        self._steps_before += int(report["lane_steps"])
        del self._steps[name]
        self._is_due = True
        self._count(num_running)

    def lost(self, name: str, num_running: int, *, is_given_up: bool) -> None:
        """Hear of a job whose worker died, too often if it is given up."""
        self._failed += is_given_up
        self._num_started -= not is_given_up
        del self._steps[name]
        self._is_due |= is_given_up
        self._count(num_running)

    def _count(self, num_running: int) -> None:
        self._num_running, self._most_running = num_running, max(self._most_running, num_running)
        self._show()

    def _show(self) -> None:
        now = time.monotonic()
        live = is_live(sys.stderr)
        is_settled = self._num_running == self._most_running or self._num_started >= self._num_jobs or self.is_ending
        is_late = now - self._shown >= LINE_SECONDS
        if not (is_late or (is_settled and (self._is_due or (live and now - self._shown >= LIVE_SECONDS)))):
            return
        self._shown, self._is_due = now, False
        seconds = max(now - self._began, 1e-9)
        steps = self._steps_before + sum(self._steps.values())
        left = f"{seconds * max(self._total - steps, 0) / steps:.0f} s left" if steps else "time left unknown"
        left = "no more begin" if self.is_ending else left
        num_jobs = max(self._num_jobs, self._num_started)  # some follow from others
        text = (
            f"{self._done}/{num_jobs} trials done, {self._failed} failed, {self._num_running} running; "
            f"{steps / seconds:,.0f} lane-steps/s; {left}"
        )
        sys.stderr.write(f"\r\x1b[K{text}" if live else f"{text}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """End the live line."""
        if is_live(sys.stderr):
            sys.stderr.write("\n")

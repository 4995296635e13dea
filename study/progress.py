"""The live progress line, on stderr: trials done, failed, running; lane-steps per second; time left."""

import sys
import time
from typing import Any

from ray import tune

from study.terminal import is_live

LINE_SECONDS, LIVE_SECONDS = 15.0, 0.5


class Progress(tune.Callback):
    """Follows a sweep; holds no stream before `setup`, for Ray copies callbacks.

    A trial that ended has its line when another one has taken its place, so that the number of running ones is right.
    """

    def __init__(self, num_jobs: int, lane_steps: int) -> None:
        self._num_jobs, self._total = num_jobs, lane_steps
        self._steps: dict[str, int] = {}
        self._started: set[str] = set()
        self._running: set[str] = set()
        self._done = self._failed = 0
        self._began = self._shown = 0.0
        self._is_due = False
        self._num_vacant = 0
        self.faults: list[str] = []
        self.died: dict[str, str] = {}

    def setup(self, *arguments: Any, **info: Any) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count a trial as running."""
        if trial.trial_id not in self._running:
            self._num_vacant = max(0, self._num_vacant - 1)
        self._started.add(trial.trial_id)
        self._running.add(trial.trial_id)
        self._show()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Take a trial's lane-steps."""
        self._steps[trial.trial_id] = int(result.get("lane_steps", 0))
        if result.get("fault"):
            self.faults.append(str(result["fault"]))
        self._failed += bool(result.get("failure"))
        self._done += bool(result.get("done") and not result.get("failure") and not result.get("fault"))
        if result.get("done"):
            self._end(trial)
        self._show()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count a trial whose worker died too often."""
        self._failed += 1
        self.died[trial.config["work"]["name"]] = _cause(trial)
        self._end(trial)
        self._show()

    def _end(self, trial: Any) -> None:
        self._running.discard(trial.trial_id)
        self._num_vacant += 1
        self._is_due = True

    def _show(self) -> None:
        now = time.monotonic()
        live = is_live(sys.stderr)
        is_settled = not self._num_vacant or len(self._started) >= self._num_jobs
        is_late = now - self._shown >= LINE_SECONDS
        if not (is_late or (is_settled and (self._is_due or (live and now - self._shown >= LIVE_SECONDS)))):
            return
        self._shown, self._is_due = now, False
        seconds = max(now - self._began, 1e-9)
        steps = sum(self._steps.values())
        left = f"{seconds * max(self._total - steps, 0) / steps:.0f} s left" if steps else "time left unknown"
        num_jobs = max(self._num_jobs, len(self._started))  # some follow from others
        text = (
            f"{self._done}/{num_jobs} trials done, {self._failed} failed, {len(self._running)} running; "
            f"{steps / seconds:,.0f} lane-steps/s; {left}"
        )
        sys.stderr.write(f"\r\x1b[K{text}" if live else f"{text}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """End the live line."""
        if is_live(sys.stderr):
            sys.stderr.write("\n")


def _cause(trial: Any) -> str:
    """What Ray says of a worker's death, in one line."""
    error = trial.get_error()
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "no cause was given"

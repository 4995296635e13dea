"""Tune's order of trials, which is the order they came in, until no more are to begin."""

from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler


class Drain(FIFOScheduler):
    """Lets what runs end and takes back what waits, once it is told to."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        """Remember whom to ask.

        Args:
            is_over: Whether no trial is to begin any more.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._is_over = is_over

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first that waits; none any more once it is over, and those that wait are taken back."""
        if not self._is_over():
            return super().choose_trial_to_run(tune_controller)
        for trial in list(tune_controller.get_live_trials()):
            if trial.status == Trial.PENDING:
                tune_controller.stop_trial(trial)
        return None

    def __getstate__(self) -> dict[str, Any]:
        """Ray writes schedulers down; whom ours asks means nothing elsewhere."""
        return {**self.__dict__, "_is_over": bool}

"""What Ray Tune asks and tells: whether another worker is to begin, and what became of one."""

from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from study.foreman import Foreman


class HiredWorkers(Searcher):
    """Lets Tune begin another worker when there is room and a job for it.

    It keeps nothing that a restart needs: what was done is in the store, what was proposed in the proposer's own.
    """

    def __init__(self, foreman: Foreman, config: dict[str, Any]) -> None:
        """Remember whom to ask.

        Args:
            foreman: Knows whether more workers are wanted.
            config: What each of them is told.
        """
        super().__init__(metric="lane_steps", mode="max")
        self._foreman, self._config = foreman, config

    def suggest(self, trial_id: str) -> Any:
        """A worker's configuration; None while no more are wanted; `FINISHED` when none will be."""
        is_wanted = self._foreman.hire(trial_id)
        if is_wanted is None:
            return str(Searcher.FINISHED)
        return self._config if is_wanted else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass on that a worker left; of one that died `Watch` hears more."""
        if not error:
            self._foreman.leave(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to take up."""

    def __getstate__(self) -> dict[str, Any]:
        """Ray writes down what it was called with; ours holds open files and means nothing elsewhere."""
        return {}


class Watch(tune.Callback):
    """Has the foreman look after the desk, and tells him of deaths."""

    def __init__(self, foreman: Foreman) -> None:
        """Remember whom to tell."""
        self._foreman = foreman

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look after the desk; Tune comes by at least ten times a second."""
        self._foreman.look()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker died."""
        self._foreman.bury(trial.trial_id, _cause(trial))

    def __getstate__(self) -> dict[str, Any]:
        """As above."""
        return {}


def _cause(trial: Any) -> str:
    """What Ray says of a worker's death, in one line.

    It writes that beside the driver. `trial.get_error` looks into the store alone, which hears of it too late.
    """
    told = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    return lines[-1] if lines else "no cause was given"

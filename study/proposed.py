"""Jobs that are proposed while others run, as Ray Tune asks for them."""

from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.search import Searcher

from study.cluster import Proposals
from study.planner import Job


class ProposedJobs(Searcher):
    """Gives Tune the next job when it has room, and hears of each one's end.

    It keeps nothing that a restart needs: what was done is in the store, what was proposed in the proposer's own.
    """

    def __init__(self, proposals: Proposals, work_of: Callable[[Job], dict[str, Any]], died: Mapping[str, str]) -> None:
        """Wrap what proposes.

        Args:
            proposals: Jobs, one after the other.
            work_of: What a worker is told of a job.
            died: Name of a job -> cause, of jobs whose worker died too often, filled in as they do.
        """
        super().__init__(metric="lane_steps", mode="max")
        self._proposals, self._work_of, self._died = proposals, work_of, died
        self._jobs: dict[str, Job] = {}

    def suggest(self, trial_id: str) -> Any:
        """The next job's configuration; None while others may have to end first; `FINISHED` when there is none left."""
        job = self._proposals.next_job()
        if job is None:
            return None if self._jobs else str(Searcher.FINISHED)
        self._jobs[trial_id] = job
        return {"work": self._work_of(job)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass on that a job ended; what it reported last is in the store."""
        del result
        job = self._jobs.pop(trial_id, None)
        if job is not None:
            self._proposals.end(job, self._died.get(job.name, "its worker died") if error else "")

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to take up."""

    def __getstate__(self) -> dict[str, Any]:
        """Ray writes down what it was called with; ours holds open files and means nothing elsewhere."""
        return {}

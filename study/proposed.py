"""Jobs that are proposed while others run, as Ray Tune asks for them."""

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from study.cluster import Proposals
from study.planner import Job
from study.progress import Progress


class ProposedJobs(Searcher):
    """Gives Tune the next job when it has room, and hears of each one's end.

    It keeps nothing that a restart needs: what was done is in the store, what was proposed in the proposer's own.
    """

    def __init__(
        self,
        proposals: Proposals,
        work_of: Callable[[Job], dict[str, Any]],
        progress: Progress,
        room: Callable[[], int],
    ) -> None:
        """Wrap what proposes.

        Args:
            proposals: Jobs, one after the other.
            work_of: What a worker is told of a job.
            progress: Knows whether any more are to begin, and of jobs whose worker died too often the cause.
            room: Most jobs at a time, at present.
        """
        super().__init__(metric="lane_steps", mode="max")
        self._proposals, self._work_of, self._progress, self._room = proposals, work_of, progress, room
        self._jobs: dict[str, Job] = {}

    def suggest(self, trial_id: str) -> Any:
        """The next job's configuration; None while others have to end first; `FINISHED` when there is none left."""
        if self._progress.is_ending:
            return str(Searcher.FINISHED)
        if len(self._jobs) >= self._room():
            return None
        job = self._proposals.next_job()
        if job is None:
            return None if self._jobs else str(Searcher.FINISHED)
        self._jobs[trial_id] = job
        return {"work": self._work_of(job)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass on that a job ended; one that was taken back, or that the machine failed, is still to be done."""
        job = self._jobs.pop(trial_id, None)
        if job is None:
            return
        if error:
            self._proposals.end(job, self._progress.died.get(job.name, "its worker died"))
        elif result and not result.get("fault"):
            self._proposals.end(job, "")

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to take up."""

    def __getstate__(self) -> dict[str, Any]:
        """Ray writes down what it was called with; ours holds open files and means nothing elsewhere."""
        return {}

"""What a run of jobs takes them from."""

from collections.abc import Callable
from dataclasses import dataclass

from study.planner import Job


@dataclass(frozen=True)
class Proposals:
    """Jobs that are proposed one after the other, each when there is room for it.

    Attributes:
        next_job: Gives the next job, or None when there is none, at least until another one ends.
        end: Is told of each job that ended, and of its worker's death, if that was how.
        num_jobs: Jobs expected.
        lane_steps: Lane-steps expected.
        is_settled: Whether what comes next doesn't depend on what ends: it can be asked for ahead of time.
    """

    next_job: Callable[[], Job | None]
    end: Callable[[Job, str], None]
    num_jobs: int
    lane_steps: int
    is_settled: bool = False

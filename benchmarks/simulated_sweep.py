"""One sweep of simulated work in a process of its own: by this project, or the same work as plain Ray tasks.

    python -m benchmarks.simulated_sweep {sweep,tasks} [--trials 200] [--workers 4] [--seconds 2]

Prints one line of JSON. `--seconds -1` lets every trial fail at once, for the driver's memory alone.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import torch

import results
import search_spaces
from benchmarks.sleeping_net import SECONDS, Sleeping
from study import cluster
from study.cluster import Crew, run_jobs
from study.columns import setting_columns
from study.dispatch import Dispatch
from study.planner import Job, make_plan
from study.proposals import Proposals
from study.worker import Place, prepare_process
from twophase.data import DATA
from twophase.experiment import Experiment

LANE_WIDTH = 4


def space_of(num_trials: int) -> dict[str, object]:
    """So many trials of a reference and two children, of two steps each."""
    return {
        "name": "simulated",
        "base": {"data": "synthetic", "num_train": 20, "num_test": 20, "num_steps": 2, "batch_size": 20}
        | {"model": "custom", "build": "benchmarks.sleeping_net:net"},
        "axes": {"lr": {"log": [0.001, 0.5], "num": max(2, num_trials // 10)}},
        "seeds": 10,
        # By the width the number of passes differs, and so would the work.
        "training": {"lane_width": LANE_WIDTH},
        "chaos": {"fork_steps": [0], "magnitudes": [1e-2], "num_directions": 2, "train_sample": 20, "path_points": 3},
    }


def computed(job: Job) -> Iterator[int]:
    """What a trial computes, its rows left where they are."""
    point = job.trial.setting
    dataset = DATA[point.data].load(point.num_train, point.num_test, point.data_seed, Path(tempfile.gettempdir()))
    experiment = Experiment(job.trial, job.todo, dataset, torch.device("cpu"), lane_width=LANE_WIDTH)
    yield from experiment.advance()
    experiment.outcome  # noqa: B018 - the rows are made here


def as_tasks(jobs: list[Job], num_workers: int) -> list[float]:
    """Do all as plain Ray tasks; the times at which they ended."""
    for name, value in cluster.BEFORE_IMPORT.items():
        os.environ.setdefault(name, value)
    import ray  # noqa: PLC0415 - reads the environment when it is imported

    def task(text: str) -> float:
        prepare_process()
        for _ in computed(Job.from_json(json.loads(text))):
            pass
        return time.time()

    ray.init(address="local", num_cpus=num_workers, include_dashboard=False, log_to_driver=False)
    try:
        remote = ray.remote(task)
        ends: list[float] = ray.get([remote.remote(json.dumps(job.to_json())) for job in jobs])
    finally:
        ray.shutdown()
    return ends


def as_sweep(jobs: list[Job], num_workers: int, root: Path) -> list[float]:
    """Do all as `twophase run` does; the times at which they were committed."""
    study = results.create(root / "simulated", study="simulated", setting_columns=setting_columns())
    with results.Lease.acquire(study.path) as lease:
        place = Place(str(study.path), tempfile.gettempdir(), lease.id)
        dispatch = Dispatch(jobs, study.path, lambda job, death: print(job.name, death))
        lane_steps = sum(job.lane_steps for job in jobs)
        proposals = Proposals(dispatch.next_job, dispatch.end, len(jobs), lane_steps, is_settled=True)
        run_jobs(proposals, Crew(place, num_workers, 0, None))
    return [path.stat().st_mtime for path in study.commits_path.glob("*.json")]


def each(ends: list[float], num_workers: int) -> float:
    """Seconds of a worker for a trial, from when each worker has done one: what starting takes is left out."""
    ends = sorted(ends)
    return (ends[-1] - ends[num_workers - 1]) * num_workers / (len(ends) - num_workers)


def main() -> None:
    """Run one and print what it took."""
    parser = argparse.ArgumentParser(description="One sweep of simulated work.")
    parser.add_argument("arm", choices=["sweep", "tasks"])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0)
    asked = parser.parse_args()
    jobs = make_plan(search_spaces.load(space_of(asked.trials))).jobs
    Sleeping.num_passes = 0
    for _ in computed(jobs[0]):
        pass
    os.environ[SECONDS] = str(asked.seconds / Sleeping.num_passes)
    found: dict[str, Any] = {"trials": len(jobs)}
    with tempfile.TemporaryDirectory() as root:
        is_sweep = asked.arm == "sweep"
        ends = as_sweep(jobs, asked.workers, Path(root)) if is_sweep else as_tasks(jobs, asked.workers)
        found |= {"ended": len(ends), "each": each(ends, asked.workers), "bytes": psutil.Process().memory_info().rss}
    print(json.dumps(found))


if __name__ == "__main__":
    main()

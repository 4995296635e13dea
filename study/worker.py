"""What happens in a worker: one job, from its JSON to committed rows."""

import errno
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import results
from results.commits import read_loose_commits
from study.planner import Job, covers_of, is_covered, parts_of
from study.protocols import protocol_text
from study.references import common_digest
from study.snapshots import StoredSnapshots
from study.widths import lane_width
from twophase import __version__
from twophase.comparison import Row
from twophase.config import Trial, digest
from twophase.data import DATA
from twophase.experiment import Experiment, Outcome, Todo

Rows = dict[str, list[Row]]

CHECKPOINT_SECONDS = 600.0
"""A trial that is killed loses no more than this."""

_ENVIRONMENT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}


@dataclass(frozen=True)
class Place:
    """Where a worker reads and writes.

    Attributes:
        study: The study's folder.
        cache: Folder of generated data sets.
        lease_id: The driver's lease; nothing is committed once it is lost.
        gpu_share: Share of a GPU that a trial may fill.
    """

    study: str
    cache: str
    lease_id: str
    gpu_share: float = 1.0


def prepare_process() -> None:
    """One thread, and arithmetic that repeats."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # It would also fill all new memory, two hundred times a step, lest someone read it before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def is_environment_fault(error: BaseException) -> bool:
    """Tell whether the machine failed, not the trial: disk full, or a folder that can't be written any more."""
    return isinstance(error, OSError) and error.errno in _ENVIRONMENT


def at_once(commit: Callable[[], None]) -> None:
    """Commit while nothing else is done."""
    commit()


def run_job(job: Job, place: Place, write: Callable[[Callable[[], None]], None] = at_once) -> Iterator[tuple[int, int]]:
    """Compute what is missing of a trial, or a piece of that, and commit it.

    If the stored reference isn't reproduced (another torch, another device), the whole trial is computed again and
    supersedes what was there: rows of one trial have one reference.

    Args:
        job: What to do.
        place: Where.
        write: Is given what commits it, last, to be called at once or beside what comes next.

    Yields:
        Lane-steps done so far, and all that are to be done.
    """
    study = results.open(place.study)
    setting = job.trial.setting
    load = DATA[setting.data].load
    dataset = load(setting.num_train, setting.num_test, setting.data_seed, Path(place.cache))
    spent, todo, generation = 0, job.todo, job.generation
    snapshots = StoredSnapshots(
        study.path, job.trial.key, is_kept=job.means.is_snapshot_kept, shared_steps=job.shared_steps
    )
    # Another piece may have computed the whole trial again, this one's rows among it.
    while not (job.piece and is_covered(job.todo, read_loose_commits(study, job.trial.key))):
        width = job.means.lane_width or lane_width(study.path, setting, dataset, todo, place.gpu_share)
        experiment = Experiment(
            job.trial,
            todo,
            dataset,
            torch.device(setting.device),
            lane_width=width,
            snapshots=snapshots,
            shared_steps=job.shared_steps,
        )
        name = _run_name(todo, width, generation)
        for done in _checkpointed(experiment, snapshots, name):
            yield spent + done, spent + experiment.total_lane_steps
        spent += experiment.lane_steps
        outcome = experiment.outcome
        # What is whole supersedes whatever has another reference.
        while generation > job.generation and not _is_common(study, job, place, generation, outcome):
            generation += 1
        if _is_common(study, job, place, generation, outcome):
            yield spent, spent
            parts = [_request(study, job.trial, part, place, generation) for part in _parts(todo, outcome)]
            results.end_beat(study, job.trial.key, job.piece)
            write(partial(_commit, study, parts, partial(snapshots.drop_checkpoint, name)))
            return
        todo, generation = job.whole, job.generation + 1
        # They are the old reference's: the new one begins at the beginning, and leaves its own.
        snapshots.forget()
    results.end_beat(study, job.trial.key, job.piece)


def _commit(study: results.Study, parts: list[dict[str, Any]], drop_checkpoint: Callable[[], None]) -> None:
    for part in parts:
        results.write_part(study, **part)
    drop_checkpoint()


def _is_common(study: results.Study, job: Job, place: Place, generation: int, outcome: Outcome) -> bool:
    """Tell whether the reference is that of the trial's other rows of a generation, in the store or on their way."""
    mine = str(outcome.summary["reference_digest"])
    stored = job.reference_digest if generation == job.generation else ""
    if stored or not job.piece:
        return stored in ("", mine)
    return common_digest(study.path, job.trial.key, generation, mine, lease_id=place.lease_id) == mine


def _run_name(todo: Todo, width: int, generation: int) -> str:
    """What a checkpoint must agree in to be gone on from: the same work by the same arithmetic."""
    return digest([covers_of(todo), width, generation, __version__, torch.__version__])


def _checkpointed(experiment: Experiment, snapshots: StoredSnapshots, name: str) -> Iterator[int]:
    """Run an experiment from where it was killed, and write down where it stands every so often."""
    found = snapshots.load_checkpoint(name)
    if found is not None:
        experiment.resume(found)
    due = time.monotonic() + CHECKPOINT_SECONDS
    for done in experiment.advance():
        if time.monotonic() >= due:
            snapshots.save_checkpoint(name, experiment.checkpoint())
            due = time.monotonic() + CHECKPOINT_SECONDS
        yield done


def commit_failure(job: Job, place: Place, error: str) -> None:
    """Record that a job failed, and why, in one line."""
    part = Part(f"failed-{digest(job.covers)[:8]}", job.todo, {}, {})
    study = results.open(place.study)
    results.write_part(study, **_request(study, job.trial, part, place, job.generation, error))
    results.end_beat(study, job.trial.key, job.piece)


@dataclass(frozen=True)
class Part:
    """What is committed at once: its name within the trial, what it covers, its rows, its share of the summary."""

    name: str
    covered: Todo
    rows: Rows
    summary: Row


def _parts(todo: Todo, outcome: Outcome) -> list[Part]:
    """Deal out what was found, in the order in which it is committed.

    Costs are added up over a trial's parts. The last tells what training cost: after a kill between two parts what is
    left costs the same again, and the trial's sum is that of an unbroken run.
    """
    summary = outcome.summary
    parts = []
    for name, covered in parts_of(todo).items():
        rows, seconds, spent = outcome.rows, 0.0, 0
        for kind in covered.kernel_steps:
            rows, seconds = outcome.kernel_rows[kind], outcome.kernel_seconds / len(outcome.kernel_rows)
        if covered.growth:
            rows, seconds = {"growth": outcome.growth_rows}, outcome.growth_seconds
            spent = outcome.growth_lane_steps
        if covered.switch_steps:
            rows, seconds = {"switch": outcome.switch_rows}, outcome.switch_seconds
            spent = outcome.switch_lane_steps
        if covered.sketch_steps:
            rows, seconds = {"sketch": outcome.sketch_rows}, outcome.sketch_seconds
        parts.append(Part(name, covered, rows, {**summary, "wall_seconds": seconds, "lane_steps": spent}))
    last = parts[-1].summary
    apart = outcome.kernel_seconds + outcome.growth_seconds + outcome.switch_seconds + outcome.sketch_seconds
    training = summary["wall_seconds"] - apart
    trained = summary["lane_steps"] - outcome.growth_lane_steps - outcome.switch_lane_steps
    costs = {"wall_seconds": last["wall_seconds"] + training, "lane_steps": last["lane_steps"] + trained}
    parts[-1] = replace(parts[-1], summary={**summary, **costs})
    return parts


def _request(
    study: results.Study, trial: Trial, part: Part, place: Place, generation: int, error: str = ""
) -> dict[str, Any]:
    """What the store is asked to write."""
    return {
        "trial_key": trial.key,
        "part": part.name + (f"-g{generation}" if generation else ""),
        "tables": {name: rows for name, rows in part.rows.items() if rows},
        "covers": covers_of(part.covered),
        "trial": _record(trial, part.summary),
        "keys": {"study": study.name, "setting_key": trial.setting.key, "seed": trial.seed, **trial.setting.values()},
        "status": "failed" if error else part.summary["status"],
        "error": error,
        "generation": generation,
        "lease_id": place.lease_id,
    }


def _record(trial: Trial, summary: dict[str, Any]) -> dict[str, Any]:
    is_cuda = trial.setting.device == "cuda" and torch.cuda.is_available()
    device_name = torch.cuda.get_device_name() if is_cuda else platform.processor() or platform.machine()
    empty = {
        "is_sentinel_exact": False,
        "wall_seconds": 0.0,
        "lane_steps": 0,
        "lane_width": 0,
        "test_loss": float("nan"),
        "test_accuracy": float("nan"),
        "reference_digest": "",
    }
    kept = {name: summary.get(name, value) for name, value in empty.items()}
    return {
        **kept,
        "twophase_version": __version__,
        "torch_version": torch.__version__,
        "python_version": platform.python_version(),
        "device_name": device_name,
        "num_threads": torch.get_num_threads(),
        "protocol": protocol_text(trial.protocol),
    }


def cache_folder() -> Path:
    """Folder of generated data sets: $TWOPHASE_CACHE, or the user's cache folder."""
    named = os.environ.get("TWOPHASE_CACHE")
    if named:
        return Path(named).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "twophase"

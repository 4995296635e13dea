"""From a space to a study: check, plan, run what is missing, derive, report."""

import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import results
import search_spaces
from search_spaces import Space
from study import closing, cluster_address, manifest, resources
from study.cluster import (
    Crew,
    EnvironmentFault,
    check_not_shadowed,
    run_jobs,
)
from study.columns import setting_columns
from study.dispatch import Dispatch
from study.interruption import terminated_as_interrupt
from study.nodes import Node, num_processors, this_machine
from study.planner import Job, Plan, longest_first
from study.proposals import Proposals
from study.references import forget_references
from study.refinement import following, refined_plan
from study.snapshots import forget_shared, sweep_snapshots
from study.worker import Place, cache_folder, commit_failure
from twophase.data import DATA
from twophase.errors import BadInput


@dataclass(frozen=True)
class Means:
    """What a run may use.

    Attributes:
        workers: Most trials at a time; None for one per processor.
        gpus_per_trial: GPUs of one trial, may be a fraction, or ``auto`` for what its memory needs.
        address: A Ray cluster's address; None starts Ray here.
        is_failed_retried: Whether trials that failed before are run again.
        cpus_per_trial: Processors of one trial.
        nodes: What the machine, or the cluster's machines, offer, where that was asked already.
    """

    workers: int | None = None
    gpus_per_trial: float | str = 0
    address: str | None = None
    is_failed_retried: bool = False
    cpus_per_trial: int = 1
    nodes: tuple[Node, ...] = ()


def launch(  # noqa: PLR0913 - all that a user may say, by name
    space: str | Path | Mapping[str, Any],
    root: str | Path = "runs",
    *,
    name: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    workers: int | None = None,
    gpus_per_trial: float | str = 0,
    cpus_per_trial: int = 1,
    address: str | None = None,
    retry_failed: bool = False,
) -> results.Study:
    """Run a space, or what is missing of it.

    Args:
        space: A preset's name, a YAML file, or a dict.
        root: Folder of studies.
        name: Name of the study, in place of the space's own.
        overrides: Values by flat name or dotted path, laid over the space.
        workers: Most trials at a time; None for one per processor.
        gpus_per_trial: GPUs of one trial, may be a fraction; above 0, ``device: auto`` is ``cuda``. ``auto`` for 1/k of
            one, where k trials fit into its memory, and 0 where there is none.
        cpus_per_trial: Processors that are set aside for a trial; it computes in one thread all the same.
        address: A Ray cluster's address; None starts Ray here, on loopback.
        retry_failed: Whether trials that failed before are run again.

    Returns:
        The study, as `results.open` gives it.

    Raises:
        BadInput: Something about the input is wrong; nothing was started.
        results.StudyError: The study can't be written, or another driver has it.
        EnvironmentFault: The disk is full, the cluster can't be reached or went away, or data sets can't be kept.
    """
    means = located(Means(workers, gpus_per_trial, address, retry_failed, cpus_per_trial))
    return run(read_space(space, overrides, name=name, means=means), results.place(root), means)


def read_space(
    space: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None, *, name: str | None, means: Means
) -> Space:
    """Check means and space, and caution about it; ``device: auto`` is ``cuda`` where trials get GPUs."""
    read = search_spaces.load(space, overrides, name=name, device=device_of(means))
    if read.caution:
        print(f"twophase: caution: {read.caution}", file=sys.stderr)
    return read


def located(means: Means) -> Means:
    """Check means, and ask what there is where they leave that open.

    Raises:
        BadInput: They break a rule.
        EnvironmentFault: The cluster doesn't answer.
    """
    _check_means(means)
    if means.gpus_per_trial != resources.AUTO:
        return means
    return replace(means, nodes=_nodes(means))


def device_of(means: Means) -> str:
    """What ``device: auto`` stands for."""
    if means.gpus_per_trial == resources.AUTO:
        return "cuda" if any(node.gpus for node in means.nodes) else "cpu"
    return "cuda" if means.gpus_per_trial else "cpu"


def settled(means: Means, spaces: Iterable[Space]) -> Means:
    """Settle how much of a GPU a trial of any of some spaces gets."""
    if means.gpus_per_trial != resources.AUTO:
        return means
    if not any(node.gpus for node in means.nodes):
        return replace(means, gpus_per_trial=0)
    memory = cluster_address.memory_at(means.address) if means.address else resources.local_memory_bytes()
    share = resources.share_of_gpu(spaces, means.nodes, means.cpus_per_trial, memory)
    print(f"gpus_per_trial: {share:g}, of {memory / 2**30:.0f} GiB", file=sys.stderr)
    return replace(means, gpus_per_trial=share)


def run(space: Space, root: Path, means: Means) -> results.Study:
    """Run a checked space; see `launch`."""
    means = settled(means, [space])
    with driving(space, root, means) as drive:
        plan = refined_plan(space, drive.study, results.read_commits(drive.study), is_ordered=False)
        _tell(plan)
        if plan.jobs:
            _run_plan(space, plan, drive.place, means)
    return drive.study


@dataclass(frozen=True)
class Drive:
    """What the one driver of a study has in hand.

    Attributes:
        study: The study.
        lease: What keeps others away.
    """

    study: results.Study
    lease: results.Lease

    @property
    def place(self) -> Place:
        """Where its workers read and write."""
        return Place(str(self.study.path), str(cache_folder()), self.lease.id)


@contextmanager
def driving(space: Space, root: Path, means: Means, *, is_listed: bool = True) -> Iterator[Drive]:
    """Make or open a study, be its one driver, and leave its tables standing for what is there, whatever ends it.

    What ends well also leaves a report.

    Args:
        space: What is to be run.
        root: Folder of studies.
        means: What it may use.
        is_listed: Whether the study lists the space among those that it was run with.

    Raises:
        BadInput: The space and the study or this machine don't go together; nothing was made.
    """
    _refuse(lacks(space, means))
    folder = (root / space.name).absolute()
    results.require_room(folder)
    check_not_shadowed(Path.cwd())
    declared = manifest.declare(space, manifest.read_declared(folder))
    if any(DATA[point.data].is_cached for point in space.settings):
        _require_cache(cache_folder())
    for name in sorted({point.data for point in space.settings}):
        if fetch := DATA[name].prepare:
            fetch(cache_folder())
    if means.address is not None:
        _refuse(_lacking(means))
    study = results.create(folder, study=space.name, setting_columns=setting_columns())
    with terminated_as_interrupt(), results.Lease.acquire(folder) as lease:
        # Read again under the lease: another driver may have finished in between.
        declared = manifest.declare(space, manifest.read_declared(folder))
        results.sweep(study, lease_id=lease.id)
        sweep_snapshots(study.path)
        manifest.write_declared(folder, declared if is_listed else manifest.unlisted(declared, space))
        if means.is_failed_retried:
            for commit in results.read_commits(study):
                if commit.status == "failed":
                    results.remove_commit(study, commit, lease_id=lease.id)
        results.require_files(study, results.read_commits(study))
        try:
            yield Drive(study, lease)
        finally:
            results.sweep(study, lease_id=lease.id)
            closing.derive(study)
        closing.write_report(study)


def lacks(space: Space, means: Means) -> str:
    """Say what a run of a space would lack on this machine, in one line; empty if nothing."""
    if not means.gpus_per_trial and any(point.device == "cuda" for point in space.settings):
        return "device 'cuda' needs gpus_per_trial > 0, got 0; use --gpus-per-trial, or leave device out"
    return "" if means.address else _lacking(means)


def _lacking(means: Means) -> str:
    gpus = float(means.gpus_per_trial)
    return resources.lacking(_nodes(means), means.cpus_per_trial, gpus, is_cluster=means.address is not None)


def _nodes(means: Means) -> tuple[Node, ...]:
    return means.nodes or (cluster_address.nodes_at(means.address) if means.address else (this_machine(),))


def _refuse(lacking: str) -> None:
    if lacking:
        raise BadInput(lacking)


def study_plan(space: Space, root: Path) -> Plan:
    """Hold a space against what is there, starting and writing nothing.

    Raises:
        BadInput: The space names another primary than the study's.
        results.StudyError: The study can't be read, or none could be made there.
    """
    folder = (root / space.name).absolute()
    results.require_room(folder)
    manifest.declare(space, manifest.read_declared(folder))
    if not folder.exists():
        return refined_plan(space, is_ordered=False)
    study = results.open(folder)
    return refined_plan(space, study, results.read_commits(study), is_ordered=False)


def _require_cache(folder: Path) -> None:
    """Make the folder of generated data sets, and see that it can be written to: else every trial would fail of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise EnvironmentFault(
            f"data sets can't be kept in {folder}: {error.strerror or error}; set TWOPHASE_CACHE to another folder"
        ) from error


def _run_plan(space: Space, plan: Plan, place: Place, means: Means) -> None:
    study, crew = results.open(place.study).path, crew_of(means, place)
    forget_references(study)

    def next_of(job: Job) -> Sequence[Job]:
        return following(space, results.open(place.study), job) if space.chaos.refine else ()

    is_settled = not space.chaos.refine and all(job.is_first for job in plan.jobs)
    # Ray's start mostly waits.
    with ThreadPoolExecutor(1) as beside:
        ordered = beside.submit(longest_first, plan.jobs)
        beside.submit(import_module, "study.report")

        @cache
        def dispatch() -> Dispatch:
            return Dispatch(ordered.result(), study, lambda job, death: _record_death(job, place, death), next_of)

        proposals = Proposals(
            lambda: dispatch().next_job(),
            lambda job, death: dispatch().end(job, death),
            len(plan.jobs),
            plan.todo_lane_steps,
            is_settled,
        )
        run_jobs(proposals, crew)
    forget_references(study)
    forget_shared(study)


def _record_death(job: Job, place: Place, death: str) -> None:
    commit_failure(job, place, f"worker died: {death}")


def crew_of(means: Means, place: Place) -> Crew:
    """What runs a study's jobs by given means."""
    gpus = float(means.gpus_per_trial)
    place = replace(place, gpu_share=min(1.0, gpus) or 1.0)
    return Crew(place, _fitting_workers(means), gpus, means.address, means.cpus_per_trial)


def _fitting_workers(means: Means) -> int | None:
    """Workers, no more than this machine has processors for: more would only take turns."""
    most = num_processors() // means.cpus_per_trial
    if means.workers is None or means.address is not None or means.workers <= most:
        return means.workers
    each = f" at {means.cpus_per_trial} each" if means.cpus_per_trial > 1 else ""
    print(f"workers: {most}, the processors of this machine{each}, in place of {means.workers}", file=sys.stderr)
    return most


def _tell(plan: Plan) -> None:
    in_pieces = f" in {len(plan.jobs)} pieces" if len(plan.jobs) > plan.num_todo else ""
    print(
        f"{plan.num_trials} trials: {plan.num_done} done before, {plan.num_failed} failed before, "
        f"{plan.num_todo} to run{in_pieces} ({plan.todo_lane_steps:,} lane-steps)",
        file=sys.stderr,
    )


def _check_means(means: Means) -> None:
    workers = means.workers
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise BadInput(f"workers must be an integer >= 1, got {workers!r}")
    resources.check_numbers(means.cpus_per_trial, means.gpus_per_trial)
    if means.address is not None:
        cluster_address.check_form(means.address)

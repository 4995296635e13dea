"""Ray: started on loopback or joined, used for one sweep, and left with nothing running."""

import json
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import twophase
from study.packages import PACKAGES, ours
from study.planner import Job
from study.vitals import ClusterVitals, LocalVitals, RayGone
from study.worker import Place
from twophase.errors import BadInput
from twophase.exactness import MKL_MODE, MKL_VARIABLE

WORKER_RETRIES = 3
BEFORE_IMPORT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Tune's snapshots of a sweep, 10 kB per trial each time: what was done is in the store, and nothing reads them.
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_DEDUP_LOGS": "1",
    # A driver whose cluster is gone is ended by Ray after this time, without a word to us: we notice earlier.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
}
_IN_WORKERS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    MKL_VARIABLE: MKL_MODE,
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Memory of one step is used by the next: glibc need not hand it back to the kernel and have it zeroed in between.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31),
}


class EnvironmentFault(RuntimeError):  # noqa: N818 - the contract's word for exit status 3
    """The machine or the cluster failed, not the study."""


def check_not_shadowed(folder: Path) -> None:
    """Workers look for packages in the driver's folder first: a stray one there would be taken for ours.

    Raises:
        BadInput: `folder` holds a package or module of one of our names that isn't ours.
    """
    for name in PACKAGES:
        mine = Path(str(import_module(name).__file__)).resolve()
        for other in (folder / name / "__init__.py", folder / f"{name}.py"):
            if other.is_file() and other.resolve() != mine:
                raise BadInput(f"{other} would be imported in place of {mine}; run from another folder")


class Terminated(KeyboardInterrupt):
    """SIGTERM came: a run ends as it does on Ctrl-C."""


@contextmanager
def terminated_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end a run the way that Ctrl-C does.

    The first one raises; those after it are ignored, for `timeout` and batch systems send two, and the second must not
    stop the tables from being written. In another thread than the main one signals can't be taken: nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    has_come = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal has_come
        if not has_come:
            has_come = True
            raise Terminated

    old = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt as error:
        # What Ray catches inside its own calls it raises anew, as the plain kind.
        raise (Terminated if has_come else KeyboardInterrupt) from error
    finally:
        signal.signal(signal.SIGTERM, old)


@contextmanager
def sigterm_handler_kept() -> Iterator[None]:
    """Keep our handler of SIGTERM while Ray starts, which would replace it by one that exits at once.

    Ray does so in Python, twice, and in C++ as well: that one's is taken back at the end.
    """
    ours, install = signal.getsignal(signal.SIGTERM), signal.signal

    def install_but_for_sigterm(number: int, handler: Any) -> Any:
        return ours if number == signal.SIGTERM else install(number, handler)

    signal.signal = install_but_for_sigterm  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = install
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)


@dataclass(frozen=True)
class Crew:
    """What runs jobs.

    Attributes:
        place: Where workers read and write.
        workers: Most jobs at a time; None for one per processor, or what the cluster holds.
        gpus_per_trial: GPUs of one job, may be a fraction.
        address: A cluster's address; None starts Ray here, on loopback.
        cpus_per_trial: Processors of one job.
    """

    place: Place
    workers: int | None
    gpus_per_trial: float
    address: str | None
    cpus_per_trial: int = 1


@dataclass(frozen=True)
class Proposals:
    """Jobs that are proposed one after the other, each when there is room for it.

    Attributes:
        next_job: Gives the next job, or None when there is none, at least until another one ends.
        end: Is told of each job that ended, and of its worker's death, if that was how.
        num_jobs: Jobs expected.
        lane_steps: Lane-steps expected.
    """

    next_job: Callable[[], Job | None]
    end: Callable[[Job, str], None]
    num_jobs: int
    lane_steps: int


def run_jobs(jobs: list[Job] | Proposals, crew: Crew) -> dict[str, str]:
    """Run jobs on Ray.

    Args:
        jobs: What to do, the most costly first, or what proposes it.
        crew: What runs them.

    Returns:
        Name of a job -> cause, for jobs whose worker died too often.

    Raises:
        EnvironmentFault: The disk is full, or the cluster can't be reached or went away.
    """
    for name, value in BEFORE_IMPORT.items():
        os.environ.setdefault(name, value)
    import ray  # noqa: PLC0415 - reads the environment when it is imported, and takes a second

    with sigterm_handler_kept():
        _start(ray, crew)
    vitals = _vitals(ray, crew)
    try:
        return _tune(jobs, crew, vitals)
    finally:
        vitals.leave(ray.shutdown)


def _vitals(ray: Any, crew: Crew) -> LocalVitals | ClusterVitals:
    if crew.address is None:
        return LocalVitals()
    is_client = crew.address.startswith("ray://")
    mine = "" if is_client else ray.get_runtime_context().get_node_id()

    def is_joined(nodes: list[Any]) -> bool:
        return is_client or any(node["NodeID"] == mine and node["Alive"] for node in nodes)

    return ClusterVitals(ray.nodes, crew.address, is_joined)


def _start(ray: Any, crew: Crew) -> None:
    # Workers of trials that have no GPU don't see any.
    hidden = {} if crew.gpus_per_trial else {"CUDA_VISIBLE_DEVICES": ""}
    settings: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": {"env_vars": {**_IN_WORKERS, **hidden}},
    }
    try:
        if crew.address is not None:
            ray.init(address=crew.address, **settings)
            return
        # "local" and not nothing, which would join the cluster that RAY_ADDRESS or an earlier `ray start` names.
        ray.init(
            address="local",
            num_cpus=crew.workers * crew.cpus_per_trial if crew.workers else num_processors(),
            num_gpus=num_local_gpus() if crew.gpus_per_trial else 0,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            object_store_memory=128 * 1024**2,
            **settings,
        )
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        where = crew.address or "this machine"
        raise EnvironmentFault(f"Ray can't be used on {where}: {str(error).splitlines()[0]}") from error


def _tune(jobs: list[Job] | Proposals, crew: Crew, vitals: LocalVitals | ClusterVitals) -> dict[str, str]:
    from ray import tune  # noqa: PLC0415 - as above

    from study.progress import Progress  # noqa: PLC0415 - imports Ray
    from study.proposed import ProposedJobs  # noqa: PLC0415 - imports Ray
    from study.trainable import JobRunner  # noqa: PLC0415 - imports Ray

    # What Ray reports of single trials stands in our own progress line, commits and exit status.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    planned: dict[str, Any]
    tuning: dict[str, Any] = {"reuse_actors": True, "max_concurrent_trials": crew.workers}
    if isinstance(jobs, Proposals):
        progress = Progress(jobs.num_jobs, jobs.lane_steps, vitals.fault)
        proposed = ProposedJobs(jobs, lambda job: work_of(job, crew.place), progress.died)
        planned, tuning = {}, {**tuning, "search_alg": proposed, "num_samples": -1}
        # On a cluster what there is room for is not this machine's to say.
        tuning["max_concurrent_trials"] = crew.workers or (None if crew.address else num_processors())
    else:
        progress = Progress(len(jobs), sum(job.lane_steps for job in jobs), vitals.fault)
        planned = {"work": tune.grid_search([work_of(job, crew.place) for job in jobs])}
    with (
        tempfile.TemporaryDirectory(prefix="twophase-ray-") as scratch,
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        redirect_stdout(nowhere),
    ):
        tuner = tune.Tuner(
            tune.with_resources(JobRunner, {"cpu": crew.cpus_per_trial, "gpu": crew.gpus_per_trial}),
            param_space=planned,
            tune_config=tune.TuneConfig(**tuning),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                verbose=0,
                callbacks=[progress],
                failure_config=tune.FailureConfig(max_failures=WORKER_RETRIES),
            ),
        )
        try:
            tuner.fit()
        except (Exception, RayGone) as error:
            # Whatever it met, and in whatever Ray wrapped it, where Ray is gone that is why.
            if fault := vitals.fault():
                raise EnvironmentFault(f"{fault}; what was committed is kept, the same command goes on") from error
            raise
        finally:
            progress.close()
    if progress.faults:
        raise EnvironmentFault(progress.faults[0])
    return progress.died


def work_of(job: Job, place: Place) -> dict[str, Any]:
    """What a worker is told: text and paths, for Ray keeps it for every trial."""
    return {
        "name": job.name,
        "job": json.dumps(job.to_json()),
        "place": asdict(place),
        "version": twophase.__version__,
        "packages": ours(),
    }


def num_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_local_gpus() -> int:
    """GPUs of this machine."""
    return torch.cuda.device_count()

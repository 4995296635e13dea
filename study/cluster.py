"""Ray: started on loopback or joined, used for one sweep, and left with nothing running."""

import logging
import os
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import twophase
from study.interruption import first_ctrl_c_only_asks, sigterm_handler_kept
from study.nodes import Node, num_fitting, num_local_gpus, num_processors
from study.packages import PACKAGES, ours
from study.proposals import Proposals
from study.vitals import ClusterVitals, LocalVitals, RayGone, nodes_of
from study.worker import Place
from twophase.errors import BadInput
from twophase.exactness import MKL_MODE, MKL_VARIABLE

BEFORE_IMPORT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Tune's snapshots of a sweep, 10 kB per trial each time: what was done is in the store, and nothing reads them.
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    # Our own proposer says how many trials there is room for; Tune would let one wait at a time.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
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


def run_jobs(jobs: Proposals, crew: Crew) -> None:
    """Run jobs on Ray.

    Args:
        jobs: What proposes them.
        crew: What runs them.

    Raises:
        EnvironmentFault: The disk is full, or the cluster can't be reached or went away.
        KeyboardInterrupt: Ctrl-C came: once, and what ran has ended, or twice.
    """
    for name, value in BEFORE_IMPORT.items():
        os.environ.setdefault(name, value)
    import ray  # noqa: PLC0415 - reads the environment when it is imported, and takes a second

    with sigterm_handler_kept():
        _start(ray, crew)
    vitals = _vitals(ray, crew)
    try:
        _tune(jobs, crew, vitals)
    finally:
        vitals.leave(ray.shutdown)


def _vitals(ray: Any, crew: Crew) -> LocalVitals | ClusterVitals:
    if crew.address is None:
        return LocalVitals(nodes_of(ray.nodes()))
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


def _tune(jobs: Proposals, crew: Crew, vitals: LocalVitals | ClusterVitals) -> None:
    from ray import tune  # noqa: PLC0415 - as above

    from study.drain import Drain  # noqa: PLC0415 - imports Ray
    from study.foreman import Foreman, open_desk  # noqa: PLC0415 - imports Ray
    from study.hired import HiredWorkers, Watch  # noqa: PLC0415 - imports Ray
    from study.progress import Progress  # noqa: PLC0415 - imports Ray
    from study.trainable import JobRunner  # noqa: PLC0415 - imports Ray

    # What Ray reports of single trials stands in our own progress line, commits and exit status.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    with (
        tempfile.TemporaryDirectory(prefix="twophase-ray-") as scratch,
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        redirect_stdout(nowhere),
        first_ctrl_c_only_asks() as interruption,
    ):
        progress = Progress(jobs.num_jobs, jobs.lane_steps, vitals.fault, interruption)
        desk = open_desk()
        foreman = Foreman(jobs, desk.call, progress, lambda: _room(crew, vitals.machines))
        tuner = tune.Tuner(
            tune.with_resources(JobRunner, {"cpu": crew.cpus_per_trial, "gpu": crew.gpus_per_trial}),
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                search_alg=HiredWorkers(foreman, config_of(desk.name, crew.place)),
                scheduler=Drain(lambda: progress.is_ending),
                num_samples=-1,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                verbose=0,
                callbacks=[progress, Watch(foreman)],
            ),
        )
        try:
            tuner.fit()
        except (Exception, RayGone) as error:
            # Whatever it met, and in whatever Ray wrapped it, where Ray is gone that is why.
            if fault := vitals.fault() or (str(error) if isinstance(error, RayGone) else ""):
                raise EnvironmentFault(f"{fault}; what was committed is kept, the same command goes on") from error
            raise
        finally:
            progress.close()
    if progress.faults:
        raise EnvironmentFault(progress.faults[0])
    if interruption.is_asked:
        raise KeyboardInterrupt


def _room(crew: Crew, machines: Sequence[Node]) -> int:
    """Most workers, at least one: where there is no room now, a cluster may grow."""
    fitting = num_fitting(machines, crew.cpus_per_trial, crew.gpus_per_trial)
    return max(1, fitting if crew.workers is None else min(fitting, crew.workers))


def config_of(desk: str, place: Place) -> dict[str, Any]:
    """What a worker is told when it begins, and where its jobs come from."""
    return {"desk": desk, "place": asdict(place), "version": twophase.__version__, "packages": ours()}

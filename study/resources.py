"""What a trial may take of a machine or a cluster: processors, and GPUs or shares of one."""

import math
import subprocess
import sys
from collections.abc import Iterable, Sequence

from search_spaces import Space
from study.cluster import EnvironmentFault
from study.costs import lane_bytes
from study.nodes import Node
from study.planner import Job, pieces_of, planned
from twophase.config import Setting, Trial
from twophase.data import DATA
from twophase.errors import BadInput
from twophase.training import DTYPES

AUTO = "auto"
RESERVED_BYTES = 1 << 30
"""Of every process on a GPU: its context, libraries' workspaces, kernels of probes."""
HEADROOM = 2.0
"""Gradients of activations, evaluation and the allocator's gaps take about as much again as what a step saves."""
MOST_PER_GPU = 16
_PROBE_SECONDS = 120
# In a process of its own: a context on a GPU is given back by the end of its process only.
_PROBE = "import torch; print(min(torch.cuda.mem_get_info(i)[1] for i in range(torch.cuda.device_count())))"


def check_numbers(cpus_per_trial: object, gpus_per_trial: object) -> None:
    """Hold what a trial is to have against what can be asked for.

    Raises:
        BadInput: A value breaks a rule.
    """
    cpus, gpus = cpus_per_trial, gpus_per_trial
    if isinstance(cpus, bool) or not isinstance(cpus, int) or cpus < 1:
        raise BadInput(f"cpus_per_trial must be an integer >= 1, got {cpus!r}")
    if gpus == AUTO:
        return
    if isinstance(gpus, bool) or not isinstance(gpus, int | float) or not math.isfinite(gpus) or gpus < 0:
        raise BadInput(f"gpus_per_trial must be a number >= 0 or auto, got {gpus!r}")
    if gpus > 1 and gpus != int(gpus):
        raise BadInput(f"gpus_per_trial above 1 must be whole, got {gpus:g}")


def lacking(nodes: Sequence[Node], cpus_per_trial: int, gpus_per_trial: float, *, is_cluster: bool) -> str:
    """Say in one line what no node has enough of for a single trial; empty if nothing."""
    most = Node(max((node.cpus for node in nodes), default=0), max((node.gpus for node in nodes), default=0))
    where, way_out = ("the cluster's largest node", "") if is_cluster else ("this machine", "; use 0 or --address")
    if most.gpus < gpus_per_trial:
        return f"gpus_per_trial must be <= {most.gpus:g}, the GPUs of {where}, got {gpus_per_trial:g}{way_out}"
    if most.cpus < cpus_per_trial:
        return f"cpus_per_trial must be <= {most.cpus:g}, the processors of {where}, got {cpus_per_trial}"
    if not any(node.cpus >= cpus_per_trial and node.gpus >= gpus_per_trial for node in nodes):
        return f"no node of the cluster has {cpus_per_trial} processors and {gpus_per_trial:g} GPUs at once"
    return ""


def share_of_gpu(spaces: Iterable[Space], nodes: Sequence[Node], cpus_per_trial: int, memory_bytes: int) -> float:
    """Choose how much of a GPU a trial gets: 1/k, where k of the largest fit into its memory.

    No more than a node's processors can feed, each trial taking its own.

    Args:
        spaces: What is run.
        nodes: Where.
        cpus_per_trial: Processors of one trial.
        memory_bytes: Memory of a GPU, the smallest if there are several kinds.

    Raises:
        BadInput: The memory of a module of the user's own isn't known.
    """
    with_gpus = [node for node in nodes if node.gpus >= 1]
    if not with_gpus:
        return 0.0
    need = max(trial_bytes(space, point) for space in spaces for point in space.settings)
    fed = min(int(node.cpus / cpus_per_trial // node.gpus) for node in with_gpus)
    return 1.0 / max(1, min(int(memory_bytes / need), fed, MOST_PER_GPU))


def trial_bytes(space: Space, point: Setting) -> float:
    """Estimate the memory of a GPU that a trial of a setting takes, all children of its largest piece in one batch."""
    if point.model == "custom":
        raise BadInput("gpus_per_trial must be a number for model 'custom', whose memory isn't known, got auto")
    wanted = planned(space, point)
    trial, source = Trial(point, space.seeds[0], space.protocol), DATA[point.data]
    pieces = pieces_of(Job(trial, wanted, wanted, means=space.training), space.fold)
    width = space.training.lane_width or math.inf
    lanes = max(min(width, 2 + len(p.todo.perturbed)) + min(width, len(p.todo.controls)) for p in pieces)
    num_values = (point.num_train + point.num_test) * math.prod(source.input_shape)
    return RESERVED_BYTES + num_values * DTYPES[point.precision].itemsize + HEADROOM * lanes * lane_bytes(point)


def local_memory_bytes() -> int:
    """Memory of the smallest GPU of this machine.

    Raises:
        EnvironmentFault: It can't be found out.
    """
    try:
        asked = [sys.executable, "-c", _PROBE]
        return int(subprocess.run(asked, check=True, capture_output=True, text=True, timeout=_PROBE_SECONDS).stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        raise EnvironmentFault(f"the memory of this machine's GPUs can't be found out: {error}") from error

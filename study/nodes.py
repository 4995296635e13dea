"""What machines offer to trials, and how many trials they have room for."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Node:
    """One machine.

    Attributes:
        cpus: Its processors, as Ray counts them.
        gpus: Its GPUs.
    """

    cpus: float
    gpus: float = 0.0


def this_machine() -> Node:
    """This machine, as a node."""
    return Node(num_processors(), num_local_gpus())


def num_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_local_gpus() -> int:
    """GPUs of this machine."""
    return torch.cuda.device_count()


def num_fitting(nodes: Iterable[Node], cpus_per_trial: int, gpus_per_trial: float) -> int:
    """Count the trials that some machines can run at a time.

    Args:
        nodes: The machines.
        cpus_per_trial: Processors of one trial.
        gpus_per_trial: GPUs of one trial; a share of one is taken of a single GPU.
    """
    return sum(_on_one(node, cpus_per_trial, gpus_per_trial) for node in nodes)


def _on_one(node: Node, cpus: int, gpus: float) -> int:
    fed = int(node.cpus // cpus)
    if not gpus:
        return fed
    return min(fed, int(node.gpus // gpus) if gpus >= 1 else int(node.gpus) * int(1 / gpus + 1e-9))

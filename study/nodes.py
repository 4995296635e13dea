"""What a machine offers to trials."""

from dataclasses import dataclass

from study.cluster import num_local_gpus, num_processors


@dataclass(frozen=True)
class Node:
    """One machine.

    Attributes:
        cpus: Its processors, as Ray counts them.
        gpus: Its GPUs.
    """

    cpus: float
    gpus: float


def this_machine() -> Node:
    """This machine, as a node."""
    return Node(num_processors(), num_local_gpus())

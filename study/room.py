"""How many trials machines have room for."""

from collections.abc import Iterable, Mapping


def num_fitting(machines: Iterable[Mapping[str, float]], cpus_per_trial: int, gpus_per_trial: float) -> int:
    """Count the trials that some machines can run at a time.

    Args:
        machines: What each has, as Ray names it: ``CPU`` and ``GPU``.
        cpus_per_trial: Processors of one trial.
        gpus_per_trial: GPUs of one trial; a share of one is taken of a single GPU.
    """
    return sum(_on_one(machine, cpus_per_trial, gpus_per_trial) for machine in machines)


def _on_one(machine: Mapping[str, float], cpus: int, gpus: float) -> int:
    fed = int(machine.get("CPU", 0) // cpus)
    if not gpus:
        return fed
    there = machine.get("GPU", 0)
    return min(fed, int(there // gpus) if gpus >= 1 else int(there) * int(1 / gpus + 1e-9))

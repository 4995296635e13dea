"""Learning-rate schedules: the factor on the learning rate at a step."""

import math
from collections.abc import Callable, Sequence

Schedule = Callable[[int, int, Sequence[float], float], float]


def constant(step: int, num_steps: int, milestones: Sequence[float], gamma: float) -> float:  # noqa: ARG001
    """1 throughout."""
    return 1.0


def cosine(step: int, num_steps: int, milestones: Sequence[float], gamma: float) -> float:  # noqa: ARG001
    """½ (1 + cos πt/T): from 1 to 0 (Loshchilov & Hutter 2017, without restarts)."""
    return 0.5 * (1.0 + math.cos(math.pi * step / num_steps))


def step_decay(step: int, num_steps: int, milestones: Sequence[float], gamma: float) -> float:
    """Gamma to the number of milestones passed; milestones are fractions of the run."""
    return gamma ** sum(step >= round(fraction * num_steps) for fraction in milestones)


ENDS_AT_ZERO = frozenset({"cosine"})
"""Schedules under which the end of a run is still whatever phase it is in."""

SCHEDULES: dict[str, Schedule] = {"constant": constant, "cosine": cosine, "step": step_decay}

"""Two-phase learning dynamics: the science, knowing nothing of sweeps, tables or Ray."""

from twophase.chaos import loss_barrier
from twophase.errors import BadInput
from twophase.exactness import MKL_MODE
from twophase.kernel import entk, kernel_distance
from twophase.transition import Transition, locate_transition

__version__ = "0.1.0"
__all__ = [
    "MKL_MODE",
    "BadInput",
    "Transition",
    "__version__",
    "entk",
    "kernel_distance",
    "locate_transition",
    "loss_barrier",
]

"""A network that does next to nothing but sleep in every pass: simulated work, for measuring what is around it."""

import math
import os
import time

import torch
from torch import nn

SECONDS = "SLEEPING_NET_SECONDS"
"""Variable of the environment that holds the length of a pass; below 0 every pass raises."""


class Sleeping(nn.Module):
    """One linear layer, and a pause before it.

    Attributes:
        num_passes: Passes of all such networks of this process.
    """

    num_passes = 0

    def __init__(self, num_inputs: int, num_classes: int) -> None:
        """Make the layer."""
        super().__init__()
        self.layer = nn.Linear(num_inputs, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pause and apply the layer."""
        Sleeping.num_passes += 1
        seconds = float(os.environ.get(SECONDS, "0"))
        if seconds < 0:
            raise RuntimeError("asked to fail")
        time.sleep(seconds)
        output: torch.Tensor = self.layer(x.flatten(1))
        return output


def net(input_shape: tuple[int, ...], num_classes: int) -> Sleeping:
    """What `build` names."""
    return Sleeping(math.prod(input_shape), num_classes)

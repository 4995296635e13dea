"""A network that does next to nothing but sleeps in every pass: simulated work for a benchmark of what is around it."""

import math
import os
import time

import torch
from torch import nn

SECONDS = "SLEEPING_NET_SECONDS"


class Sleeping(nn.Module):
    """One linear layer, and a pause before it."""

    def __init__(self, num_inputs: int, num_classes: int) -> None:
        """Make the layer."""
        super().__init__()
        self.layer = nn.Linear(num_inputs, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pause and apply the layer."""
        time.sleep(float(os.environ.get(SECONDS, "0")))
        output: torch.Tensor = self.layer(x.flatten(1))
        return output


def net(input_shape: tuple[int, ...], num_classes: int) -> Sleeping:
    """What `build` names."""
    return Sleeping(math.prod(input_shape), num_classes)

"""What a setting costs before it is run: arithmetic of a step, memory of a lane. Counted on tensors without values."""

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from twophase.config import Setting
from twophase.data import DATA
from twophase.training import DTYPES, blank_model

_EXAMPLES = 4
"""Of a counted batch; both counts are linear in it but for what doesn't depend on it."""


@dataclass(frozen=True)
class Cost:
    """Of one network.

    Attributes:
        flops: Floating-point operations of one example forward.
        num_parameters: Parameters.
        saved_bytes: What one example's forward pass keeps for the backward pass.
    """

    flops: float
    num_parameters: int
    saved_bytes: float


def step_flops(setting: Setting) -> float:
    """Floating-point operations of one lane-step: a backward pass takes about twice those of the forward pass."""
    return 3.0 * setting.batch_size * cost_of(setting).flops


def lane_bytes(setting: Setting) -> float:
    """What a lane keeps in memory during a step: activations, parameters, gradients and optimiser state."""
    cost, width = cost_of(setting), DTYPES[setting.precision].itemsize
    copies = 4 if setting.optimizer == "adamw" else 3
    return setting.batch_size * cost.saved_bytes + copies * width * cost.num_parameters


def cost_of(setting: Setting) -> Cost:
    """Count a setting's network; settings that differ only in how it is trained share the count.

    A module of the user's own is not run, for it may not go without values: its parameters count once per example.
    """
    trained = replace(setting, lr=0.1, momentum=0.0, weight_decay=0.0, num_steps=1, batch_size=1, schedule="constant")
    return _cost(replace(trained, num_train=1, num_test=1, data_seed=0, device="cpu"))


@cache
def _cost(setting: Setting) -> Cost:
    source, dtype = DATA[setting.data], DTYPES[setting.precision]
    if setting.model == "custom":
        model = blank_model(setting, source.input_shape, source.num_classes)
        num_parameters = sum(parameter.numel() for parameter in model.parameters())
        return Cost(2.0 * num_parameters, num_parameters, 0.0)
    with torch.device("meta"):
        model = blank_model(setting, source.input_shape, source.num_classes).to(dtype).train()
        model.set_noise(0, 0)
        inputs = torch.zeros(_EXAMPLES, *source.input_shape, dtype=dtype)
    held = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    saved: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        # Without values all storages have one address; their objects differ as long as they are saved.
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        logits = model(inputs)
    num_bytes = sum(size for address, size in saved.items() if address not in held)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    del logits
    return Cost(counter.get_total_flops() / _EXAMPLES, num_parameters, num_bytes / _EXAMPLES)
